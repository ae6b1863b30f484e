"""Figure 2 of the paper: the mean inverse norm ratio grows with λ, even where the network errs."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_experiment
from decaymerge.figures.panels import against_weight_decay, with_test_data
from decaymerge.figures.style import OVER_SEEDS, label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each experiment, with inverse norm ratio, error, margin error and loss against λ.

    Args:
        job: Experiments of a single task, such as one with linear and one with quadratic labels.
        summaries: Their summaries, in the order of the job.
    """
    descriptions = dict.fromkeys(describe_experiment(experiment) for experiment in job.experiments)
    figure, axes = panels(
        4 * len(summaries), "\n".join([*descriptions, OVER_SEEDS]), columns=len(summaries), inches=(3.2, 1.9)
    )
    for column, (summary, experiment) in enumerate(zip(summaries, job.experiments, strict=True)):
        (task,) = experiment.named_tasks.values()
        own = summary.isel(merge_set=0, task=0)
        ratio = (1 / own.norm_ratio).mean("layer")
        losses = with_test_data(own.loss, own.test_loss, ["own"])
        rows = [
            (
                r"mean of $\|W\|_2\,/\,\|W\|_F$",
                ratio,
                (float(np.floor(10 * ratio.isel(step=-1).min()) / 10), 1.0),
            ),
            ("error", with_test_data(own.error, own.test_error, ["own"]), (0.0, 1.0)),
            (f"share of margins below {experiment.margin:g}", own.margin_error, (0.0, 1.0)),
            ("loss", losses, (0.0, float(losses.isel(step=-1).max()))),
        ]
        title = f"{getattr(task, 'labels', job.names[column])} labels"
        for row, (label, values, (low, high)) in enumerate(rows):
            ax = axes[row * len(summaries) + column]
            against_weight_decay(ax, values, title, label)
            ax.set(yscale="linear", ylim=(low - 0.02 * (high - low), high + 0.05 * (high - low)))
    label_panels(axes)
    legend_below(figure, axes)
    return figure
