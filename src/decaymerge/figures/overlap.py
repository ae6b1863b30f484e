"""Interference of the first layer as the overlap of two tasks grows: measured, foreseen and bounded."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.config.datasets import GaussianTask
from decaymerge.figures.captions import describe_experiment
from decaymerge.figures.style import COLOURS, MARKERS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, traces: Sequence[xr.Dataset]) -> Figure:
    """Mean ‖W'_1 x‖ over the other task's inputs against the overlap, a panel for each λ.

    Args:
        job: The experiments of the sweep.
        traces: ``interference`` of each, in this order.
    """
    overlaps = []
    for experiment in job.experiments:
        task = next(iter(experiment.named_tasks.values()))
        overlaps.append(float(task.overlap) if isinstance(task, GaussianTask) else float("nan"))
    sweep = xr.concat([trace.interference for trace in traces], xr.Variable("overlap", overlaps))
    sweep = sweep.sortby("overlap").stack(member=("task", "seed"))
    described = describe_experiment(job.experiments[0])
    title = f"{described}\nlines: mean over seeds and tasks; bands: their standard deviation"
    figure, axes = panels(sweep.sizes["weight_decay"], title, inches=(3.4, 2.8))
    for ax, weight_decay in zip(axes, sweep.weight_decay.values, strict=True):
        for style, side in enumerate(sweep.side.values):
            chosen = sweep.sel(weight_decay=weight_decay, side=side).dropna("overlap", how="all")
            mean, deviation = chosen.mean("member"), chosen.std("member")
            foreseen = style == 1  # it lies on what is measured: a larger, hollow marker shows both
            ax.plot(
                chosen.overlap,
                mean,
                color=COLOURS[style],
                marker=MARKERS[style],
                markersize=8 if foreseen else 4,
                fillstyle="none" if foreseen else "full",
                linestyle="--" if style else "-",
                label=side,
            )
            ax.fill_between(
                chosen.overlap, mean - deviation, mean + deviation, color=COLOURS[style], alpha=0.2
            )
        ax.set(xlabel="cosine of the angle between the tasks", ylabel="‖W₁′x‖, mean over x")
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_ylim(bottom=0)
        ax.set_title(f"λ = {weight_decay:g}")
    label_panels(axes)
    legend_below(figure, axes)
    return figure
