"""Check the user's data, from a file or a function, and normalise and pad them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FileTask, FunctionTask, UserTask
from decaymerge.errors import UserError
from decaymerge.tasks.padded import padded
from decaymerge.workflow.jobs import TasksJob

Sample = tuple[np.ndarray, np.ndarray]
"""Inputs (sample, feature) and labels (sample)."""


def checked_arrays(inputs: Any, labels: Any, source: str) -> Sample:
    """Inputs (sample, feature) in float64, and labels (sample), -1 for the smaller and 1 for the larger value.

    Args:
        inputs: Finite numbers (sample, feature).
        labels: Numbers (sample), of exactly two different values.
        source: File or function that they come from, for the messages.

    Raises:
        UserError: the arrays have other shapes, are not finite, or the labels are not binary.
    """
    try:
        inputs, labels = np.asarray(inputs), np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, or tensors that require gradients
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source}: inputs and labels cannot be made arrays ({reason}); give numpy arrays"
        ) from None
    for name, array in (("inputs", inputs), ("labels", labels)):
        if array.dtype.kind not in "fiub":
            raise UserError(f"{source}: {name} are of type {array.dtype}, not numbers; give them as numbers")
        if not np.isfinite(array).all():
            raise UserError(f"{source}: {name} hold nan or inf; remove these samples")
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1]:
        raise UserError(
            f"{source}: inputs and labels have the shapes {inputs.shape} and {labels.shape}; (sample, feature) and"
            " (sample,) are expected"
        )
    values = np.unique(labels)
    if len(values) != 2:
        listed = ", ".join(f"{value:g}" for value in values[:4].astype(float)) + ", …" * (len(values) > 4)
        raise UserError(
            f"{source}: labels must be binary, but have {len(values)} values ({listed}); choose two classes, group"
            " them into two, or threshold the target"
        )
    return inputs.astype(np.float64), np.where(labels == values[1], 1, -1)


def single_file(files: Sequence[Path], settings: FileTask | FunctionTask) -> Path:
    """The file with the user's data or function.

    Raises:
        UserError: no file or several are given.
    """
    if len(files) != 1:
        raise UserError(
            f"dataset: {settings.dataset} needs one file, {settings.file}, but {len(files)} were given"
        )
    return files[0]


def normalise_and_pad(job: TasksJob, inputs: np.ndarray, labels: np.ndarray, source: str) -> Sample:
    """Inputs (sample, d), normalised and padded if the settings say so, and the labels (sample) as they are.

    Args:
        job: Settings and position of the task.
        inputs: Inputs (sample, feature).
        labels: Labels ±1 (sample).
        source: File or function that they come from, for the messages.

    Raises:
        UserError: the number of features is not ``dim``, or an input cannot be normalised.
    """
    settings = job.data
    assert isinstance(settings, UserTask)
    if inputs.shape[1] != settings.dim:
        raise UserError(
            f"dim: {settings.dim}, but the inputs of {source} have {inputs.shape[1]} features; set dim to"
            f" {inputs.shape[1]}"
        )
    if settings.normalised:
        with np.errstate(over="ignore"):
            norms = np.linalg.norm(inputs, axis=1, keepdims=True)
        if not norms.all():
            raise UserError(f"normalised: true, but {source} has inputs that are zero; remove these samples")
        if not np.isfinite(norms).all():
            raise UserError(
                f"normalised: true, but the norms of inputs of {source} overflow; scale the inputs down"
            )
        inputs = inputs / norms
    if settings.padded:
        inputs = padded(job, inputs)
    return inputs, labels
