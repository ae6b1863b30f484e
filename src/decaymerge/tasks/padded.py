"""Make tasks orthogonal: each task gets its own block of coordinates (Appendix C.2)."""

import numpy as np

from decaymerge.workflow.jobs import TasksJob


def padded(job: TasksJob, inputs: np.ndarray) -> np.ndarray:
    """Inputs (sample, feature · tasks) that are those given in the task's own block, and zero in all other blocks.

    Args:
        job: Number of tasks, and position of this task.
        inputs: Inputs (sample, feature) without padding.
    """
    blocks = np.zeros((len(inputs), job.task_count, inputs.shape[1]))
    blocks[:, job.index] = inputs
    return blocks.reshape(len(inputs), -1)
