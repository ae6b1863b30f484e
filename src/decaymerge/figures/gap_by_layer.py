"""The share of each layer's cross terms in the gap between the sum and the own networks (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.capacity import task_counts
from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.style import COLOURS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob

LINEAR = 1e-2
"""Change of the loss up to which its axis is linear; the axis is logarithmic above."""
BETWEEN_EXPERIMENTS = 3
"""Space between the bars of two experiments, in bars."""
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]
CAPTION = "bars: mean over seeds and tasks; lines on them: from the smallest to the largest of the seeds"


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each λ, with each layer's part of the gap in both orders of counting, and its cross term.

    Args:
        job: Experiments with ``gap_by_layer`` and the same λ.
        summaries: Their summaries, in the order of the job. Each of their sums is a group of bars.
    """
    rows = {
        "where the signal leaks out": ("part of the gap in loss", {"crossing": "first"}),
        "where it comes back": ("part of the gap in loss", {"crossing": "last"}),
        "cross term": ("cross term / own term", None),
    }
    decays = summaries[0].weight_decay.values
    title = "\n".join([*describe_sweep(job.experiments), CAPTION])
    figure, axes = panels(len(rows) * len(decays), title, columns=len(decays), inches=(3.9, 2.0))
    for row, (meaning, (ylabel, crossing)) in enumerate(rows.items()):
        row_axes = axes[row * len(decays) : (row + 1) * len(decays)]
        for ax, decay in zip(row_axes, decays, strict=True):
            last = [summary.isel(step=-1).sel(weight_decay=decay) for summary in summaries]
            quantities = [
                summary.loss_increment.sel(crossing) if crossing else summary.cross_term for summary in last
            ]
            _bars(ax, dict(zip(job.names, quantities, strict=True)))
            ax.set(ylabel=ylabel)
            ax.set_title(f"λ = {decay:g}, {meaning}")
            if crossing:
                ax.set_yscale("symlog", linthresh=LINEAR)
        limits = np.array([ax.get_ylim() for ax in row_axes])
        for ax in row_axes:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _bars(ax: Axes, experiments: dict[str, xr.DataArray]) -> None:
    """Draw a group of bars for each sum of each experiment, a bar for each layer.

    The sums are labelled below the axis with their number of tasks, and the experiments above it with their names.

    Args:
        ax: Where to draw.
        experiments: Values ``(merge_set, seed, task, layer)`` of each experiment, by its name.
    """
    start = 0.0
    sum_positions, sum_labels = [], []
    experiment_positions, experiment_labels = [], []
    for name, values in experiments.items():
        layers, first = values.sizes["layer"], start
        for task_count, sum_values in zip(
            task_counts(values), values.transpose("merge_set", ...), strict=True
        ):
            for k, seed_values in enumerate(sum_values.mean("task").transpose("layer", "seed").values):
                mean = seed_values.mean()
                ax.bar(
                    start + k,
                    mean,
                    yerr=[[mean - seed_values.min()], [seed_values.max() - mean]],
                    width=1,
                    color=COLOURS[k % len(COLOURS)],
                    hatch=HATCHES[k % len(HATCHES)],
                    edgecolor="white",
                    linewidth=0,
                    error_kw={"elinewidth": 0.8},
                    label=f"layer {k + 1}",
                )
            sum_positions.append(start + (layers - 1) / 2)
            sum_labels.append(str(task_count))
            start += layers + 1
        experiment_positions.append((first + start) / 2 - 1)
        experiment_labels.append(name)
        start += BETWEEN_EXPERIMENTS
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(sum_positions, sum_labels)
    ax.set_xlabel("number of tasks in the sum")
    ax.grid(visible=False, axis="x")
    above = ax.secondary_xaxis("top")
    above.set_xticks(experiment_positions, experiment_labels, fontsize="x-small")
    above.tick_params(length=0, pad=1)
