"""Walk several models of one class through their layers together, so that one layer of each is in memory.

Each run is a forward pass of its own network on its own inputs, in a thread of its own. The models are built on
PyTorch's ``meta`` device and hold no numbers. Wherever a module with parameters is called, all runs wait for each
other, and a function gives the parameters of each of them. It sees the input of the module in every run: so a
matrix can be merged from its inputs before the merged network goes on. After the call the numbers are dropped.
"""

import ctypes
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decaymerge.errors import UserError

TRIM: Any = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
"""Of glibc, if this is the C library."""
DROPPED_BYTES = 100_000_000
_dropped = 0
Parameters = dict[str, Tensor]
"""Parameters of one module by their names in it."""
Visit = Callable[[str, list[Tensor | None]], list[Parameters]]
"""From the name of a module and its input in each run to its parameters in each run."""
Batch = Mapping[str, Tensor]
"""Arguments of a model's forward pass by name, each with a row for each sample."""


def walk(models: Sequence[nn.Module], batches: Sequence[Batch], visit: Visit) -> list[Any]:
    """Outputs of each model on its batch.

    Args:
        models: A model on the meta device for each run, all of one class.
        batches: The arguments of each run.
        visit: Gives the parameters of a module for each run.

    Raises:
        UserError: the models take different ways through their modules, or a forward pass fails.
    """
    events: queue.Queue[tuple[int, str, Any]] = queue.Queue()
    runs = [
        _Run(i, model, batch, events) for i, (model, batch) in enumerate(zip(models, batches, strict=True))
    ]
    for run in runs:
        run.start()
    outputs: list[Any] = [None] * len(runs)
    waiting: dict[int, tuple[str, Tensor | None]] = {}
    done = 0
    try:
        while done < len(runs):
            index, kind, content = events.get()
            if kind == "failed":
                raise content
            if kind == "done":
                outputs[index] = content
                done += 1
            else:
                waiting[index] = content
            if waiting and len(waiting) + done == len(runs):
                names = {name for name, _ in waiting.values()}
                if len(names) > 1 or done:
                    raise UserError(
                        f"the models take different ways through {' and '.join(sorted(names))}: inputs cannot be"
                        " followed through this architecture; merge without --inputs"
                    )
                give_back()  # no run computes now, and a visit may need several times the module's size
                given = visit(names.pop(), [waiting[i][1] for i in range(len(runs))])
                waiting.clear()
                for run, parameters in zip(runs, given, strict=True):
                    run.replies.put(parameters)
    finally:
        for run in runs:
            run.replies.put(None)
        for run in runs:
            run.join()
    return outputs


class _StoppedError(Exception):
    """Another run failed."""


class _Run(threading.Thread):
    """One forward pass, which waits at every module with parameters."""

    def __init__(
        self, index: int, model: nn.Module, batch: Batch, events: "queue.Queue[tuple[int, str, Any]]"
    ) -> None:
        super().__init__(daemon=True)
        self.index, self.model, self.batch, self.events = index, model, batch, events
        self.replies: queue.Queue[Parameters | None] = queue.Queue()

    def run(self) -> None:
        handles = [handle for name in modules_with_parameters(self.model) for handle in self._watch(name)]
        try:
            with torch.no_grad():
                self.events.put((self.index, "done", self.model(**self.batch)))
        except _StoppedError:
            pass
        except Exception as error:
            self.events.put((self.index, "failed", _explained(error)))
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name: str) -> list[Any]:
        module = self.model.get_submodule(name)

        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.events.put((self.index, "arrived", (name, first_tensor((args, kwargs)))))
            parameters = self.replies.get()
            if parameters is None:
                raise _StoppedError
            fill(module, parameters)

        def after(*_: Any) -> None:
            empty(module)

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]


def _explained(error: Exception) -> Exception:
    """An error of a forward pass, in one line."""
    if isinstance(error, UserError | MemoryError):
        return error
    text = str(error).strip().split("\n")[0][:200]
    return UserError(
        f"the forward pass failed ({type(error).__name__}: {text}); check that --inputs are what the model takes,"
        " or merge without --inputs"
    )


def fill(module: nn.Module, parameters: Parameters) -> None:
    """Give a module its parameters."""
    for key, value in parameters.items():
        module._parameters[key] = nn.Parameter(value, requires_grad=False)


def empty(module: nn.Module) -> None:
    """Drop the numbers of a module's own parameters, and give their memory back."""
    for key, value in module._parameters.items():
        if value is not None:
            module._parameters[key] = nn.Parameter(value.to("meta"), requires_grad=False)
            _give_back_after(value.nbytes)


def _give_back_after(nbytes: int) -> None:
    """Return freed memory to the system, once that many bytes more are free."""
    global _dropped
    _dropped += nbytes
    if _dropped > DROPPED_BYTES:
        _dropped = 0
        give_back()


def give_back() -> None:
    """Return freed memory to the system. Otherwise the C library keeps it, and it grows with every layer."""
    if TRIM is not None:
        TRIM(0)


def first_tensor(content: Any) -> Tensor | None:
    """The first tensor of floating-point numbers among the arguments of a module, or none."""
    if isinstance(content, Tensor):
        return content if content.is_floating_point() else None
    if isinstance(content, Mapping):
        content = content.values()
    parts = content if isinstance(content, Iterable) and not isinstance(content, str) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def modules_with_parameters(model: nn.Module) -> list[str]:
    """Names of the modules that have parameters of their own."""
    return [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
