"""How many tasks fit into one network: the number at which a merge fails, and the predicted one (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

PASSES = 0.01
"""Training error at which a merge has failed."""


def task_counts(values: xr.DataArray) -> list[int]:
    """Number of tasks of each merge set. A summary has NaN for the tasks outside a merge set.

    Args:
        values: A quantity of a summary, with the dimensions ``merge_set`` and ``task`` and any others.
    """
    others = [dim for dim in values.dims if dim not in ("merge_set", "task")]
    return [int(count) for count in values.notnull().any(others).sum("task").values]


def _by_count(values: xr.DataArray, summary: xr.Dataset) -> xr.DataArray:
    """The last step, with the number of tasks in place of the merge set."""
    counts = task_counts(summary.loss)
    last = values.isel(step=-1, drop=True).assign_coords(merge_set=counts)
    return last.rename(merge_set="tasks").sortby("tasks")


def error_of_counts(summary: xr.Dataset) -> xr.DataArray:
    """Training error, mean over tasks, (tasks, weight_decay, seed, model)."""
    return _by_count(summary.error.mean("task"), summary)


def share_of_width(summary: xr.Dataset, hidden: Sequence[int]) -> xr.DataArray:
    """Σ_i r_i(k) over the width of layer k's inputs, the largest over k ≥ 2, (tasks, weight_decay, seed, ridge)."""
    above_first = summary.effective_dimension.isel(layer=slice(1, None))
    widths = xr.DataArray(list(hidden), {"layer": above_first.layer})
    used = above_first.sum("task", min_count=1)
    return _by_count((used / widths).max("layer"), summary)


def first_above(values: xr.DataArray, threshold: float) -> xr.DataArray:
    """Number of tasks at which values first exceed a threshold, on a line between two counts; inf where never."""

    def crossing(curve: np.ndarray, counts: np.ndarray) -> float:
        if np.isnan(curve).all():
            return np.nan
        above = np.flatnonzero(curve > threshold)
        if not above.size:
            return np.inf
        i = above[0]
        if i == 0:
            return float(counts[0])
        share = (threshold - curve[i - 1]) / (curve[i] - curve[i - 1])
        return float(counts[i - 1] + share * (counts[i] - counts[i - 1]))

    return xr.apply_ufunc(
        crossing, values, values.tasks, input_core_dims=[["tasks"], ["tasks"]], vectorize=True
    )


def capacity(summary: xr.Dataset, hidden: Sequence[int]) -> xr.Dataset:
    """Numbers of tasks: ``measured (weight_decay, seed, model)``, and ``predicted (weight_decay, seed, ridge)``.

    Measured: the number at which the training error passes 1%. Predicted: the number at which the effective
    dimensions of the tasks' activations add up to more than the width of a layer. Either is inf where it lies
    beyond the largest number of tasks, the attribute ``most``.

    Args:
        summary: An experiment with ``effective_dimension``, without its collapsed networks.
        hidden: Its widths.
    """
    error = error_of_counts(summary)
    merged = error.sel(model=[model for model in error.model.values if model != "own"])
    share = share_of_width(summary, hidden)
    numbers = {"measured": first_above(merged, PASSES), "predicted": first_above(share, 1)}
    return xr.Dataset(numbers, attrs={"most": int(error.tasks.max())})
