"""Synthetic tasks: Gaussian inputs on the unit sphere, with a set overlap between tasks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decaymerge.config.datasets import GaussianTask
from decaymerge.errors import UserError
from decaymerge.workflow.jobs import TasksJob


def subspace(settings: GaussianTask, index: int, task_count: int) -> np.ndarray:
    """Orthonormal rows, (dimension of the task's subspace, d), that span the inputs of task ``index``.

    For a numeric overlap c the second task's basis is ``c e_j + √(1-c²) e_{j+d/2}`` next to the first's ``e_j``,
    so that all principal angles have cosine c.
    """
    identity = np.eye(settings.dim)
    if settings.overlap == "same":
        return identity
    if settings.overlap == "orthogonal":
        size = settings.dim // task_count
        return identity[index * size : (index + 1) * size]
    half = settings.dim // 2
    if index == 0:
        return identity[:half]
    return settings.overlap * identity[:half] + np.sqrt(1 - settings.overlap**2) * identity[half:]


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, d) and labels (n): ``sign⟨v, x⟩`` or its variants, v Gaussian, one for each task and seed."""
    settings = job.data
    assert isinstance(settings, GaussianTask)
    if files:
        raise UserError(f"gaussian tasks need no files, but {', '.join(map(str, files))} was given")
    basis = subspace(settings, job.index, job.task_count)
    inputs = rng.standard_normal((settings.samples, len(basis))) @ basis
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    scores = {
        "linear": lambda: inputs @ rng.standard_normal(settings.dim),
        "quadratic": lambda: centred((inputs @ rng.standard_normal(settings.dim)) ** 2),
        "random": lambda: rng.standard_normal(settings.samples),
    }[settings.labels]()
    return inputs, np.where(scores >= 0, 1, -1)


def centred(scores: np.ndarray) -> np.ndarray:
    """Scores minus their median, so that both labels are equally frequent."""
    return scores - np.median(scores)
