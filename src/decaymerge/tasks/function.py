"""Tasks with data that a Python function of the user makes."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FunctionTask
from decaymerge.errors import UserError
from decaymerge.tasks.user import Sample, checked, only_file, placed
from decaymerge.workflow.jobs import TasksJob


def draw(job: TasksJob, rng: np.random.Generator, files: Sequence[Path]) -> Sample:
    """Inputs (n, d) and labels (n) that a function of the user's makes for this task and seed."""
    settings = job.data
    assert isinstance(settings, FunctionTask)
    path = only_file(files, settings)
    name = f"{path}:{settings.function.rpartition(':')[2]}"
    make = load_function(path, settings.function.rpartition(":")[2])
    try:
        made = make(rng, settings.samples, **settings.arguments)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UserError(f"{name} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise UserError(f"{name} returned {type(made).__name__}; it must return (inputs, labels)")
    inputs, labels = checked(*made, name)
    if len(inputs) != settings.samples:
        raise UserError(
            f"{name} returned {len(inputs)} samples, but samples: {settings.samples} were asked for"
        )
    return placed(job, inputs, labels, name)


@cache
def load_function(path: Path, name: str) -> Callable[..., Any]:
    """A function of a Python file.

    Raises:
        UserError: the file cannot be imported, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the ending is .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises; a script ends itself
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}; it has: {', '.join(known) or 'none'}")
    return function
