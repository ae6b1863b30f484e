"""Tasks with the user's data from a file."""

import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge.config.datasets import FileTask
from decaymerge.errors import UserError
from decaymerge.tasks.user import Sample, checked, only_file, placed
from decaymerge.workflow.jobs import TasksJob


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels (n) that are drawn from a file without replacement."""
    assert isinstance(job.data, FileTask)
    path = only_file(files, job.data)
    inputs, labels = read(path)
    if job.data.samples > len(inputs):
        raise UserError(f"samples: {job.data.samples}, but {path} has {len(inputs)}; ask for at most as many")
    rows = rng.choice(len(inputs), job.data.samples, replace=False)
    return placed(job, inputs[rows], labels[rows], str(path))


@cache
def read(path: Path) -> Sample:
    """``inputs`` and ``labels`` of a ``.npz`` or NetCDF file, checked.

    Raises:
        UserError: the file cannot be read, lacks an array, or is no binary classification.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            with xr.open_dataset(path, engine="netcdf4") as data:
                arrays = {str(name): data[name].values for name in data.variables}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    for name in ("inputs", "labels"):
        if name not in arrays:
            raise UserError(f"{path} has no array {name!r}; it holds: {', '.join(arrays) or 'nothing'}")
    return checked(arrays["inputs"], arrays["labels"], str(path))
