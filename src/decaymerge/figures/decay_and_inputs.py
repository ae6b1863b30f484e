"""What weight decay buys, and what inputs of the tasks buy: losses of all merges against λ (ours)."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.collapse import without_collapsed
from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import against_weight_decay, merge_of_all, shared_log_limits
from decaymerge.figures.style import OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each experiment: training and test loss of own and merged networks at the last step.

    Args:
        job: Experiments with the same merges.
        summaries: Their summaries, in the order of the job.
    """
    columns = len(summaries)
    title = "\n".join([*describe_sweep(job.experiments), OVER_SEEDS])
    figure, axes = panels(2 * columns, title, columns=columns, inches=(3.6, 2.5))
    for column, (name, summary) in enumerate(zip(job.names, summaries, strict=True)):
        mean = merge_of_all(without_collapsed(summary)).mean("task")
        for row, (quantity, kind) in enumerate([("loss", "training"), ("test_loss", "test")]):
            ax = axes[row * columns + column]
            against_weight_decay(ax, mean[quantity], f"{name.replace('_', ' ')}: {kind} data", f"{kind} loss")
    for row in range(2):
        shared_log_limits(axes[row * columns : (row + 1) * columns])
    label_panels(axes)
    legend_below(figure, axes)
    return figure
