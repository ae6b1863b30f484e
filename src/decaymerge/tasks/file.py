"""Draw tasks from a file with the user's data."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge.config.datasets import FileTask
from decaymerge.errors import UserError, reason
from decaymerge.reading import DAMAGED, arrays_of, check_growth
from decaymerge.tasks import Data, Samples
from decaymerge.tasks.user import checked_arrays, normalise_and_pad, single_file
from decaymerge.workflow.jobs import TasksJob


def draw(
    job: TasksJob, rng: np.random.Generator, test_rng: np.random.Generator, files: Sequence[Path]
) -> Data:
    """Training samples, and test samples if the file has some, each drawn from the file without replacement.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws the training samples.
        test_rng: Random stream that draws the test samples.
        files: The file, alone.

    Raises:
        UserError: the file cannot be read, holds too few samples, or does not fit the settings.
    """
    settings = job.data
    assert isinstance(settings, FileTask)
    path = single_file(files, settings)
    training, test = read(path)
    training = _subset(rng, training, settings.samples, "samples", path)
    if test is not None:
        available = min(settings.test_size, len(test[0]))
        count = available if settings.test_samples is None else settings.test_samples
        test = _subset(test_rng, test, count, "test_samples", path)
    return normalise_and_pad(job, training, test, str(path))


def _subset(rng: np.random.Generator, samples: Samples, count: int, setting: str, path: Path) -> Samples:
    """``count`` of some samples, without replacement."""
    inputs, labels = samples
    if count > len(inputs):
        raise UserError(
            f"{setting}: {count}, but {path} has {len(inputs)}; set {setting} to at most {len(inputs)}"
        )
    rows = rng.choice(len(inputs), count, replace=False)
    return inputs[rows], labels[rows]


def _samples_first(array: xr.DataArray) -> xr.DataArray:
    """An array with its dimensions in the order (sample, feature), if they have these names."""
    first = [dim for dim in array.dims if dim in ("sample", "test_sample")]
    last = [dim for dim in array.dims if dim == "feature"]
    return array.transpose(*first, *last) if len(first) + len(last) == array.ndim else array


@cache
def read(path: Path) -> Data:
    """The arrays ``inputs`` (sample, feature) and ``labels`` ±1 (sample) of an ``.npz`` or NetCDF file.

    Next to them ``test_inputs`` and ``test_labels``, or none if the file has neither.

    Raises:
        UserError: the file cannot be read or lacks an array, shapes do not fit, or labels are not binary.
    """
    try:
        if path.suffix == ".npz":
            arrays = arrays_of(path)
        else:
            with xr.open_dataset(path, engine="netcdf4") as data:
                check_growth(str(path), path.stat().st_size, data.nbytes)
                arrays = {str(name): _samples_first(data[name]).values for name in data.variables}
    except DAMAGED as error:
        raise UserError(
            f"{path} cannot be read as .npz or NetCDF: {reason(error)}; write the file again"
        ) from None
    names = ["inputs", "labels"]
    if "test_inputs" in arrays or "test_labels" in arrays:
        names += ["test_inputs", "test_labels"]
    for name in names:
        if name not in arrays:
            raise UserError(
                f"{path} has no array {name!r}; it holds: {', '.join(arrays) or 'nothing'}; rename the array"
            )
    return checked_arrays([arrays[name] for name in names], str(path))
