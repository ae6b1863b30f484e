"""The panels of Figure 3 for any single experiment, such as Fashion-MNIST (Appendix C.2 of the paper)."""

from collections.abc import Sequence

import xarray as xr
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

MOST_TASKS = 2
"""Number of tasks that have a panel of their own."""


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """Panels of loss against steps for the first tasks, of loss and gap against λ, and of stable rank at two λ.

    Args:
        job: A single experiment.
        summaries: The summary of the experiment.
    """
    summary = merge_of_all(summaries[0])
    (experiment,) = job.experiments
    main = nearest_weight_decay(summary, job.drawing.weight_decay)
    least = float(summary.weight_decay.min())
    tasks = summary.task.values[:MOST_TASKS]
    merges, depth = summary.sizes["model"] > 1, summary.sizes["layer"]
    rank_panels = (2 if least != main else 1) if depth > 1 else 0
    title = f"{job.names[0]}: {describe_experiment(experiment)}\n{OVER_SEEDS}"
    figure, axes = panels(len(tasks) + 1 + merges + rank_panels, title)
    panel = iter(axes)

    for task in tasks:
        loss_against_steps(next(panel), summary.loss.sel(task=task), main, f"task {task}, λ = {main:g}")
    mean = summary.mean("task")
    losses = with_test_data(mean.loss, mean.test_loss, ["own", "sum"])
    against_weight_decay(next(panel), losses, "loss at the last step", "loss, mean over tasks")
    if merges:
        gaps = with_test_data(gap(mean.loss), gap(mean.test_loss), ["sum"])
        against_weight_decay(next(panel), gaps, "gap at the last step", "merged loss minus own loss")
    for weight_decay in [main, least][:rank_panels]:
        rank = mean.stable_rank.sel(model="own")
        stable_rank_against_steps(next(panel), rank, weight_decay, f"own networks, λ = {weight_decay:g}")

    label_panels(axes)
    legend_below(figure, axes)
    return figure
