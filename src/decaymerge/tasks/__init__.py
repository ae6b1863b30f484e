"""Stage ``tasks``: draw inputs and labels of one task for a block of seeds, for training and held out for tests.

The dataset NAME is drawn by the function ``draw`` of ``tasks/NAME.py``. It gets the job's settings, two random
streams that depend only on experiment, task and seed, one for training data and one for test data, and the files
that the dataset needs. It returns the training samples, and the test samples or none.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from decaymerge import store
from decaymerge.errors import UserError
from decaymerge.seeding import generator
from decaymerge.workflow.jobs import TasksJob

Samples = tuple[np.ndarray, np.ndarray]
"""Inputs (sample, feature) and labels ±1 (sample)."""
Data = tuple[Samples, Samples | None]
"""Training samples; test samples, or none where they are not given."""
SYNTHETIC = ("gaussian", "axes")
"""Datasets whose labels may all be equal by chance, or by their definition."""
LONG_NAMES = {
    "inputs": "inputs",
    "labels": "binary labels, -1 or 1",
    "test_inputs": "inputs of held-out samples",
    "test_labels": "binary labels of held-out samples, -1 or 1",
}


def make(job: TasksJob, files: Sequence[Path]) -> xr.Dataset:
    """``inputs (seed, sample, feature)`` in float64 and ``labels (seed, sample)``, -1 or 1, in int8.

    Test data, if given, are ``test_inputs (seed, test_sample, feature)`` and ``test_labels (seed, test_sample)``.

    Args:
        job: The task, its seeds, and the settings of its data.
        files: Files that the dataset needs, in its order; none for Gaussian tasks.

    Raises:
        UserError: a file is missing, damaged, or does not fit the settings.
    """
    draw = import_module(f"{__name__}.{job.data.dataset}").draw
    purposes = ("data", "test data")
    data: list[Data] = [
        draw(job, *(generator(job.experiment, job.task, seed, purpose) for purpose in purposes), files)
        for seed in job.seeds
    ]
    for seed, ((_, labels), _) in zip(job.seeds, data, strict=True):
        if len(np.unique(labels)) == 1 < len(labels) and job.data.dataset not in SYNTHETIC:
            raise UserError(
                f"samples: {job.data.samples}, and all that were drawn for task {job.task} at seed {seed} have the"
                " same label; draw more samples, or balance the labels"
            )
    variables = _variables([training for training, _ in data])
    test = [samples for _, samples in data if samples is not None]
    if 0 < len(test) < len(data):
        raise UserError(
            f"{job.task}: {len(test)} of {len(data)} seeds have test data; give them for all seeds or for none"
        )
    if test:
        variables |= _variables(test, "test_")
    dataset = xr.Dataset(variables, coords={"seed": job.seeds})
    return store.describe(dataset, {name: LONG_NAMES[name] for name in variables})


def _variables(samples: Sequence[Samples], prefix: str = "") -> dict[str, Any]:
    """Inputs and labels of all seeds, as variables of a dataset."""
    inputs, labels = zip(*samples, strict=True)
    dims = ("seed", f"{prefix}sample")
    return {
        f"{prefix}inputs": ((*dims, "feature"), np.stack(inputs)),
        f"{prefix}labels": (dims, np.stack(labels).astype(np.int8)),
    }
