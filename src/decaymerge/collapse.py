"""Networks that weight decay has driven to zero: one definition, and summaries without them.

The module needs no PyTorch, because figures and tables use it as well.
"""

from typing import Any, TypeVar

import xarray as xr

Array = TypeVar("Array", bound=Any)
"""A tensor, or an array of numpy or xarray."""
COLLAPSED = 1e-3
"""A network has collapsed to zero if no |f(x_i)| reaches this value (ours). Its loss is then within 1e-3 of ℓ(0),
which is log 2 for the logistic loss; its error, norm ratios and directions are those of rounding."""


def collapsed(largest_output: Array) -> Array:
    """Whether networks have collapsed, from max_i |f(x_i)|, of the same shape; NaN has not."""
    return largest_output < COLLAPSED


def collapsed_networks(summary: xr.Dataset) -> xr.DataArray:
    """Whether each own network of a summary has collapsed at the last step, (weight_decay, seed, task)."""
    largest = summary.largest_output.sel(model="own", drop=True).isel(step=-1, drop=True)
    return collapsed(largest).any("merge_set")


def without_collapsed(summary: xr.Dataset) -> xr.Dataset:
    """A summary with NaN for each seed of a merge set one of whose own networks has collapsed at the last step."""
    largest = summary.largest_output.sel(model="own", drop=True).isel(step=-1, drop=True)
    return summary.where(~collapsed(largest).any("task"))


def describe_collapse(summary: xr.Dataset) -> str:
    """How many own networks have collapsed at each λ, in words, or an empty text."""
    networks = collapsed_networks(summary)
    counts = networks.sum(("seed", "task"))
    each = ", ".join(
        f"{int(count)} at λ = {decay:g}"
        for decay, count in zip(counts.weight_decay.values, counts.values, strict=True)
        if count
    )
    total = networks.sizes["seed"] * networks.sizes["task"]
    return f"left out, as they collapsed to zero: {each}, of {total} networks" if each else ""
