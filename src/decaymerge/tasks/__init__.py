"""Stage ``tasks``: inputs and labels of one task for a block of seeds.

The dataset NAME is drawn by the function ``draw`` of ``tasks/NAME.py``. It returns inputs (sample, feature) and
labels ±1 (sample) from the job's settings, a random stream of its own, and the files that it needs.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge import store
from decaymerge.seeding import generator
from decaymerge.workflow.jobs import TasksJob


def make(job: TasksJob, files: Sequence[Path]) -> xr.Dataset:
    """``inputs (seed, sample, feature)`` and ``labels (seed, sample)`` in float64 and int8."""
    draw = import_module(f"{__name__}.{job.data.dataset}").draw
    samples = [draw(job, generator(job.experiment, job.task, seed, "data"), files) for seed in job.seeds]
    inputs, labels = zip(*samples, strict=True)
    dataset = xr.Dataset(
        {
            "inputs": (("seed", "sample", "feature"), np.stack(inputs)),
            "labels": (("seed", "sample"), np.stack(labels).astype(np.int8)),
        },
        coords={"seed": job.seeds},
    )
    return store.describe(dataset, {"inputs": "inputs", "labels": "binary labels, -1 or 1"})
