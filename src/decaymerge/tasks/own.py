"""Tasks with data of one's own, from a file or from a function."""

import importlib.util
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from decaymerge.datasets import FileTask, FunctionTask, OwnTask
from decaymerge.errors import UserError
from decaymerge.jobs import TasksJob
from decaymerge.tasks.padded import padded

Sample = tuple[np.ndarray, np.ndarray]


def from_file(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels (n) that are drawn from a file without replacement."""
    assert isinstance(job.settings, FileTask)
    path = _only(files, job.settings)
    inputs, labels = read(path)
    if job.settings.samples > len(inputs):
        raise UserError(
            f"samples: {job.settings.samples}, but {path} has {len(inputs)}; ask for at most as many"
        )
    chosen = rng.choice(len(inputs), job.settings.samples, replace=False)
    return _placed(job, inputs[chosen], labels[chosen], str(path))


def from_function(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels (n) that a function of the user's makes for this task and seed."""
    settings = job.settings
    assert isinstance(settings, FunctionTask)
    path = _only(files, settings)
    name = f"{path}:{settings.function.rpartition(':')[2]}"
    make = load_function(path, settings.function.rpartition(":")[2])
    try:
        made = make(rng, settings.samples, **settings.arguments)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UserError(f"{name} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise UserError(f"{name} returned {type(made).__name__}; it must return (inputs, labels)")
    inputs, labels = checked(*made, name)
    if len(inputs) != settings.samples:
        raise UserError(
            f"{name} returned {len(inputs)} samples, but samples: {settings.samples} were asked for"
        )
    return _placed(job, inputs, labels, name)


@cache
def read(path: Path) -> Sample:
    """``inputs`` and ``labels`` of a ``.npz`` or NetCDF file, checked.

    Raises:
        UserError: the file cannot be read, lacks an array, or is no binary classification.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        else:
            with xr.open_dataset(path, engine="netcdf4") as data:
                found = {str(name): data[name].values for name in data.variables}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    for name in ("inputs", "labels"):
        if name not in found:
            raise UserError(f"{path} has no array {name!r}; it holds: {', '.join(found) or 'nothing'}")
    return checked(found["inputs"], found["labels"], str(path))


@cache
def load_function(path: Path, name: str) -> Callable[..., Any]:
    """A function of a Python file.

    Raises:
        UserError: the file cannot be imported, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the ending is .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises; a script ends itself
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}; it has: {', '.join(known) or 'none'}")
    return found


def checked(inputs: Any, labels: Any, source: str) -> Sample:
    """Inputs (sample, feature) in float64, and labels -1 for the smaller and 1 for the larger of two values.

    Raises:
        UserError: they are of other shapes, not finite, or not binary.
    """
    try:
        inputs, labels = np.asarray(inputs), np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged, or tensors that are trained
        raise UserError(f"{source}: no arrays: {' '.join(str(error).split())}") from None
    for name, array in (("inputs", inputs), ("labels", labels)):
        if array.dtype.kind not in "fiub":
            raise UserError(f"{source}: {name} are of type {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            raise UserError(f"{source}: {name} hold nan or inf; remove these samples")
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
        raise UserError(
            f"{source}: inputs and labels have the shapes {inputs.shape} and {labels.shape}; (sample, feature) and"
            " (sample,) are expected"
        )
    values = np.unique(labels)
    if len(values) != 2:
        shown = ", ".join(f"{value:g}" for value in values[:4].astype(float)) + ", …" * (len(values) > 4)
        raise UserError(
            f"{source}: binary labels only, but labels have {len(values)} values ({shown}); of several classes"
            " keep two or make two groups, of a target make two by a threshold"
        )
    return inputs.astype(np.float64), np.where(labels == values[1], 1, -1)


def _only(files: Sequence[Path], settings: FileTask | FunctionTask) -> Path:
    if len(files) != 1:
        raise UserError(
            f"dataset: {settings.dataset} needs one file, {settings.file}; {len(files)} were given"
        )
    return files[0]


def _placed(job: TasksJob, inputs: np.ndarray, labels: np.ndarray, source: str) -> Sample:
    """Normalised and padded, if the settings say so."""
    settings = job.settings
    assert isinstance(settings, OwnTask)
    if inputs.shape[1] != settings.dim:
        raise UserError(f"dim: {settings.dim}, but inputs of {source} have {inputs.shape[1]} features")
    if settings.normalised:
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(inputs, axis=1, keepdims=True)
        if not norms.all():
            raise UserError(f"normalised: true, but {source} has inputs that are zero; remove these samples")
        if not np.isfinite(norms).all():
            raise UserError(f"normalised: true, but norms of inputs of {source} overflow; scale them down")
        inputs = inputs / norms
    if settings.padded:
        inputs = padded(job, inputs)
    return inputs, labels
