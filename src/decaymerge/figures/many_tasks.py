"""Sums of more than two networks: loss and error against the number of tasks in the sum (ours)."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import line_with_band, shared_log_limits
from decaymerge.figures.style import RANGE_OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def against_task_count(values: xr.DataArray) -> xr.DataArray:
    """Mean over tasks, and over merge sets of as many, at the last step; ``tasks``, their number, replaces
    ``merge_set``.
    """
    last = values.isel(step=-1)
    counts = last.isel(weight_decay=0, seed=0, model=0).count("task")
    means = last.mean("task").assign_coords(merge_set=counts.values).rename(merge_set="tasks")
    return means.groupby("tasks").mean()


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each λ; rows: loss and error of the sum and of the own networks against the number of tasks.

    Args:
        job: Experiments, one line each, of the same λ.
        summaries: Their summaries, in this order.
    """
    decays = summaries[0].weight_decay.values
    figure, axes = panels(
        2 * len(decays),
        "\n".join([*describe_sweep(job.experiments), RANGE_OVER_SEEDS]),
        columns=len(decays),
        inches=(2.3, 2.2),
    )
    for row, (quantity, ylabel, factor) in enumerate(
        [("loss", "training loss", 1), ("error", "error (% of samples)", 100)]
    ):
        of_row = axes[row * len(decays) : (row + 1) * len(decays)]
        for ax, decay in zip(of_row, decays, strict=True):
            for style, (name, summary) in enumerate(zip(job.names, summaries, strict=True)):
                found = factor * against_task_count(summary[quantity]).sel(weight_decay=decay)
                for model in ("sum", "own"):
                    label = f"{name}, {model}"
                    line_with_band(ax, found.sel(model=model), label, style, dashed=model == "own")
            ax.set_xscale("log", base=2)
            ax.set_xticks(found.tasks.values, [str(count) for count in found.tasks.values])
            ax.minorticks_off()
            ax.set(xlabel="tasks in the sum", ylabel=ylabel)
            ax.set_title(f"λ = {decay:g}")
        if quantity == "loss":
            shared_log_limits(of_row)
        else:
            top = max(float(ax.get_ylim()[1]) for ax in of_row)
            for ax in of_row:
                ax.set_ylim(-0.03 * top, top)
    label_panels(axes)
    legend_below(figure, axes)
    return figure
