"""Which layer's cross terms set the sum apart from the own networks (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.figures.style import COLOURS, label_panels, legend_below, panels
from decaymerge.jobs import FigureJob, describe_sweep

LINEAR = 1e-3
"""Loss below which the axis of losses is linear."""
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]
CAPTION = "bars: mean over seeds and tasks; lines on them: standard deviation over seeds"


def draw_layers(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Rows: what each layer adds to the loss, counted in both ways, and its cross term. A column for each λ.

    Args:
        job: Experiments with ``gap_by_layer`` and of the same λ.
        summaries: Their summaries, in this order; each of their sums is a group of bars.
    """
    rows = {
        "leaks out at": ("part of the gap in loss", lambda one: one.loss_increment.sel(crossing="first")),
        "comes back at": ("part of the gap in loss", lambda one: one.loss_increment.sel(crossing="last")),
        "cross term": ("cross term over own term", lambda one: one.cross_term),
    }
    decays = summaries[0].weight_decay.values
    title = "\n".join([*describe_sweep(job.experiments), CAPTION])
    figure, axes = panels(len(rows) * len(decays), title, columns=len(decays), inches=(3.0, 1.9))
    for row, (meaning, (ylabel, quantity)) in enumerate(rows.items()):
        of_row = axes[row * len(decays) : (row + 1) * len(decays)]
        for ax, decay in zip(of_row, decays, strict=True):
            sums = [quantity(summary).isel(step=-1).sel(weight_decay=decay) for summary in summaries]
            _bars(ax, sums)
            ax.set(ylabel=ylabel, xlabel="tasks in the sum · weight matrices")
            ax.set_title(f"λ = {decay:g}, {meaning}")
            if row < 2:
                ax.set_yscale("symlog", linthresh=LINEAR)
        limits = np.array([ax.get_ylim() for ax in of_row])
        for ax in of_row:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _bars(ax: Axes, sums: Sequence[xr.DataArray]) -> None:
    """A group of bars for each ``pair`` of each of ``sums (pair, seed, task, layer)``, a bar for each layer."""
    start, middles, labels = 0, [], []
    for found in (of_pairs.sel(pair=pair) for of_pairs in sums for pair in of_pairs.pair.values):
        tasks, layers = found.isel(seed=0, layer=0).count().item(), found.sizes["layer"]
        found = found.mean("task")
        for k in range(layers):
            ax.bar(
                start + k,
                found.isel(layer=k).mean("seed").item(),
                yerr=found.isel(layer=k).std("seed").item(),
                width=1,
                color=COLOURS[k % len(COLOURS)],
                hatch=HATCHES[k % len(HATCHES)],
                edgecolor="white",
                linewidth=0,
                error_kw={"elinewidth": 0.8},
                label=f"layer {k + 1}",
            )
        middles.append(start + (layers - 1) / 2)
        labels.append(f"{tasks}·{layers}")
        start += layers + 1
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xticks(middles, labels)
    ax.grid(visible=False, axis="x")
