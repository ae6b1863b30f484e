"""Tasks of the counterexample to Theorem 2: one input, the unit vector of the task's own axis, with the label 1."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decaymerge.errors import UserError
from decaymerge.tasks import Data
from decaymerge.workflow.jobs import TasksJob


def draw(
    job: TasksJob, rng: np.random.Generator, test_rng: np.random.Generator, files: Sequence[Path]
) -> Data:
    """Inputs (1, task_count) and labels (1); nothing is random, and there is nothing to hold out.

    Raises:
        UserError: a file is given.
    """
    if files:
        raise UserError(
            f"dataset: axes needs no files, but {', '.join(map(str, files))} was given; give none"
        )
    return (np.eye(job.task_count)[job.index : job.index + 1], np.ones(1)), None
