"""Stage ``merge``: one network from several, layer by layer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import xarray as xr

from decaymerge import store
from decaymerge.errors import UserError
from decaymerge.experiments import MergeSettings, merge_name
from decaymerge.jobs import MergeJob

if TYPE_CHECKING:
    from torch import Tensor

Weights = TypeVar("Weights", xr.Dataset, "Tensor")
"""``W1 … WK`` with dims ``(seed, step, out_k, in_k)``, whose arithmetic acts on every layer, step and seed; or one
matrix of a checkpoint."""


def sum_weights(networks: Sequence[Weights]) -> Weights:
    """Σ_i W^(i), the paper's merge."""
    return sum(networks[1:], start=networks[0])


def average(networks: Sequence[Weights]) -> Weights:
    """The mean over networks, the usual merge of fine-tuned ones (Wortsman et al. 2022)."""
    return sum_weights(networks) / len(networks)


def scaled(networks: Sequence[Weights], coefficient: float) -> Weights:
    """``coefficient`` times the sum, as task arithmetic does (Ilharco et al. 2023)."""
    return coefficient * sum_weights(networks)


METHODS: dict[str, Callable[..., Any]] = {"sum": sum_weights, "average": average, "scaled": scaled}


def merge(job: MergeJob, networks: Sequence[xr.Dataset]) -> xr.Dataset:
    """Merged weights ``W1 … WK (model, seed, step, out_k, in_k)``, one ``model`` for each method.

    Raises:
        UserError: the networks were kept for different seeds or steps.
    """
    layers = [network[[str(name) for name in network if str(name).startswith("W")]] for network in networks]
    try:
        with xr.set_options(arithmetic_join="exact", keep_attrs=True):
            merged = [apply(method, layers) for method in job.methods]
            fixed = {str(name): layers[0][name] for name in layers[0] if int(str(name)[1:]) > job.trained}
            merged = [network.assign(fixed) for network in merged]
    except ValueError as error:
        raise UserError(f"networks of different seeds, steps or shapes do not merge: {error}") from None
    names = [merge_name(method) for method in job.methods]
    made = xr.concat(merged, xr.Variable("model", names))
    return store.describe(
        made, {str(name): f"merged weight matrix of layer {str(name)[1:]}" for name in made}
    )


def apply(method: MergeSettings, networks: Sequence[Weights]) -> Weights:
    """One network from several by ``method``, one of ``METHODS`` with its settings."""
    if isinstance(method, str):
        return METHODS[method](networks)
    return METHODS[method.method](networks, **method.model_dump(exclude={"method"}))
