"""One picture for each claim: what is measured, and its bound, along training."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from decaymerge.claims import CLAIMS
from decaymerge.claims.verdict import Verdict, slack_of
from decaymerge.figures.style import COLOURS, MARKERS, label_panels, legend_below, panels

LINE_STYLES = ["-", "-.", ":", (0, (3, 1, 1, 1, 1, 1))]
COLUMNS, SHOWN = 4, 8
SMALLEST = 1e-16
"""Less than rounding is drawn here."""
PANEL_INCHES = (2.6, 2.1)


def draw_claim(name: str, traces: Mapping[str, xr.Dataset]) -> Figure:
    """A panel for each experiment, at most ``SHOWN``; lines are medians over tasks and seeds, bands their range.

    Args:
        name: Of the claim.
        traces: ``measured`` and ``bound`` of each experiment that has the claim.
    """
    dashed = "tolerance" if CLAIMS[name].kind == "equality" else "bound, median"
    title = f"{name} ({CLAIMS[name].source})\nsolid: measured, median and range\ndashed: {dashed}"
    chosen = {experiment: trace.sel(claim=name) for experiment, trace in traces.items()}
    if len(chosen) > SHOWN:
        title += f"; the {SHOWN} of {len(chosen)} experiments with the least slack"
        chosen = dict(sorted(chosen.items(), key=lambda item: _least_slack(name, item[1]))[:SHOWN])
    figure, axes = panels(len(chosen), title, columns=COLUMNS, inches=PANEL_INCHES)
    decays = sorted({float(decay) for trace in chosen.values() for decay in trace.weight_decay})
    colours = {decay: COLOURS[i % len(COLOURS)] for i, decay in enumerate(decays)}
    for ax, (experiment, trace) in zip(axes, chosen.items(), strict=True):
        _panel(ax, name, trace, colours)
        ax.set_title(experiment, parse_math=False)
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _least_slack(name: str, trace: xr.Dataset) -> float:
    last = trace.isel(step=-1)
    slack = slack_of(CLAIMS[name].kind, last.measured.values, last.bound.values)
    return float(np.nan_to_num(slack, nan=np.inf).min())


def _panel(
    ax: Axes, name: str, trace: xr.Dataset, colours: Mapping[float, tuple[float, float, float]]
) -> None:
    order = ("weight_decay", "task", "seed", "step", "part")
    measured, bound = (trace[side].transpose(*order).values for side in ("measured", "bound"))
    parts = [str(part) for part in trace.part.values]
    kept = [part for part in range(len(parts)) if not np.isnan(measured[..., part]).all()]
    if not CLAIMS[name].parts_apart and len(kept) > 1:  # of several layers, the one with the least slack
        slack = np.nan_to_num(slack_of(CLAIMS[name].kind, measured, bound), nan=np.inf)
        at = slack.argmin(-1)[..., None]
        measured, bound = (np.take_along_axis(side, at, -1) for side in (measured, bound))
        parts, kept = ["worst layer"], [0]
    for row, weight_decay in enumerate(trace.weight_decay.values):
        for style, part in enumerate(kept):
            label = f"λ = {weight_decay:g}" + (f", {parts[part]}" if len(kept) > 1 else "")
            sides = (side[row, ..., 1:, part].reshape(-1, len(trace.step) - 1) for side in (measured, bound))
            _lines(
                ax,
                trace.step.values[1:],
                *sides,
                label=label,
                colour=colours[float(weight_decay)],
                style=style,
            )
    ax.set(xscale="log", yscale="log", xlabel="step")
    for axis in (ax.xaxis, ax.yaxis):  # many small panels: drawing ticks is what takes time
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())


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
    """Median and range over members of ``measured``, and the median of ``bound``, each (member, step)."""
    shown = ~np.isnan(measured).all(0)
    steps, measured, bound = steps[shown], measured[:, shown].clip(min=SMALLEST), bound[:, shown]
    marker = MARKERS[style] if len(steps) == 1 else ""
    median, low, high = np.nanmedian(measured, 0), np.nanmin(measured, 0), np.nanmax(measured, 0)
    ax.plot(steps, median, color=colour, linestyle=LINE_STYLES[style], marker=marker, label=label)
    ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    if not np.isnan(bound).all():
        middle = np.nanmedian(bound[:, ~np.isnan(bound).all(0)], 0)
        if len(steps) == 1:
            ax.axhline(float(middle[0]), color=colour, linestyle="--", linewidth=1)
        else:
            ax.plot(steps[~np.isnan(bound).all(0)], middle, color=colour, linestyle="--", linewidth=1)


def draw_against_width(name: str, verdicts: Sequence[Verdict], traces: Mapping[str, xr.Dataset]) -> Figure:
    """The cross term of the layer-wise sum against the width, one panel for each law that was fitted."""
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
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def draw_scan_claim(name: str, verdicts: Sequence[Verdict]) -> Figure:
    """What was measured of each model, against the number that decides."""
    figure, (ax,) = panels(1, f"{name}\npoints: measured; line: what decides", inches=(4.5, 2.3))
    models = [verdict.experiment.removeprefix("scan/") for verdict in verdicts]
    ax.plot(
        models, [verdict.measured or np.nan for verdict in verdicts], "o", color=COLOURS[0], label="measured"
    )
    ax.axhline(verdicts[0].bound or np.nan, color="black", linestyle="--", label="decides")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.3)
    legend_below(figure, [ax])
    return figure
