"""Methods of merging: functions of the matrices of one layer, one for each network.

A method is one decorated function. Its keyword-only parameters follow from its signature into the configuration,
the JSON schema and the command line. Some names among them are not settings but what the method asks for, and the
driver gives them to it: ``base``, the layer's matrix that all networks were trained from; ``own_inputs`` and
``merged_inputs``, the layer's inputs (sample, in) of each task, as that task's own layers below give them and as
the merged ones do; ``layer``, its number from 1; ``names`` of the networks, and the ``role`` of the matrix. The
driver walks the layers from the first to the last.

Annotations of settings are evaluated when the configuration is read, and importing PyTorch would take a second
there: tensors are annotated by name.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field, Tag

if TYPE_CHECKING:
    from torch import Tensor

Coefficient = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
EVERYTHING = "all"
"""Name of the coefficient that multiplies every matrix of every network."""
Coefficients = Annotated[
    Annotated[Coefficient, Tag("number")] | Annotated[dict[str, Coefficient], Tag("numbers")],
    Discriminator(lambda value: "numbers" if isinstance(value, Mapping) else "number"),
]
"""One number, or numbers by the name of a network, the role of a matrix, or ``EVERYTHING``; others count as 1."""
Share = Annotated[float, Field(ge=0, le=1)]
Ridge = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
MOST_COLUMNS = 4096
"""Columns of a system that are solved at a time: a language model has one for each word."""
INPUTS = frozenset({"own_inputs", "merged_inputs"})
REQUESTS = INPUTS | {"base", "layer", "names", "role"}
"""Keyword parameters that the driver supplies."""


@dataclass(frozen=True)
class MergeMethod:
    """A function of one layer's matrices, ``function(weights, **requested, **parameters)``.

    Attributes:
        function: Takes weights of shape (…, out, in), one for each network, and returns the merged ones.
        needs: Which of ``REQUESTS`` it asks for.
        uses: Which of them it also takes where they are available: those with a default.
        parameters: Its settings by name, as ``inspect`` describes them.
    """

    function: "Callable[..., Tensor]"
    needs: frozenset[str]
    uses: frozenset[str]
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
        requests = {
            key: keywords[key].default is inspect.Parameter.empty for key in REQUESTS & keywords.keys()
        }
        needs = frozenset(key for key, needed in requests.items() if needed)
        MERGE_METHODS[name] = MergeMethod(function, needs, frozenset(requests) - needs, settings)
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
def scaled(
    weights: "Sequence[Tensor]", *, coefficient: Coefficients, names: Sequence[str] = (), role: str = ""
) -> "Tensor":
    """``coefficient`` times the sum, as task arithmetic does (Ilharco et al. 2023).

    With several numbers, that of a network multiplies its matrices, that of a role all matrices of this role.
    """
    if not isinstance(coefficient, dict):
        return coefficient * sum_weights(weights)
    shared = coefficient.get(EVERYTHING, 1.0) * coefficient.get(role, 1.0)
    return sum_weights(
        [shared * coefficient.get(name, 1.0) * weight for name, weight in zip(names, weights, strict=True)]
    )


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
    base: "Tensor | None" = None,
    activations: Literal["own", "merged"] = "own",
    ridge: Ridge = 1e-6,
    shrinkage: Share = 0.0,
) -> "Tensor":
    """argmin_W Σ_i ‖(W - W^(i)) H_i‖²/n_i + ρ‖W‖² on the inputs of each task, as RegMean (Jin et al. 2023).

    With ``merged`` activations, W gets those that the merged layers below give: ‖W H̃_i - W^(i) H_i‖², as RegMean++
    does (Nguyen et al. 2025). ρ is ``ridge`` times the mean diagonal of Σ_i G_i, with G_i = H̃_i H̃_iᵀ/n_i. Without a
    ridge, W is the solution of least norm. ``shrinkage`` moves G_i towards its diagonal, as RegMean does with few
    inputs. With a base, the weights are changes of it, and so is W: the ridge draws towards the base.
    """
    import torch

    from decaymerge.low_rank import dense

    inputs = merged_inputs if activations == "merged" else own_inputs
    grams, products, samples, targets = [], [], [], []
    for weight, h, x in zip(weights, own_inputs, inputs, strict=True):
        y = h @ weight.mT
        if base is not None and activations == "merged":
            y = y + (h - x) @ base.mT
        gram, product = x.mT @ x / len(x), x.mT @ y / len(x)
        if shrinkage:
            diagonal = x.square().mean(0)
            gram = (1 - shrinkage) * gram + shrinkage * diagonal.diag()
            product = (1 - shrinkage) * product + shrinkage * diagonal[:, None] * weight.mT
        grams.append(gram)
        products.append(product)
        samples.append(x / len(x) ** 0.5)
        targets.append(dense(y) / len(x) ** 0.5)
    total = torch.stack(grams).sum(0)
    rho = ridge * total.diagonal().mean()
    if rho == 0 and not shrinkage:
        return minimum_norm(torch.cat(samples), torch.cat(targets))
    product = sum_weights(products)
    del products  # each is as large as the matrix
    return solution(total, rho, product)


@merge_method("corrected_sum")
def corrected_sum(
    weights: "Sequence[Tensor]",
    *,
    own_inputs: "Sequence[Tensor]",
    merged_inputs: "Sequence[Tensor]",
    base: "Tensor | None" = None,
    activations: Literal["own", "merged"] = "merged",
    ridge: Ridge = 1.0,
) -> "Tensor":
    """argmin_W Σ_i ‖(W - W^(i)) H_i‖²/n_i + ρ‖W - Σ_i W^(i)‖²: the sum, corrected by inputs of each task (ours).

    A large ridge leaves the sum, a small one gives least squares. In directions that no input has, the sum stays,
    and least squares puts nothing. ρ and ``activations`` are those of least squares.
    """
    import torch

    inputs = merged_inputs if activations == "merged" else own_inputs
    total = sum_weights(weights)
    products = []
    for weight, h, x in zip(weights, own_inputs, inputs, strict=True):
        y = h @ weight.mT - x @ total.mT
        if base is not None and activations == "merged":
            y = y + (h - x) @ base.mT
        products.append(x.mT @ y / len(x))
    gram = torch.stack([x.mT @ x / len(x) for x in inputs]).sum(0)
    return total + solution(gram, ridge * gram.diagonal().mean(), sum_weights(products))


def solution(gram: "Tensor", rho: "Tensor", product: "Tensor") -> "Tensor":
    """W (out, in) with (G + ρI) Wᵀ = P, by float64, some columns at a time; of low rank where P (in, out) is."""
    import torch

    from decaymerge.low_rank import LowRank

    system = gram.to(torch.float64, copy=True)
    system.diagonal().add_(rho)
    if isinstance(product, LowRank):
        left = torch.linalg.solve(system, product.left.double()).to(product.dtype)
        return LowRank(left, product.right).mT
    factors, pivots = torch.linalg.lu_factor(system)
    solved = product.new_empty(product.shape[::-1])
    for rows, columns in zip(solved.split(MOST_COLUMNS), product.split(MOST_COLUMNS, 1), strict=True):
        rows.copy_(torch.linalg.lu_solve(factors, pivots, columns.double()).mT)
    return solved


def minimum_norm(inputs: "Tensor", outputs: "Tensor") -> "Tensor":
    """The matrix (out, in) of least norm among those that map the inputs (sample, in) best to the outputs."""
    import torch

    return torch.linalg.lstsq(inputs, outputs, driver="gelsd").solution.mT
