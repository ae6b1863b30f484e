"""Which layer's cross terms set the sum apart from the own networks (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.style import COLOURS, label_panels, legend_below, panels
from decaymerge.jobs import FigureJob, describe_sweep

CROSSINGS = {"first": "counted where it leaks out", "last": "counted where it comes back"}
HATCHES = ["", "////", "....", "xxxx", "\\\\\\\\", "++++"]
LINEAR = 1e-3
"""Loss below which the axis is linear."""


def draw_layers(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """What each layer adds to the loss: columns for λ, rows for ways to count, a group of bars for each sum.

    Args:
        job: Experiments with ``gap_by_layer`` and of the same λ.
        summaries: Their summaries, in this order.
    """
    sums = [
        (
            f"{int(one.loss.isel(weight_decay=0, seed=0, step=-1, model=0).notnull().sum())}/{one.sizes['layer']}",
            one,
        )
        for summary in summaries
        for one in (summary.sel(pair=pair) for pair in summary.pair.values)
    ]
    decays = summaries[0].weight_decay.values
    caption = "bars: mean over seeds and tasks; lines on them: standard deviation over seeds"
    figure, axes = panels(
        len(CROSSINGS) * len(decays),
        "\n".join([*describe_sweep(job.experiments), caption]),
        columns=len(decays),
        inches=(3.0, 2.4),
    )
    for row, crossing in enumerate(CROSSINGS):
        for ax, decay in zip(axes[row * len(decays) :], decays, strict=False):
            start, middles = 0.0, []
            for _, one in sums:
                found = (
                    one.loss_increment.isel(step=-1).sel(weight_decay=decay, crossing=crossing).mean("task")
                )
                for k in range(found.sizes["layer"]):
                    layer = found.isel(layer=k)
                    ax.bar(
                        start + k,
                        float(layer.mean("seed")),
                        yerr=float(layer.std("seed")),
                        width=0.9,
                        color=COLOURS[k],
                        hatch=HATCHES[k],
                        edgecolor="white",
                        linewidth=0,
                        error_kw={"elinewidth": 0.8},
                        label=f"layer {k + 1}",
                    )
                middles.append(start + (found.sizes["layer"] - 1) / 2)
                start += found.sizes["layer"] + 1
            ax.axhline(0, color="black", linewidth=0.6)
            ax.set_yscale("symlog", linthresh=LINEAR)
            ax.set_xticks(middles, [label for label, _ in sums])
            ax.set(xlabel="tasks in the sum / weight matrices", ylabel="part of the gap in loss")
            ax.grid(visible=False, axis="x")
            ax.set_title(f"λ = {decay:g}, {CROSSINGS[crossing]}")
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    label_panels(axes)
    legend_below(figure, axes)
    return figure
