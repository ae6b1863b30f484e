"""Figure 2 of the paper: the average inverse norm ratio grows with λ, even where the network errs."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_experiment
from decaymerge.figures.panels import against_weight_decay
from decaymerge.figures.style import OVER_SEEDS, label_panels, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A column for each labelling function; rows: inverse norm ratio, error, margin error, loss against λ.

    Args:
        job: The experiments, linear labels first.
        summaries: Their summaries, in this order.
    """
    described = dict.fromkeys(describe_experiment(experiment) for experiment in job.experiments)
    figure, axes = panels(
        4 * len(summaries), "\n".join([*described, OVER_SEEDS]), columns=len(summaries), inches=(3.2, 1.9)
    )
    for column, (summary, experiment) in enumerate(zip(summaries, job.experiments, strict=True)):
        (task,) = experiment.named_tasks.values()
        own = summary.isel(merge_set=0, task=0)
        rows = {
            "mean of ‖W‖₂/‖W‖_F": (1 / own.norm_ratio).mean("layer"),
            "error": own.error,
            f"margins below {experiment.margin:g}": own.margin_error,
            "training loss": own.loss,
        }
        for row, (label, values) in enumerate(rows.items()):
            ax = axes[row * len(summaries) + column]
            against_weight_decay(ax, values, f"{getattr(task, 'labels', job.names[column])} labels", label)
            end = float(values.isel(step=-1).max())
            low, high = {0: (0.5, 1.0), 1: (0.0, 1.0), 2: (0.0, 1.0)}.get(row, (0.0, end))
            ax.set(yscale="linear", ylim=(low - 0.02 * high, 1.05 * high))
            if (legend := ax.get_legend()) is not None:
                legend.remove()
    label_panels(axes)
    return figure
