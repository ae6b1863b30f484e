"""Stage ``tasks``: draw inputs and labels of one task for a block of seeds.

The dataset NAME is drawn by the function ``draw`` of ``tasks/NAME.py``. It gets the job's settings, a random stream
that depends only on experiment, task and seed, and the files that the dataset needs. It returns inputs (sample,
feature) and labels ±1 (sample).
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
    """``inputs (seed, sample, feature)`` in float64 and ``labels (seed, sample)``, -1 or 1, in int8.

    Args:
        job: The task, its seeds, and the settings of its data.
        files: Files that the dataset needs, in its order; none for Gaussian tasks.

    Raises:
        UserError: a file is missing, damaged, or does not fit the settings.
    """
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
