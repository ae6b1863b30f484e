"""Figure 3 of the paper: with weight decay, sums solve independent tasks, but not tasks on the same inputs."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_experiment
from decaymerge.figures.panels import (
    against_weight_decay,
    gap,
    loss_against_steps,
    merge_of_all,
    nearest_weight_decay,
    stable_rank_against_steps,
    with_test_data,
)
from decaymerge.figures.style import OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Panels of loss against steps, gap against λ, and stable rank against steps.

    The tasks of an experiment have the same distribution, so each seed is shown by its mean over tasks.

    Args:
        job: Three experiments: independent tasks, tasks on the same inputs, a sweep of λ.
        summaries: Their summaries, in the order of the job.
    """
    independent, same, sweep = (merge_of_all(summary).mean("task") for summary in summaries)
    decays = [
        nearest_weight_decay(summary, job.drawing.weight_decay) for summary in (independent, same, sweep)
    ]
    least = float(sweep.weight_decay.min())
    descriptions = dict.fromkeys(describe_experiment(experiment) for experiment in job.experiments)
    figure, axes = panels(6, "\n".join([*descriptions, OVER_SEEDS]))

    loss_against_steps(axes[0], independent.loss, decays[0], f"independent tasks, λ = {decays[0]:g}")
    loss_against_steps(axes[1], same.loss, decays[1], f"same inputs, λ = {decays[1]:g}")
    loss_against_steps(axes[2], sweep.loss, least, f"independent tasks, λ = {least:g}")
    gaps = with_test_data(gap(sweep.loss), gap(sweep.test_loss), ["sum"])
    against_weight_decay(axes[3], gaps, "gap at the last step", "merged loss minus own loss")
    rank = sweep.stable_rank.sel(model="own")
    stable_rank_against_steps(axes[4], rank, decays[2], f"own network, λ = {decays[2]:g}")
    stable_rank_against_steps(axes[5], rank, least, f"own network, λ = {least:g}")

    label_panels(axes)
    for group in (axes[:3], axes[4:]):
        _share_limits(group)
    legend_below(figure, axes)
    return figure


def _share_limits(axes: Sequence[Axes]) -> None:
    """Give panels that are compared the same vertical range."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
