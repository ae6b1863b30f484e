"""The table of an experiment: what its summary holds at the last step, as means over seeds with intervals."""

import itertools

import pandas as pd
import xarray as xr

from decaymerge.collapse import collapsed_networks, without_collapsed
from decaymerge.statistics import interval

BY_MODEL = ["loss", "test_loss", "error", "test_error", "margin_error"]
KEYS = ["quantity", "merge_set", "weight_decay", "model", "task"]


def quantities(summary: xr.Dataset) -> xr.Dataset:
    """What the table shows, at the last step, (merge_set, weight_decay, seed, model, task).

    The task ``mean`` is the mean over the tasks of a merge set, seed by seed. ``gap`` and ``test_gap`` are losses
    minus those of the own network. ``inverse_norm_ratio`` is the mean over layers of ‖W‖₂/‖W‖_F. Norms of a merged
    network are the same for each task. Quantities of one layer end in its number.

    Args:
        summary: A summary without its collapsed networks.
    """
    last = summary.isel(step=-1, drop=True)
    values = last[BY_MODEL]
    for gap, loss in {"gap": "loss", "test_gap": "test_loss"}.items():
        values[gap] = (last[loss] - last[loss].sel(model="own", drop=True)).where(last.model != "own")
    values["inverse_norm_ratio"] = (1 / last.norm_ratio).mean("layer")
    for layer in last.layer.values:
        values[f"stable_rank_{layer}"] = last.stable_rank.sel(layer=layer, drop=True)
    if "effective_dimension" in last:
        for layer, ridge in itertools.product(last.layer.values, last.ridge.values):
            dimension = last.effective_dimension.sel(layer=layer, ridge=ridge, drop=True)
            values[f"effective_dimension_{layer}_{ridge:g}"] = dimension.where(last.model == "own")
    if "loss_increment" in last:
        by_layer = {"cross_term": last.cross_term}
        by_layer |= {
            f"loss_increment_{order}": last.loss_increment.sel(crossing=order)
            for order in last.crossing.values
        }
        for name, parts in by_layer.items():
            for layer in last.layer.values:
                part = parts.sel(layer=layer).drop_vars(("layer", "crossing"), errors="ignore")
                values[f"{name}_{layer}"] = part.where(last.model == "sum")
    mean = values.mean("task").expand_dims(task=["mean"])
    return xr.concat([values, mean], "task")


def table(summary: xr.Dataset) -> pd.DataFrame:
    """A row for each quantity, merge set, λ, model and task: mean, 95% interval, seeds, collapsed networks.

    ``change`` is the mean of the paired differences to the λ before, with its interval ``change_low`` to
    ``change_high``, over ``change_n`` seeds; in ``rises`` of them the quantity is larger than there. Seeds with a
    collapsed own network are left out; ``collapsed`` is the number of such networks at this λ, of all tasks.

    Args:
        summary: The summary of an experiment, with λ in ascending order.
    """
    values = quantities(without_collapsed(summary)).to_dataarray("quantity")
    change = values.diff("weight_decay")
    statistics = interval(values).drop_vars("p")
    for name, of_change in interval(change)[["mean", "low", "high", "n"]].data_vars.items():
        statistics["change" if name == "mean" else f"change_{name}"] = of_change
    statistics["rises"] = (change > 0).sum("seed").where(change.notnull().any("seed"))
    statistics["collapsed"] = collapsed_networks(summary).sum(("seed", "task"))
    frame = statistics.to_dataframe(dim_order=KEYS).reset_index()
    return frame[frame.n > 0].reset_index(drop=True)
