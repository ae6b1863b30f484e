"""Predicted interference of checkpoints before they are merged, and overlap of their inputs, by layer and role."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from decaymerge.figures.panels import lines
from decaymerge.figures.style import label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, predictions: Sequence[xr.Dataset]) -> Figure:
    """A panel of interference for each model, and a panel of the largest overlap, against the layer.

    Args:
        job: How the picture is drawn.
        predictions: A single prediction of ``checkpoints.predicted_interference``. Its matrices are numbered where
            none has a layer.
    """
    (prediction,) = predictions
    title = f"Predicted interference of summed {prediction.attrs['summed']}"
    models = prediction.model.values.tolist()
    figure, axes = panels(len(models) + 1, title, 3, inches=(3.3, 2.5))
    in_layers = prediction.where(prediction.layer >= 0, drop=True)
    has_layers = in_layers.sizes["matrix"] > 0
    matrix_numbers = ("matrix", range(prediction.sizes["matrix"]))
    matrices = in_layers if has_layers else prediction.assign_coords(layer=matrix_numbers)
    quantities = [matrices.interference.sel(model=model) for model in models] + [
        matrices.overlap.max("model")
    ]
    panel_titles = [*models, "largest of all pairs"]
    roles = list(dict.fromkeys(matrices.role.values.tolist()))
    for ax, values, panel_title in zip(axes, quantities, panel_titles, strict=True):
        frame = values.to_dataframe(name="value").reset_index().dropna(subset="value")
        lines(ax, frame, "layer", "value", "role", [role for role in roles if role in set(frame.role)])
        ax.set(xlabel="layer" if has_layers else "matrix", ylabel="interference", ylim=(0, None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(panel_title, parse_math=False)
    axes[-1].set(ylabel="overlap of leading inputs", ylim=(0, 1))
    label_panels(axes)
    legend_below(figure, axes)
    return figure
