"""Draw synthetic tasks: Gaussian inputs on the unit sphere, with a given overlap between tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from decaymerge.config.datasets import GaussianTask
from decaymerge.errors import UserError
from decaymerge.tasks import Data
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


def draw(
    job: TasksJob, rng: np.random.Generator, test_rng: np.random.Generator, files: Sequence[Path]
) -> Data:
    """Inputs of norm 1 in the task's subspace, and labels by one rule for training and test samples.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws the training samples and the rule of the labels.
        test_rng: Random stream that draws the test samples.
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
    inputs = on_sphere(rng, settings.samples, basis)
    scores = scores_by(settings, inputs, rng)
    training = inputs, signs(scores(inputs, rng))
    if settings.test_size == 0:
        return training, None
    test_inputs = on_sphere(test_rng, settings.test_size, basis)
    return training, (test_inputs, signs(scores(test_inputs, test_rng)))


def on_sphere(rng: np.random.Generator, count: int, basis: np.ndarray) -> np.ndarray:
    """Inputs (count, d), uniform on the unit sphere of the subspace that the rows of ``basis`` span."""
    inputs = rng.standard_normal((count, len(basis))) @ basis
    return inputs / np.linalg.norm(inputs, axis=1, keepdims=True)


def scores_by(
    settings: GaussianTask, inputs: np.ndarray, rng: np.random.Generator
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """The rule of the labels: a function from inputs (n, d) and their random stream to scores (n).

    Scores are ``linear``: ``⟨v, x⟩``; ``quadratic``: ``⟨v, x⟩²`` minus its median over the training inputs, so that
    both of their labels are equally frequent; or ``random``: independent of x, with either sign at equal odds.

    Args:
        settings: The kind of labels, and the dimension.
        inputs: Training inputs (n, d).
        rng: Random stream that draws the Gaussian vector v.
    """
    if settings.labels == "random":
        return lambda x, stream: stream.standard_normal(len(x))
    vector = rng.standard_normal(settings.dim)
    if settings.labels == "linear":
        return lambda x, _: x @ vector
    threshold = np.median((inputs @ vector) ** 2)
    return lambda x, _: (x @ vector) ** 2 - threshold


def signs(scores: np.ndarray) -> np.ndarray:
    """Labels ±1, 1 for a score of 0."""
    return np.where(scores >= 0, 1, -1)
