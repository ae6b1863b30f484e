"""How many tasks fit into one network: sums and least squares, and the number that is predicted (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.capacity import PASSES, capacity, error_of_counts, share_of_width
from decaymerge.collapse import without_collapsed
from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import MODEL_LABELS, line_with_band
from decaymerge.figures.style import COLOURS, MARKERS, RANGE_OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob

LINES = ("sum", "least_squares")
RIDGE = 1.0
"""Ridge of the effective dimensions that are drawn."""
POINTS = (
    "right: number of tasks at 1% error, median and range over seeds; hollow: λ = 0; at the edge: not reached\n"
    "effective dimensions with ρ = mean diagonal of G, which was chosen after the measurement"
)


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Error against the number of tasks, the share of the width that they take up, predicted against measured.

    Args:
        job: Experiments of the same λ that differ in their width.
        summaries: Their summaries, in the order of the job.
    """
    widths = [experiment.network.hidden for experiment in job.experiments]
    summaries = [without_collapsed(summary) for summary in summaries]
    decays = summaries[0].weight_decay.values
    columns = len(decays) + 1
    figure, axes = panels(
        2 * columns, "\n".join([*describe_sweep(job.experiments), RANGE_OVER_SEEDS, POINTS]), columns=columns
    )
    for column, decay in enumerate(decays):
        errors, shares = axes[column], axes[columns + column]
        for style, (hidden, summary) in enumerate(zip(widths, summaries, strict=True)):
            at = summary.sel(weight_decay=[decay])
            width = min(hidden)
            for model in LINES:
                values = 100 * error_of_counts(at).sel(model=model).squeeze("weight_decay", drop=True)
                label = f"width {width}, {MODEL_LABELS[model]}"
                line_with_band(errors, values, label, style, dashed=model == "sum")
            share = share_of_width(at, hidden).sel(ridge=RIDGE).squeeze("weight_decay", drop=True)
            line_with_band(shares, share, f"width {width}, {MODEL_LABELS['least_squares']}", style)
        errors.axhline(100 * PASSES, color="black", linestyle=":", linewidth=1)
        shares.axhline(1, color="black", linestyle=":", linewidth=1)
        errors.set(xlabel="number of tasks", ylabel="training error (%)", title=f"λ = {decay:g}")
        errors.set_yscale("symlog", linthresh=1)
        errors.set_ylim(-0.05, 60)
        errors.set_yticks([0, 1, 10], ["0", "1", "10"])
        shares.set(xlabel="number of tasks", ylabel="effective dimensions / width", title=f"λ = {decay:g}")
    for row, model in enumerate(LINES[::-1]):
        _predicted_against_measured(axes[(row + 1) * columns - 1], summaries, widths, decays, model)
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _predicted_against_measured(
    ax: Axes,
    summaries: Sequence[xr.Dataset],
    widths: Sequence[list[int]],
    decays: np.ndarray,
    model: str,
) -> None:
    """A point for each width and λ: medians over seeds, with their range."""
    largest = 0.0
    for style, (hidden, summary) in enumerate(zip(widths, summaries, strict=True)):
        counts = capacity(summary, hidden)
        most = float(counts.attrs["most"])
        largest = max(largest, most)
        for decay in decays:
            at = counts.sel(weight_decay=decay, ridge=RIDGE)
            measured, predicted = (
                values.clip(max=most) for values in (at.measured.sel(model=model), at.predicted)
            )
            x, y = float(predicted.median()), float(measured.median())
            ax.errorbar(
                x,
                y,
                xerr=[[x - float(predicted.min())], [float(predicted.max()) - x]],
                yerr=[[y - float(measured.min())], [float(measured.max()) - y]],
                color=COLOURS[style],
                marker=MARKERS[style],
                fillstyle="none" if decay == 0 else "full",
            )
    ax.axline((1, 1), slope=1, color="black", linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlim=(1.5, 1.15 * largest), ylim=(1.5, 1.15 * largest))
    ticks = [2, 4, 8, 16, 32]
    ax.set_xticks(ticks, map(str, ticks))
    ax.set_yticks(ticks, map(str, ticks))
    ax.minorticks_off()
    ax.set(xlabel="tasks that fit, predicted", ylabel="measured", title=MODEL_LABELS[model])
