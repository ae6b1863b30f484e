"""Predicted interference of checkpoints that are to be merged, and overlap of their inputs, by layer and role."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from decaymerge.figures.panels import lines
from decaymerge.figures.style import label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, predictions: Sequence[xr.Dataset]) -> Figure:
    """A panel of interference for each model, and one of the largest overlap, against the layer."""
    (prediction,) = predictions
    title = f"Predicted interference of summed {prediction.attrs['summed']}"
    models = prediction.model.values.tolist()
    figure, axes = panels(len(models) + 1, title, 3, inches=(3.3, 2.5))
    known = prediction.where(prediction.layer >= 0, drop=True)
    shown = (
        known
        if known.sizes["matrix"]
        else prediction.assign_coords(layer=("matrix", range(prediction.sizes["matrix"])))
    )
    values = [shown.interference.sel(model=model) for model in models] + [shown.overlap.max("model")]
    titles = [*models, "all pairs, largest"]
    roles = list(dict.fromkeys(shown.role.values.tolist()))
    for ax, value, label in zip(axes, values, titles, strict=True):
        frame = value.to_dataframe(name="value").reset_index().dropna(subset="value")
        lines(ax, frame, "layer", "value", "role", [role for role in roles if role in set(frame.role)])
        ax.set(xlabel="layer" if known.sizes["matrix"] else "matrix", ylabel="interference", ylim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(label, parse_math=False)
    for ax in axes[:-1]:
        ax.axhline(prediction.attrs["collides_from"], color="grey", linewidth=0.8, linestyle="--")
    axes[-1].set(ylabel="overlap of leading inputs", ylim=(0, 1))
    label_panels(axes)
    legend_below(figure, axes)
    return figure
