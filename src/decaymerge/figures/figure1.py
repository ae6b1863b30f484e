"""Figure 1 and Appendix C.1 of the paper: norm and stable rank of each role, layer by layer."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from decaymerge.architectures import stacks_of
from decaymerge.figures.panels import lines, plain_ticks
from decaymerge.figures.style import label_panels, legend_below, panels
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, scans: Sequence[xr.Dataset]) -> Figure:
    """A row for each stack of layers, with its norms and its stable ranks against the layer, a line for each role.

    Args:
        job: The models.
        scans: Their scans, in the order of the job.
    """
    columns = 2
    stacks = [
        (name + (f": {stack or 'matrices by name'}" if len(parts) > 1 else ""), part)
        for name, scan in zip(job.names, scans, strict=True)
        for parts in [stacks_of(scan)]
        for stack, part in parts.items()
    ]
    title = "Frobenius norm and stable rank of each role's matrix, layer by layer"
    if any("largest_stable_rank" in part for _, part in stacks):
        title += "; E1, E2: median over the experts"
    figure, axes = panels(columns * len(stacks), title, columns, inches=(3.6, 2.3))
    for i, (name, part) in enumerate(stacks):
        _against_layer(axes[columns * i], part.frobenius_norm, name, "Frobenius norm")
        _against_layer(axes[columns * i + 1], part.stable_rank, name, "stable rank")
    label_panels(axes)
    legend_below(figure, axes)
    return figure


def _against_layer(ax: Axes, values: xr.DataArray, title: str, ylabel: str) -> None:
    """Draw ``values (layer, role)``; a role without any value has no line."""
    frame = values.rename("value").to_dataframe().reset_index().dropna(subset="value")
    roles = [role for role in values.role.values if role in set(frame.role)]
    lines(ax, frame, "number", "value", "role", roles)
    ax.set(yscale="log", xlabel="layer", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_ticks(ax)
    ax.set_title(title, parse_math=False)
