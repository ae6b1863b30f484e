"""Draw synthetic tasks: Gaussian inputs on the unit sphere, with a given overlap between tasks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decaymerge.config.datasets import GaussianTask
from decaymerge.errors import UserError
from decaymerge.workflow.jobs import TasksJob


def subspace(settings: GaussianTask, index: int, task_count: int) -> np.ndarray:
    """Orthonormal rows (dimension of the subspace, d) that span the inputs of task ``index``.

    For a number c as overlap, the first task's basis is ``e_j`` and the second task's is
    ``c e_j + √(1-c²) e_{j+d/2}``, for j up to d/2, so that all principal angles between them have cosine c.

    Args:
        settings: Dimension d and overlap.
        index: Position of the task, from 0.
        task_count: Number of tasks.
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
    """Inputs (n, d) of norm 1 and labels ±1 (n).

    Labels are ``linear``: ``sign⟨v, x⟩``; ``quadratic``: whether ``⟨v, x⟩²`` is at least its median; or ``random``.
    The vector v is Gaussian, another one for each task and seed.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws inputs and labels.
        files: No file.

    Raises:
        UserError: a file is given.
    """
    settings = job.data
    assert isinstance(settings, GaussianTask)
    if files:
        raise UserError(
            f"dataset: gaussian needs no files, but {', '.join(map(str, files))} was given; give none"
        )
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
