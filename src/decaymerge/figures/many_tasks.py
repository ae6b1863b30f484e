"""Sums of more than two networks: loss and error against the number of tasks in the sum (ours)."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.capacity import task_counts
from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import line_with_band, shared_log_limits
from decaymerge.figures.style import RANGE_OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def against_task_count(values: xr.DataArray) -> xr.DataArray:
    """Mean at the last step over the tasks of each sum, and over the sums of the same number of tasks.

    Args:
        values: A quantity of a summary, (merge_set, weight_decay, seed, step, model, task).

    Returns:
        Dimensions (tasks, weight_decay, seed, model); ``tasks`` is the number of tasks in a sum.
    """
    mean = values.isel(step=-1).mean("task")
    return mean.assign_coords(merge_set=task_counts(values)).rename(merge_set="tasks").groupby("tasks").mean()


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each λ, with loss and error of the sum and of the own networks against the number of tasks.

    Args:
        job: Experiments of the same λ; each has a line for the sum and one for the own networks.
        summaries: Their summaries, in the order of the job.
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
        row_axes = axes[row * len(decays) : (row + 1) * len(decays)]
        for ax, decay in zip(row_axes, decays, strict=True):
            for style, (name, summary) in enumerate(zip(job.names, summaries, strict=True)):
                values = factor * against_task_count(summary[quantity]).sel(weight_decay=decay)
                for model in ("sum", "own"):
                    label = f"{name}, {model}"
                    line_with_band(ax, values.sel(model=model), label, style, dashed=model == "own")
            ax.set_xscale("log", base=2)
            ax.set_xticks(values.tasks.values, [str(count) for count in values.tasks.values])
            ax.minorticks_off()
            ax.set(xlabel="number of tasks in the sum", ylabel=ylabel)
            ax.set_title(f"λ = {decay:g}")
        if quantity == "loss":
            shared_log_limits(row_axes)
        else:
            top = max(float(ax.get_ylim()[1]) for ax in row_axes)
            for ax in row_axes:
                ax.set_ylim(-0.03 * top, top)
    label_panels(axes)
    legend_below(figure, axes)
    return figure
