"""What tasks with the user's data share: checks of the arrays, and their place in the coordinates of all tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FileTask, FunctionTask, UserTask
from decaymerge.errors import UserError
from decaymerge.tasks.padded import padded
from decaymerge.workflow.jobs import TasksJob

Sample = tuple[np.ndarray, np.ndarray]


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
            f"{source}: binary labels only, but labels have {len(values)} values ({shown}); choose two classes,"
            " group them into two, or threshold the target"
        )
    return inputs.astype(np.float64), np.where(labels == values[1], 1, -1)


def only_file(files: Sequence[Path], settings: FileTask | FunctionTask) -> Path:
    """The one file that a task with the user's data is made from."""
    if len(files) != 1:
        raise UserError(
            f"dataset: {settings.dataset} needs one file, {settings.file}; {len(files)} were given"
        )
    return files[0]


def placed(job: TasksJob, inputs: np.ndarray, labels: np.ndarray, source: str) -> Sample:
    """Normalised and padded, if the settings say so."""
    settings = job.data
    assert isinstance(settings, UserTask)
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
