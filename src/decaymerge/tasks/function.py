"""Draw tasks with a Python function of the user."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FunctionTask
from decaymerge.errors import UserError
from decaymerge.tasks.user import Sample, checked_arrays, normalise_and_pad, single_file
from decaymerge.workflow.jobs import TasksJob


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels ±1 (n) that the user's function makes for this task and seed.

    Args:
        job: Settings and position of the task.
        rng: Random stream that is passed to the function.
        files: The Python file with the function, alone.

    Raises:
        UserError: the file cannot be imported, the function fails, or its arrays do not fit the settings.
    """
    settings = job.data
    assert isinstance(settings, FunctionTask)
    path = single_file(files, settings)
    function_name = settings.function.rpartition(":")[2]
    source = f"{path}:{function_name}"
    function = load_function(path, function_name)
    try:
        arrays = function(rng, settings.samples, **settings.arguments)
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise UserError(f"{source} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(arrays, tuple) or len(arrays) != 2:
        raise UserError(f"{source} returned {type(arrays).__name__}; it must return (inputs, labels)")
    inputs, labels = checked_arrays(*arrays, source)
    if len(inputs) != settings.samples:
        raise UserError(
            f"{source} returned {len(inputs)} samples, but samples: {settings.samples} were asked for; return that"
            " number"
        )
    return normalise_and_pad(job, inputs, labels, source)


@cache
def load_function(path: Path, name: str) -> Callable[..., Any]:
    """The function ``name`` of the Python file ``path``.

    Raises:
        UserError: the file cannot be imported, or has no function of this name.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the settings allow only .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code can raise anything, or exit
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}; it has: {', '.join(known) or 'none'}")
    return function
