"""Fashion-MNIST as binary, zero-padded, orthogonal tasks (Appendix C.2)."""

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from decaymerge.config import FashionMnistTask
from decaymerge.jobs import TasksJob

HEADER_BYTES = {"images": 16, "labels": 8}


@cache
def read_idx(path: Path) -> np.ndarray:
    """Pixels (sample, 784) or classes (sample) of an IDX file, uint8."""
    kind = "images" if "images" in path.name else "labels"
    values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=HEADER_BYTES[kind])
    return values.reshape(-1, FashionMnistTask.pixels) if kind == "images" else values


def fashion_mnist(
    job: TasksJob, rng: np.random.Generator, files: Sequence[Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, 784 · tasks) and labels (n); classes 0-4 against 5-9.

    Task i fills the i-th block of 784 coordinates, and every second task has its labels inverted, so that
    tasks are orthogonal and disagree on the same image.

    Args:
        job: Settings and position of the task.
        rng: Draws the sample, without replacement.
        files: Training images and labels, in this order.
    """
    images, classes = map(read_idx, files)
    chosen = rng.choice(len(images), job.settings.samples, replace=False)
    pixels = images[chosen].astype(np.float64)
    inputs = np.zeros((len(chosen), job.tasks, FashionMnistTask.pixels))
    inputs[:, job.index] = pixels / np.linalg.norm(pixels, axis=1, keepdims=True)
    labels = np.where(classes[chosen] < 5, 1, -1) * (-1) ** (job.index % 2)
    return inputs.reshape(len(chosen), -1), labels
