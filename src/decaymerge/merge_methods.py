"""Methods of merging: functions of the matrices of one layer, one for each network.

A method is one decorated function. Its keyword-only parameters follow from its signature into the configuration,
the JSON schema and the command line. Some names among them are not settings but what the method asks for, and the
driver gives them to it: ``base``, the layer's matrix that all networks were trained from; ``own_inputs`` and
``merged_inputs``, the layer's inputs (sample, in) of each task, as that task's own layers below give them and as
the merged ones do; ``layer``, its number from 1. The driver walks the layers from the first to the last.

Annotations of settings are evaluated when the configuration is read, and importing PyTorch would take a second
there: tensors are annotated by name.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Coefficient = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Ridge = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
INPUTS = frozenset({"own_inputs", "merged_inputs"})
REQUESTS = INPUTS | {"base", "layer"}
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


@merge_method("projected_sum")
def projected_sum(weights: "Sequence[Tensor]", *, layer: int, own_inputs: "Sequence[Tensor]") -> "Tensor":
    """The sum, with each W_1^(i) projected on the span of its own inputs, where weight decay brings it (ours)."""
    if layer > 1:
        return sum_weights(weights)
    return sum_weights(
        [minimum_norm(h, h @ weight.mT) for h, weight in zip(own_inputs, weights, strict=True)]
    )


@merge_method("least_squares")
def least_squares(
    weights: "Sequence[Tensor]",
    *,
    own_inputs: "Sequence[Tensor]",
    merged_inputs: "Sequence[Tensor]",
    activations: Literal["merged", "own"] = "merged",
    ridge: Ridge = 1e-6,
) -> "Tensor":
    """argmin_W Σ_i ‖W H_i - W^(i) H_i‖²/n_i + ρ‖W‖², as RegMean does (Jin et al. 2023).

    With ``merged`` activations, W gets those that the merged layers below give: ‖W H̃_i - W^(i) H_i‖², as RegMean++
    does (Nguyen et al. 2025). ρ is ``ridge`` times the mean diagonal of Σ_i H̃_i H̃_iᵀ/n_i. Without a ridge, W is the
    solution of least norm.
    """
    import torch

    inputs = merged_inputs if activations == "merged" else own_inputs
    outputs = [h @ weight.mT for h, weight in zip(own_inputs, weights, strict=True)]
    x = torch.cat([h / len(h) ** 0.5 for h in inputs])
    y = torch.cat([h / len(h) ** 0.5 for h in outputs])
    gram = x.mT @ x
    rho = ridge * gram.diagonal().mean()
    if rho == 0:
        return minimum_norm(x, y)
    return torch.linalg.solve(gram + rho * torch.eye(len(gram), dtype=gram.dtype), x.mT @ y).mT


def minimum_norm(inputs: "Tensor", outputs: "Tensor") -> "Tensor":
    """The matrix (out, in) of least norm among those that map the inputs (sample, in) best to the outputs."""
    import torch

    return torch.linalg.lstsq(inputs, outputs, driver="gelsd").solution.mT
