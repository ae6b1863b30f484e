"""Methods of merging: functions of the matrices of one layer, one for each network.

A method is one decorated function. Its keyword-only parameters follow from its signature into the configuration,
the JSON schema and the command line. Some names among them are not settings but what the method asks for, and the
driver gives them to it: ``base``, the layer's matrix that all networks were trained from; ``own_inputs`` and
``merged_inputs``, the layer's inputs (sample, in) of each task, as that task's own layers below give them and as
the merged ones do. The driver walks the layers from the first to the last.

Annotations of settings are evaluated when the configuration is read, and importing PyTorch would take a second
there: tensors are annotated by name.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Coefficient = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
INPUTS = frozenset({"own_inputs", "merged_inputs"})
REQUESTS = INPUTS | {"base"}
"""Keyword parameters that the driver supplies."""


@dataclass(frozen=True)
class MergeMethod:
    """A function of one layer's matrices, ``function(weights, **requested, **parameters)``.

    Attributes:
        function: Takes weights of shape (…, out, in), one for each network, and returns the merged ones.
        needs: Which of ``REQUESTS`` it asks for.
        parameters: Its settings by name, as ``inspect`` describes them.
    """

    function: "Callable[..., Tensor]"
    needs: frozenset[str]
    parameters: dict[str, inspect.Parameter]

    @property
    def plain(self) -> bool:
        """Whether it can be named without any setting."""
        return all(one.default is not one.empty for one in self.parameters.values())

    @property
    def description(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


MERGE_METHODS: dict[str, MergeMethod] = {}
"""Every method by its name in the configuration."""


def merge_method(name: str) -> "Callable[[Callable[..., Tensor]], Callable[..., Tensor]]":
    """Enter the decorated function into ``MERGE_METHODS``."""

    def enter(function: "Callable[..., Tensor]") -> "Callable[..., Tensor]":
        keywords = {
            key: parameter
            for key, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        settings = {key: parameter for key, parameter in keywords.items() if key not in REQUESTS}
        MERGE_METHODS[name] = MergeMethod(function, REQUESTS & keywords.keys(), settings)
        return function

    return enter


@merge_method("sum")
def sum_weights(weights: "Sequence[Tensor]") -> "Tensor":
    """Σ_i W^(i), the paper's merge."""
    return sum(weights[1:], start=weights[0])


@merge_method("average")
def average(weights: "Sequence[Tensor]") -> "Tensor":
    """The mean over networks, the usual merge of fine-tuned ones (Wortsman et al. 2022)."""
    return sum_weights(weights) / len(weights)


@merge_method("scaled")
def scaled(weights: "Sequence[Tensor]", *, coefficient: Coefficient) -> "Tensor":
    """``coefficient`` times the sum, as task arithmetic does (Ilharco et al. 2023)."""
    return coefficient * sum_weights(weights)
