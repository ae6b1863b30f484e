"""Maps over λ and training steps: where the sum has the loss of the own networks (ours)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from decaymerge.figures.captions import describe_sweep
from decaymerge.figures.panels import merge_of_all
from decaymerge.figures.style import label_panels, panels
from decaymerge.workflow.jobs import FigureJob

FLOOR = 1e-4
"""Losses and gaps below this value have its colour; on the maps they count as zero."""
FRONTIER = 0.01
"""Error of the sum at which a line is drawn in the maps."""


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A row of heat maps over steps and λ for each experiment: own loss, loss of the sum, and the gap between them.

    Args:
        job: Experiments that merge by summing.
        summaries: Their summaries, in the order of the job.
    """
    caption = (
        f"means over seeds and tasks; white line: the sum errs on {FRONTIER:.0%}; dashed line: step 1/(ηλ);"
        f" a negative gap has the colour of {FLOOR:g}"
    )
    figure, axes = panels(
        3 * len(summaries), "\n".join([*describe_sweep(job.experiments), caption]), inches=(3.0, 2.9)
    )
    norm = LogNorm(FLOOR, 1.0)
    for row, summary in enumerate(summaries):
        mean = merge_of_all(summary).sel(step=slice(1, None)).mean(("seed", "task"))
        own, merged = (mean.sel(model=model) for model in ("own", "sum"))
        maps = {
            "own networks": own.loss,
            "sum of weights": merged.loss,
            "gap: sum minus own": merged.loss - own.loss,
        }
        step_size = job.experiments[row].training.step_size
        for ax, (title, values) in zip(axes[3 * row :], maps.items(), strict=False):
            _map(ax, values, merged.error, norm)
            _decay_times(ax, step_size, summary.weight_decay.values)
            ax.set_title(title)
    figure.colorbar(
        ScalarMappable(norm, "viridis"), ax=axes, label="training loss, or its gap", extend="both", pad=0.01
    )
    label_panels(axes)
    return figure


def _map(ax: Axes, values: xr.DataArray, error: xr.DataArray, norm: LogNorm) -> None:
    """Draw a map of ``values`` over steps, on a log axis, and λ, each with a row of the same height.

    Args:
        ax: Where to draw.
        values: Loss or gap, (weight_decay, step).
        error: Error of the sum, (weight_decay, step).
        norm: Scale of the colours.
    """
    values, error = (array.transpose("weight_decay", "step") for array in (values, error))
    steps, decays = values.step.values, values.weight_decay.values
    middles = np.sqrt(steps[1:] * steps[:-1])
    edges = [steps[0], *middles, steps[-1]]
    rows = np.arange(len(decays) + 1) - 0.5
    ax.pcolormesh(
        edges, rows, np.maximum(values, FLOOR), norm=norm, cmap="viridis", edgecolors="face", linewidth=0.2
    )
    if min(error.shape) > 1 and error.min() < FRONTIER < error.max():
        ax.contour(steps, rows[:-1] + 0.5, error, levels=[FRONTIER], colors="white", linewidths=1.5)
    ax.set(xscale="log", xlabel="gradient descent step", ylabel="weight decay λ")
    ax.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    ax.grid(visible=False)


def _decay_times(ax: Axes, step_size: float, decays: np.ndarray) -> None:
    """Draw a line at step 1/(ηλ) of each λ: by then, decay alone has shrunk the weights by the factor e."""
    rows = np.flatnonzero(decays)
    steps = 1 / (step_size * decays[rows])
    limits = ax.get_xlim()
    ax.plot(steps, rows, color="black", linestyle="--", linewidth=1)
    ax.set_xlim(limits)
