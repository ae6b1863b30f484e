"""Draw tasks from a file with the user's data."""

import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge.config.datasets import FileTask
from decaymerge.errors import UserError
from decaymerge.tasks.user import Sample, checked_arrays, normalise_and_pad, single_file
from decaymerge.workflow.jobs import TasksJob


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels ±1 (n), drawn from the file without replacement.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws the sample.
        files: The file, alone.

    Raises:
        UserError: the file cannot be read, holds too few samples, or does not fit the settings.
    """
    assert isinstance(job.data, FileTask)
    path = single_file(files, job.data)
    inputs, labels = read(path)
    if job.data.samples > len(inputs):
        raise UserError(
            f"samples: {job.data.samples}, but {path} has {len(inputs)}; set samples to at most {len(inputs)}"
        )
    rows = rng.choice(len(inputs), job.data.samples, replace=False)
    return normalise_and_pad(job, inputs[rows], labels[rows], str(path))


@cache
def read(path: Path) -> Sample:
    """The arrays ``inputs`` (sample, feature) and ``labels`` ±1 (sample) of an ``.npz`` or NetCDF file.

    Raises:
        UserError: the file cannot be read or lacks an array, shapes do not fit, or labels are not binary.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            with xr.open_dataset(path, engine="netcdf4") as data:
                arrays = {str(name): data[name].values for name in data.variables}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as .npz or NetCDF: {reason}; write the file again") from None
    for name in ("inputs", "labels"):
        if name not in arrays:
            raise UserError(
                f"{path} has no array {name!r}; it holds: {', '.join(arrays) or 'nothing'}; rename the array"
            )
    return checked_arrays(arrays["inputs"], arrays["labels"], str(path))
