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


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, 784 · tasks) of norm 1 and labels (n): 1 for the classes 0-4, -1 for 5-9.

    Task i fills the i-th block of 784 coordinates, so that tasks are orthogonal. Every second task has its labels
    inverted, so that two tasks disagree on the same image.

    Args:
        job: Settings and position of the task.
        rng: Random stream that draws the sample, without replacement.
        files: Training images and training labels, in this order.

    Raises:
        UserError: other files are given, or a file is damaged.
    """
    if [path.name.split("-")[:2] for path in files] != [["train", "images"], ["train", "labels"]]:
        names = ", ".join(path.name for path in files) or "nothing"
        raise UserError(
            "fashion_mnist needs the files train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, in this"
            f" order, but {names} was given"
        )
    images, classes = map(read_idx, files)
    rows = rng.choice(len(images), job.data.samples, replace=False)
    pixels = images[rows].astype(np.float64)
    inputs = padded(job, pixels / np.linalg.norm(pixels, axis=1, keepdims=True))
    labels = np.where(classes[rows] < 5, 1, -1) * (-1) ** (job.index % 2)
    return inputs, labels
