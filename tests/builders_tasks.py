"""Jobs that draw data from a user's file or function."""

from typing import Any

from decaymerge.workflow.jobs import TasksJob


def job(index: int = 0, seeds: tuple[int, ...] = (0, 1), **settings: Any) -> TasksJob:
    """A task of two, of 20 samples in two dimensions."""
    base = {"dim": 2, "samples": 20}
    return TasksJob.model_validate(
        {"experiment": "x", "task": "ab"[index], "seeds": seeds, "index": index, "task_count": 2}
        | {"data": base | settings}
    )


def file_job(index: int = 0, **settings: Any) -> TasksJob:
    """From ``data.npz``."""
    return job(index, dataset="file", path="data.npz", **settings)


def function_job(name: str = "spirals", **settings: Any) -> TasksJob:
    """From a function of ``mine.py``."""
    return job(dataset="function", function=f"mine.py:{name}", **settings)
