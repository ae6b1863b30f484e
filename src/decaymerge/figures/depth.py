"""The sum of two or more networks against their depth (ours)."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import line_with_band, merge_of_all, shared_log_limits
from decaymerge.figures.style import RANGE_OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Three panels against the depth, a line for each λ: loss of the own networks, loss and error of their sum.

    Args:
        job: Experiments of different depth and the same λ.
        summaries: Their summaries, in the order of the job.
    """
    depths = xr.Variable("depth", [experiment.network.depth for experiment in job.experiments])
    last = [merge_of_all(summary)[["loss", "error"]].isel(step=-1).mean("task") for summary in summaries]
    by_depth = xr.concat(last, depths).sortby("depth")
    figure, axes = panels(
        3, "\n".join([*describe_sweep(job.experiments), RANGE_OVER_SEEDS]), inches=(2.9, 2.8)
    )
    quantities = {
        "own networks": ("training loss", by_depth.loss.sel(model="own")),
        "sum of weights": ("training loss", by_depth.loss.sel(model="sum")),
        "error of the sum": ("error (% of samples)", 100 * by_depth.error.sel(model="sum")),
    }
    for ax, (title, (ylabel, values)) in zip(axes, quantities.items(), strict=True):
        for style, decay in enumerate(by_depth.weight_decay.values):
            line_with_band(ax, values.sel(weight_decay=decay), f"λ = {decay:g}", style)
        ax.set(xlabel="number of weight matrices K", ylabel=ylabel)
        ax.set_xticks(by_depth.depth.values)
        ax.set_title(title)
    shared_log_limits(axes[:2])
    label_panels(axes)
    legend_below(figure, axes)
    return figure
