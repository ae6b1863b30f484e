"""A picture for each claim: the measured side and its bound along training."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from decaymerge.claims import CLAIMS
from decaymerge.claims.verdict import Verdict, slack_of
from decaymerge.figures.style import COLOURS, MARKERS, label_panels, legend_below, panels

LINE_STYLES = ["-", "-.", ":", (0, (3, 1, 1, 1, 1, 1))]
COLUMNS = 4
MOST_PANELS = 8
SMALLEST = 1e-16
"""Values below rounding are drawn at this height."""
PANEL_INCHES = (2.6, 2.1)


def draw_claim(name: str, traces: Mapping[str, xr.Dataset]) -> Figure:
    """A panel for each experiment, at most ``MOST_PANELS``: medians over tasks and seeds as lines, ranges as bands.

    Args:
        name: Name of the claim.
        traces: ``measured`` and ``bound (claim, weight_decay, task, seed, step, part)`` of each experiment to which
            the claim applies.
    """
    kind = CLAIMS[name].kind
    bound = "tolerance" if kind == "equality" else f"{kind} bound, median"
    title = (
        f"{name} ({CLAIMS[name].source})\nlines with bands: measured, median and range; thin dashed: {bound}"
    )
    title += "; only the last step is judged" if CLAIMS[name].when == "last step" else ""
    per_experiment = {experiment: trace.sel(claim=name) for experiment, trace in traces.items()}
    if len(per_experiment) > MOST_PANELS:
        title += f"; the {MOST_PANELS} of {len(per_experiment)} experiments with the least slack"
        ascending = sorted(per_experiment.items(), key=lambda item: _least_slack(name, item[1]))
        per_experiment = dict(ascending[:MOST_PANELS])
    figure, axes = panels(len(per_experiment), title, columns=COLUMNS, inches=PANEL_INCHES)
    decays = sorted({float(decay) for trace in per_experiment.values() for decay in trace.weight_decay})
    colours = {decay: COLOURS[i % len(COLOURS)] for i, decay in enumerate(decays)}
    for ax, (experiment, trace) in zip(axes, per_experiment.items(), strict=True):
        _panel(ax, name, trace, colours)
        ax.set_title(experiment, parse_math=False)
        ax.set_gid(experiment)
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _least_slack(name: str, trace: xr.Dataset) -> float:
    """The least slack of a claim at the last step; infinite if none is known."""
    last = trace.isel(step=-1)
    slack = slack_of(CLAIMS[name].kind, last.measured.values, last.bound.values)
    return float(np.nan_to_num(slack, nan=np.inf).min())


def _panel(
    ax: Axes, name: str, trace: xr.Dataset, colours: Mapping[float, tuple[float, float, float]]
) -> None:
    """Draw one experiment: a line for each λ, and for each part if the parts are different quantities."""
    order = ("weight_decay", "task", "seed", "step", "part")
    measured, bound = (trace[side].transpose(*order).values for side in ("measured", "bound"))
    parts = [str(part) for part in trace.part.values]
    known = [part for part in range(len(parts)) if not np.isnan(measured[..., part]).all()]
    if not CLAIMS[name].parts_apart and len(known) > 1:
        # Of several layers, only the one with the least slack is drawn.
        slack = np.nan_to_num(slack_of(CLAIMS[name].kind, measured, bound), nan=np.inf)
        worst = slack.argmin(-1)[..., None]
        measured, bound = (np.take_along_axis(side, worst, -1) for side in (measured, bound))
        parts, known = ["worst layer"], [0]
    for row, weight_decay in enumerate(trace.weight_decay.values):
        for style, part in enumerate(known):
            label = f"λ = {weight_decay:g}" + (f", {parts[part]}" if len(known) > 1 else "")
            sides = (side[row, ..., 1:, part].reshape(-1, len(trace.step) - 1) for side in (measured, bound))
            _lines(
                ax,
                trace.step.values[1:],
                *sides,
                label=label,
                colour=colours[float(weight_decay)],
                style=style,
            )
    ylabel = "relative deviation" if CLAIMS[name].kind == "equality" else "measured and bound"
    ax.set(xscale="log", yscale="log", xlabel="step", ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):  # few ticks: they take most of the time of many small panels
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    if high < 10 * low:  # within a decade, a log axis would have one tick or none
        ax.set_yscale("linear")
        ax.yaxis.set_major_locator(MaxNLocator(4))


def _lines(
    ax: Axes,
    steps: np.ndarray,
    measured: np.ndarray,
    bound: np.ndarray,
    *,
    label: str,
    colour: tuple[float, float, float],
    style: int,
) -> None:
    """Median and range of ``measured``, and median of ``bound``, over tasks and seeds.

    Both sides have the shape (task and seed, step).
    """
    known = ~np.isnan(measured).all(0)
    steps, measured, bound = steps[known], measured[:, known].clip(min=SMALLEST), bound[:, known]
    marker = MARKERS[style] if len(steps) == 1 else ""
    median, low, high = np.nanmedian(measured, 0), np.nanmin(measured, 0), np.nanmax(measured, 0)
    ax.plot(steps, median, color=colour, linestyle=LINE_STYLES[style], marker=marker, label=label)
    ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    bounded = ~np.isnan(bound).all(0)
    if bounded.any():
        median_bound = np.nanmedian(bound[:, bounded], 0)
        if len(steps) == 1:
            ax.axhline(float(median_bound[0]), color=colour, linestyle="--", linewidth=1)
        else:
            ax.plot(steps[bounded], median_bound, color=colour, linestyle="--", linewidth=1)


def draw_against_width(name: str, verdicts: Sequence[Verdict], traces: Mapping[str, xr.Dataset]) -> Figure:
    """A panel for each verdict: the cross term of the layer-wise sum against the width.

    Args:
        name: Name of the claim.
        verdicts: Its verdicts, one for each group of experiments and λ.
        traces: Traces of every experiment in the groups, with its job as attribute ``settings``.
    """
    figure, axes = panels(
        len(verdicts),
        f"{name} ({CLAIMS[name].source})\ncross term over own output, last step",
        columns=COLUMNS,
        inches=PANEL_INCHES,
    )
    for ax, verdict in zip(axes, verdicts, strict=True):
        widths, values = [], []
        for experiment in verdict.experiment.split(", "):
            trace = traces[experiment].sel(claim=name, weight_decay=verdict.weight_decay)
            widths.append(json.loads(traces[experiment].attrs["settings"])["network"]["hidden"][0])
            values.append(trace.measured.isel(step=-1, part=0).values.ravel())
        rms = np.array([np.sqrt(np.mean(value**2)) for value in values])
        for width, value in zip(widths, values, strict=True):
            ax.plot(
                np.full_like(value, width), value, ".", color=COLOURS[0], alpha=0.4, label="a seed and task"
            )
        ax.plot(widths, rms, "o-", color=COLOURS[1], label="root mean square")
        law = rms[0] * np.sqrt(widths[0] / np.array(widths))
        ax.plot(widths, law, "--", color="black", label="1/√width")
        ax.set(xscale="log", yscale="log", xlabel="width", ylabel="relative cross term")
        ax.set_xticks(widths, [str(width) for width in widths])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(f"λ = {verdict.weight_decay:g}")
        ax.set_gid(panel_of(verdict))
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def panel_of(verdict: Verdict) -> str:
    """Name of the panel of a verdict, in pictures with a panel for each of them."""
    return f"{verdict.experiment} {verdict.weight_decay}"


def places(figure: Figure) -> dict[str, str]:
    """Left, top, width and height of each named panel, in percent of the figure, as CSS has them."""
    found = {}
    for ax in figure.axes:
        name, extent = ax.get_gid(), ax.get_tightbbox()
        if name and extent is not None:
            box = extent.transformed(figure.transFigure.inverted())
            sides = (box.x0, 1 - box.y1, box.width, box.height)
            found[str(name)] = " ".join(f"{100 * side:.2f}%" for side in sides)
    return found


def draw_scan_claim(name: str, verdicts: Sequence[Verdict]) -> Figure:
    """A panel with a point for each model, and the threshold of the claim."""
    figure, (ax,) = panels(1, f"{name}\npoints: measured; line: threshold", inches=(4.5, 2.3))
    models = [verdict.experiment.removeprefix("scan/") for verdict in verdicts]
    ax.plot(
        models, [verdict.measured or np.nan for verdict in verdicts], "o", color=COLOURS[0], label="measured"
    )
    ax.axhline(verdicts[0].bound or np.nan, color="black", linestyle="--", label="threshold")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.3)
    legend_below(figure, [ax])
    return figure
