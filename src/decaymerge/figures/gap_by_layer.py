"""Which layer's cross terms set the sum apart from the own networks (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.style import COLOURS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob

LINEAR = 1e-2
"""Loss below which the axis of losses is linear."""
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]
CAPTION = "bars: mean over seeds and tasks; lines on them: from the smallest to the largest of the seeds"


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Rows: what each layer adds to the loss, counted in both ways, and its cross term. A column for each λ.

    Args:
        job: Experiments with ``gap_by_layer`` and of the same λ.
        summaries: Their summaries, in this order; each of their sums is a group of bars.
    """
    rows = {
        "counted where it leaks out": ("part of the gap in loss", {"crossing": "first"}),
        "counted where it comes back": ("part of the gap in loss", {"crossing": "last"}),
        "cross term": ("cross term / own term", None),
    }
    decays = summaries[0].weight_decay.values
    title = "\n".join([*describe_sweep(job.experiments), CAPTION])
    figure, axes = panels(len(rows) * len(decays), title, columns=len(decays), inches=(3.9, 2.0))
    for row, (meaning, (ylabel, crossing)) in enumerate(rows.items()):
        of_row = axes[row * len(decays) : (row + 1) * len(decays)]
        for ax, decay in zip(of_row, decays, strict=True):
            last = [summary.isel(step=-1).sel(weight_decay=decay) for summary in summaries]
            shown = [one.loss_increment.sel(crossing) if crossing else one.cross_term for one in last]
            _bars(ax, dict(zip(job.names, shown, strict=True)))
            ax.set(ylabel=ylabel)
            ax.set_title(f"λ = {decay:g}, {meaning}")
            if crossing:
                ax.set_yscale("symlog", linthresh=LINEAR)
        limits = np.array([ax.get_ylim() for ax in of_row])
        for ax in of_row:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _bars(ax: Axes, experiments: dict[str, xr.DataArray]) -> None:
    """A group of bars for each sum of each experiment ``(merge_set, seed, task, layer)``, a bar for each layer."""
    start, sums, names = 0.0, {}, {}
    for name, of_experiment in experiments.items():
        layers, first = of_experiment.sizes["layer"], start
        for of_sum in of_experiment.transpose("merge_set", ...):
            tasks = of_sum.isel(seed=0, layer=0).count().item()
            found = of_sum.mean("task")
            for k, of_layer in enumerate(found.transpose("layer", "seed").values):
                mean = of_layer.mean()
                ax.bar(
                    start + k,
                    mean,
                    yerr=[[mean - of_layer.min()], [of_layer.max() - mean]],
                    width=1,
                    color=COLOURS[k % len(COLOURS)],
                    hatch=HATCHES[k % len(HATCHES)],
                    edgecolor="white",
                    linewidth=0,
                    error_kw={"elinewidth": 0.8},
                    label=f"layer {k + 1}",
                )
            sums[start + (layers - 1) / 2] = tasks
            start += layers + 1
        names[(first + start) / 2 - 1] = name
        start += 3
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(list(sums), list(map(str, sums.values())))
    ax.set_xlabel("tasks in the sum")
    ax.grid(visible=False, axis="x")
    above = ax.secondary_xaxis("top")
    above.set_xticks(list(names), list(names.values()), fontsize="x-small")
    above.tick_params(length=0, pad=1)
