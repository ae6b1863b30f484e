"""Interference of the first layer against the overlap of two tasks: measured, predicted and bounded."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.config.datasets import GaussianTask
from decaymerge.figures.captions import describe_experiment
from decaymerge.figures.style import COLOURS, MARKERS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, traces: Sequence[xr.Dataset]) -> Figure:
    """A panel for each λ: mean ‖W'_1 x‖ over the other task's inputs against the overlap of the tasks.

    Args:
        job: Experiments that differ in their overlap.
        traces: Traces of their claims with ``interference``, in the order of the job.
    """
    overlaps = []
    for experiment in job.experiments:
        task = next(iter(experiment.named_tasks.values()))
        overlaps.append(float(task.overlap) if isinstance(task, GaussianTask) else float("nan"))
    sweep = xr.concat([trace.interference for trace in traces], xr.Variable("overlap", overlaps))
    sweep = sweep.sortby("overlap").stack(network=("task", "seed"))
    description = describe_experiment(job.experiments[0])
    title = f"{description}\nlines: mean over seeds and tasks; bands: 10% to 90% quantile"
    figure, axes = panels(sweep.sizes["weight_decay"], title, inches=(3.4, 2.8))
    for ax, weight_decay in zip(axes, sweep.weight_decay.values, strict=True):
        for style, side in enumerate(sweep.side.values):
            values = sweep.sel(weight_decay=weight_decay, side=side).dropna("overlap", how="all")
            mean = values.mean("network")
            low, high = values.quantile([0.1, 0.9], "network").transpose("quantile", ...)
            hollow = side == "predicted"  # its points lie on the measured ones: larger rings show both
            ax.plot(
                values.overlap,
                mean,
                color=COLOURS[style],
                marker=MARKERS[style],
                markersize=8 if hollow else 4,
                fillstyle="none" if hollow else "full",
                linestyle="--" if style else "-",
                label=side,
            )
            ax.fill_between(values.overlap, low, high, color=COLOURS[style], alpha=0.2)
        ax.set(
            xlabel="cosine of the angle between the tasks",
            ylabel="‖W₁′x‖: first layer of the\nother network, mean over own x",
        )
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set_ylim(bottom=0)
        ax.set_title(f"λ = {weight_decay:g}")
    label_panels(axes)
    legend_below(figure, axes)
    return figure
