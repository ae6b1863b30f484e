"""Check the user's data, from a file or a function, and normalise and pad them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FileTask, FunctionTask, UserTask
from decaymerge.errors import UserError
from decaymerge.tasks import Data, Samples
from decaymerge.tasks.padded import padded
from decaymerge.workflow.jobs import TasksJob


def checked_arrays(arrays: Sequence[Any], source: str) -> Data:
    """Inputs (sample, feature) in float64, and labels (sample), -1 for the smaller and 1 for the larger value.

    The two values are those of the training labels, for test labels as well.

    Args:
        arrays: ``inputs``, finite numbers (sample, feature), and ``labels``, numbers (sample) of exactly two
            different values; after these ``test_inputs`` and ``test_labels``, if test data are given.
        source: File or function that they come from, for the messages.

    Raises:
        UserError: the arrays have other shapes or are not finite, labels are not binary, or test labels have other
            values than labels.
    """
    inputs, labels = _numbers(arrays[:2], source)
    values = np.unique(labels)
    if len(values) != 2:
        raise UserError(
            f"{source}: labels must be binary, but have {len(values)} values ({_listed(values)}); choose two"
            " classes, group them into two, or threshold the target"
        )
    training = inputs, np.where(labels == values[1], 1, -1)
    if len(arrays) == 2:
        return training, None
    test_inputs, test_labels = _numbers(arrays[2:], source, "test_")
    if not len(test_labels):
        raise UserError(f"{source}: test_inputs and test_labels are empty; add samples, or leave both out")
    if len(others := np.setdiff1d(test_labels, values)):
        raise UserError(
            f"{source}: test_labels have values ({_listed(others)}) that labels do not have ({_listed(values)});"
            " give both the same two"
        )
    return training, (test_inputs, np.where(test_labels == values[1], 1, -1))


def _numbers(arrays: Sequence[Any], source: str, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Inputs (sample, feature) in float64 and labels (sample) as they are, of finite numbers."""
    names = f"{prefix}inputs", f"{prefix}labels"
    if any(isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array) for array in arrays):
        raise UserError(
            f"{source}: {' or '.join(names)} have masked entries; remove these samples, or fill them in"
        )
    try:
        inputs, labels = map(np.asarray, arrays)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, or tensors that require gradients
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source}: {' and '.join(names)} cannot be made arrays ({reason}); give numpy arrays"
        ) from None
    for name, array in zip(names, (inputs, labels), strict=True):
        if array.dtype.kind not in "fiub":
            raise UserError(f"{source}: {name} are of type {array.dtype}, not numbers; give them as numbers")
        if not np.isfinite(array).all():
            raise UserError(f"{source}: {name} hold nan or inf; remove these samples")
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
        raise UserError(
            f"{source}: {' and '.join(names)} have the shapes {inputs.shape} and {labels.shape}; (sample, feature)"
            " and (sample,) are expected"
        )
    return inputs.astype(np.float64), labels


def _listed(values: np.ndarray) -> str:
    """The first four of some numbers."""
    return ", ".join(f"{value:g}" for value in values[:4].astype(float)) + ", …" * (len(values) > 4)


def single_file(files: Sequence[Path], settings: FileTask | FunctionTask) -> Path:
    """The file with the user's data or function.

    Raises:
        UserError: no file or several are given.
    """
    if len(files) != 1:
        raise UserError(
            f"dataset: {settings.dataset} needs one file, {settings.file}, but {len(files)} were given"
        )
    if not files[0].is_file():  # a pipe would be waited for
        raise UserError(f"{files[0]} is no file; give the file that {settings.file} names")
    return files[0]


def normalise_and_pad(job: TasksJob, training: Samples, test: Samples | None, source: str) -> Data:
    """Samples with inputs (sample, d), normalised and padded if the settings say so, and their labels as they are.

    Args:
        job: Settings and position of the task.
        training: Inputs (sample, feature) and labels ±1 (sample).
        test: The same of test samples, or none.
        source: File or function that they come from, for the messages.

    Raises:
        UserError: the number of features is not ``dim``, an input cannot be normalised, or the settings ask for
            test samples that are not given.
    """
    if test is None and job.data.test_samples:
        raise UserError(
            f"test_samples: {job.data.test_samples}, but {source} has no test data; give test_inputs and"
            " test_labels, or leave test_samples out"
        )
    data = _inputs(job, training[0], f"inputs of {source}"), training[1]
    if test is None or job.data.test_size == 0:
        return data, None
    return data, (_inputs(job, test[0], f"test_inputs of {source}"), test[1])


def _inputs(job: TasksJob, inputs: np.ndarray, name: str) -> np.ndarray:
    """Inputs (sample, feature) as the network gets them, (sample, d)."""
    settings = job.data
    assert isinstance(settings, UserTask)
    if inputs.shape[1] != settings.dim:
        raise UserError(
            f"dim: {settings.dim}, but the {name} have {inputs.shape[1]} features; set dim to {inputs.shape[1]}"
        )
    if settings.normalised:
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(inputs, axis=1, keepdims=True)
        if not norms.all():
            raise UserError(f"normalised: true, but some {name} are zero; remove these samples")
        if not np.isfinite(norms).all():
            raise UserError(f"normalised: true, but norms of {name} overflow; scale the inputs down")
        inputs = inputs / norms
    return padded(job, inputs) if settings.padded else inputs
