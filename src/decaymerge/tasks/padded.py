"""Tasks that are orthogonal because each has coordinates of its own (Appendix C.2)."""

import numpy as np

from decaymerge.workflow.jobs import TasksJob


def padded(job: TasksJob, inputs: np.ndarray) -> np.ndarray:
    """Inputs (sample, feature) in the task's block of coordinates, with zeros in those of others."""
    blocks = np.zeros((len(inputs), job.task_count, inputs.shape[1]))
    blocks[:, job.index] = inputs
    return blocks.reshape(len(inputs), -1)
