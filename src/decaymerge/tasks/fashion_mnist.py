"""Draw binary, zero-padded, orthogonal tasks from Fashion-MNIST (Appendix C.2)."""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from decaymerge.config.datasets import FashionMnistTask
from decaymerge.errors import UserError
from decaymerge.fetch.fashion_mnist import SHA256
from decaymerge.tasks import Data, Samples
from decaymerge.tasks.padded import padded
from decaymerge.workflow.jobs import TasksJob

HEADER_BYTES = {"images": 16, "labels": 8}
"""Bytes of an IDX file that come before its numbers."""


@cache
def read_idx(path: Path) -> np.ndarray:
    """Pixels (sample, 784) or classes (sample) of an IDX file, in uint8, after its content was verified.

    Raises:
        UserError: the file is damaged, or is not the file of Fashion-MNIST that its name says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read ({error}); remove it and give the same command again"
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256.get(path.name):
        raise UserError(
            f"{path} is not Fashion-MNIST's file of this name; remove it and give the same command again"
        )
    kind = "images" if "images" in path.name else "labels"
    values = np.frombuffer(content, np.uint8, offset=HEADER_BYTES[kind])
    return values.reshape(-1, FashionMnistTask.pixels) if kind == "images" else values


def draw(
    job: TasksJob, rng: np.random.Generator, test_rng: np.random.Generator, files: Sequence[Path]
) -> Data:
    """Inputs (n, 784 · tasks) of norm 1 and labels (n): 1 for the classes 0-4, -1 for 5-9.

    Task i fills the i-th block of 784 coordinates, so that tasks are orthogonal. Every second task has its labels
    inverted, so that two tasks disagree on the same image. Test samples are from Fashion-MNIST's test images.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws the training images, without replacement.
        test_rng: Random stream that draws the test images, without replacement.
        files: Training images, training labels, test images and test labels, in this order.

    Raises:
        UserError: other files are given, or a file is damaged.
    """
    settings = job.data
    assert isinstance(settings, FashionMnistTask)
    if [path.name for path in files] != list(settings.fetched):
        names = ", ".join(path.name for path in files) or "nothing"
        raise UserError(
            f"fashion_mnist needs the files {', '.join(settings.fetched)}, in this order, but {names} was given"
        )
    training = _samples(job, rng, settings.samples, *files[:2])
    return training, _samples(job, test_rng, settings.test_size, *files[2:]) if settings.test_size else None


def _samples(job: TasksJob, rng: np.random.Generator, count: int, images: Path, labels: Path) -> Samples:
    """``count`` images of a file, with their labels."""
    pixels, classes = read_idx(images), read_idx(labels)
    rows = rng.choice(len(pixels), count, replace=False)
    scaled = pixels[rows].astype(np.float64)
    inputs = padded(job, scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
    return inputs, np.where(classes[rows] < 5, 1, -1) * (-1) ** (job.index % 2)
