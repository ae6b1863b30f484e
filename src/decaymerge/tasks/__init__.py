"""Stage ``tasks``: inputs and labels of one task for a block of seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge import store
from decaymerge.jobs import TasksJob
from decaymerge.seeding import generator
from decaymerge.tasks.fashion_mnist import fashion_mnist
from decaymerge.tasks.gaussian import gaussian
from decaymerge.tasks.own import Sample, from_file, from_function

DATASETS: dict[str, Callable[[TasksJob, np.random.Generator, Sequence[Path]], Sample]] = {
    "gaussian": gaussian,
    "fashion_mnist": fashion_mnist,
    "file": from_file,
    "function": from_function,
}
"""A dataset returns inputs (sample, feature) and labels ±1 (sample), from the job's settings, a random stream of
its own, and the files that it needs."""


def make(job: TasksJob, files: Sequence[Path]) -> xr.Dataset:
    """``inputs (seed, sample, feature)`` and ``labels (seed, sample)`` in float64 and int8."""
    dataset = DATASETS[job.settings.dataset]
    drawn = [dataset(job, generator(job.experiment, job.task, seed, "data"), files) for seed in job.seeds]
    inputs, labels = zip(*drawn, strict=True)
    made = xr.Dataset(
        {
            "inputs": (("seed", "sample", "feature"), np.stack(inputs)),
            "labels": (("seed", "sample"), np.stack(labels).astype(np.int8)),
        },
        coords={"seed": job.seeds},
    )
    return store.describe(made, {"inputs": "inputs", "labels": "binary labels, -1 or 1"})
