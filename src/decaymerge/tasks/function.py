"""Draw tasks with a Python function of the user."""

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import cache
from importlib.machinery import SourceFileLoader
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.config.datasets import FunctionTask
from decaymerge.errors import UserError, reason
from decaymerge.tasks import Data, Samples
from decaymerge.tasks.user import checked_arrays, normalise_and_pad, single_file
from decaymerge.workflow.jobs import TasksJob


def draw(
    job: TasksJob, rng: np.random.Generator, test_rng: np.random.Generator, files: Sequence[Path]
) -> Data:
    """Training samples, and test samples or none, that the user's function makes for this task and seed.

    Args:
        job: Settings and position of the task.
        rng: Random stream that is passed to the function.
        test_rng: Not used, as only the function knows the rule by which labels follow from ``rng``.
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
        told = (
            {"test_samples": settings.test_size} if "test_samples" in signature(function).parameters else {}
        )
        with chdir(Path.cwd()):  # a function that works in another folder leaves this one as it is
            arrays = function(rng, settings.samples, **(told | settings.arguments))
    except (Exception, SystemExit) as error:  # the user's code can raise anything
        raise UserError(f"{source} raised {reason(error)}") from error
    if not isinstance(arrays, tuple) or len(arrays) not in (2, 4):
        kind = f"a tuple of {len(arrays)}" if isinstance(arrays, tuple) else type(arrays).__name__
        raise UserError(
            f"{source} returned {kind}; it must return (inputs, labels) or (inputs, labels, test_inputs,"
            " test_labels)"
        )
    training, test = checked_arrays(arrays if settings.test_size else arrays[:2], source)
    _check_number(training, settings.samples, "samples", source)
    if test is not None:
        _check_number(test, settings.test_size, "test_samples", source)
    return normalise_and_pad(job, training, test, source)


def _check_number(samples: Samples, count: int, setting: str, source: str) -> None:
    """Refuse another number of samples than ``count``."""
    if len(samples[0]) != count:
        raise UserError(
            f"{source} returned {len(samples[0])} {setting.replace('_', ' ')}, but {setting}: {count} were asked"
            " for; return that number"
        )


class _SourceAlone(SourceFileLoader):
    """Imports a file without bytecode: that of a file that changed twice in a second would be the old one's."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


@cache
def load_function(path: Path, name: str) -> Callable[..., Any]:
    """The function ``name`` of the Python file ``path``.

    Raises:
        UserError: the file cannot be imported, or has no function of this name.
    """
    loader = _SourceAlone(path.stem, str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None and spec.loader is not None  # the settings allow only .py
    module = importlib.util.module_from_spec(spec)
    try:
        with chdir(Path.cwd()):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code can raise anything, or exit
        raise UserError(f"{path}: {reason(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}; it has: {', '.join(known) or 'none'}")
    return function
