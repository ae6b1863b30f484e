"""Panels that several figures share. Lines are means over seeds, bands are quantiles or ranges."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from decaymerge.architectures import ROLES
from decaymerge.figures.style import BAND, COLOURS, DASHES, MARKERS

MODEL_LABELS = {
    "own": "own network",
    "sum": "sum of weights",
    "average": "average of weights",
    "projected_sum": "sum, W₁ on its inputs",
    "least_squares": "least squares",
    "least_squares=merged,1e-06,0": "least squares, merged",
}
TEST_STYLES = {"own network, test data": 3, "sum of weights, test data": 6}
"""Styles of lines on test data, by their label."""
ROLE_STYLES = {role: style for style, role in enumerate(ROLES)}
"""Styles of the roles of a transformer's matrices, the same in every figure."""
OWN_STYLE, MERGED_STYLE, LAYER_STYLE = 0, 1, 4
"""First style (colour, marker, dashes) of the lines: own networks and merged ones keep theirs in all panels, and
layers come after them."""


def nearest_weight_decay(summary: xr.Dataset, weight_decay: float) -> float:
    """The λ of a summary that is nearest to ``weight_decay``."""
    return float(summary.weight_decay.sel(weight_decay=weight_decay, method="nearest"))


def merge_of_all(summary: xr.Dataset) -> xr.Dataset:
    """The part of a summary about its last merge set, that of all tasks, without the dimension ``merge_set``."""
    return summary.isel(merge_set=-1)


def gap(loss: xr.DataArray) -> xr.DataArray:
    """Loss of each merged network minus that of the own network of the same task and seed, along ``model``."""
    merged = [model for model in loss.model.values if model != "own"]
    return loss.sel(model=merged) - loss.sel(model="own", drop=True)


def with_test_data(training: xr.DataArray, test: xr.DataArray, models: Sequence[str]) -> xr.DataArray:
    """``training``, and along ``model`` also the values of ``models`` on test data, if test data were given.

    Args:
        training: A quantity on training data, with the dimension ``model``.
        test: The same on test data; NaN where they were not given.
        models: Models whose values on test data are added.
    """
    chosen = test.sel(model=[model for model in models if model in test.model.values])
    if not chosen.notnull().any():
        return training
    names = [f"{MODEL_LABELS.get(model, model)}, test data" for model in chosen.model.values]
    return xr.concat([training, chosen.assign_coords(model=names)], "model")


def loss_against_steps(ax: Axes, loss: xr.DataArray, weight_decay: float, title: str) -> None:
    """Draw the training loss of every model from step 1 on; ``loss`` is (weight_decay, seed, step, model)."""
    after_start = loss.sel(weight_decay=weight_decay).sel(step=slice(1, None))
    lines(ax, _frame(after_start, "loss"), "step", "loss", "model", list(loss.model.values))
    ax.set(xscale="log", yscale="log", xlabel="gradient descent step", ylabel="training loss")
    ax.set_title(title)


def against_weight_decay(ax: Axes, values: xr.DataArray, title: str, ylabel: str) -> None:
    """Draw a quantity of every model at the last step; ``values`` is (weight_decay, seed, step, model)."""
    models = list(values.model.values)
    lines(ax, _frame(values.isel(step=-1), "value"), "weight_decay", "value", "model", models)
    positive = values.weight_decay.values[values.weight_decay.values > 0]
    if 0 in values.weight_decay and positive.size:
        # λ = 0 has no place on a log axis: a short linear piece before the smallest λ holds it.
        ax.set_xscale("symlog", linthresh=positive.min(), linscale=0.5)
        ax.set_xticks([0, *_decades(positive)])
        ax.set_xlim(-0.2 * positive.min(), positive.max() * 1.6)
    elif positive.size:
        ax.set_xscale("log")
    ax.set(yscale="log", xlabel="weight decay λ", ylabel=ylabel)
    ax.set_title(title)


def stable_rank_against_steps(ax: Axes, rank: xr.DataArray, weight_decay: float, title: str) -> None:
    """Draw the stable rank of every layer but the last, which has rank 1.

    Args:
        ax: Where to draw.
        rank: Stable ranks, (weight_decay, seed, step, layer).
        weight_decay: λ.
        title: Title of the panel.
    """
    hidden = rank.sel(weight_decay=weight_decay).isel(layer=slice(0, -1)).sel(step=slice(1, None))
    frame = _frame(hidden, "rank").assign(layer=lambda frame: "layer " + frame.layer.astype(str))
    layers = [f"layer {layer}" for layer in hidden.layer.values]
    lines(ax, frame, "step", "rank", "layer", layers)
    ax.set(xscale="log", yscale="log", xlabel="gradient descent step", ylabel="stable rank")
    plain_ticks(ax)
    ax.set_title(title)


def line_with_band(ax: Axes, values: xr.DataArray, label: str, style: int, *, dashed: bool = False) -> None:
    """Draw the mean over seeds as a line, and the range over seeds as a band.

    Args:
        ax: Where to draw.
        values: Dimension ``seed`` and one more, which is the horizontal axis.
        label: Text in the legend.
        style: Number of the colour and marker.
        dashed: Whether the line is dashed and its markers hollow.
    """
    mean = values.mean("seed")
    (horizontal,) = mean.dims
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    appearance = {"color": colour, "marker": marker, "fillstyle": "none" if dashed else "full"}
    ax.plot(mean[horizontal], mean, linestyle="--" if dashed else "-", label=label, **appearance)
    low, high = values.min("seed"), values.max("seed")
    ax.fill_between(mean[horizontal], low, high, color=colour, alpha=0.15, linewidth=0)


def shared_log_limits(axes: Sequence[Axes]) -> None:
    """Give panels that are compared the same vertical log axis, with the range of their lines."""
    heights = _heights(axes)
    positive = heights[heights > 0]
    for ax in axes:
        ax.set(yscale="log", ylim=(positive.min() / 1.6, 1.6 * positive.max()))


def _heights(axes: Sequence[Axes]) -> np.ndarray:
    """Vertical coordinates of the points of all lines."""
    return np.concatenate(
        [np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.get_lines()]
    )


def plain_ticks(ax: Axes) -> None:
    """Label 1, 2, 5, 10, … on the vertical log axis of a panel, which spans few decades."""
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")


def _frame(values: xr.DataArray, name: str) -> pd.DataFrame:
    return values.rename(name).to_dataframe().reset_index()


def _decades(positive: np.ndarray) -> list[float]:
    """Powers of ten from below the smallest value to the largest."""
    exponents = range(
        int(np.floor(np.log10(positive.min()) + 1e-9)), int(np.ceil(np.log10(positive.max()))) + 1
    )
    return [10.0**exponent for exponent in exponents if 10.0**exponent <= positive.max() * 1.01]


def lines(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str, order: Sequence[str]) -> None:
    """Draw means over seeds as lines, and quantiles as bands.

    Args:
        ax: Where to draw.
        frame: A row for each value.
        x: Column of the horizontal axis.
        y: Column of the values.
        by: Column that tells the lines apart: ``model``, ``layer`` or ``role``.
        order: Values of ``by`` in the order of the legend.
    """
    if frame.empty:
        return
    labels = {value: MODEL_LABELS.get(value, value) for value in order}
    first_style = OWN_STYLE
    if by == "layer":
        first_style = LAYER_STYLE
    elif by == "model" and "own" not in order:
        first_style = MERGED_STYLE
    fixed = TEST_STYLES | ROLE_STYLES
    taken = set(TEST_STYLES.values()) if by == "model" else set()
    free = (i % len(MARKERS) for i in count(first_style) if i % len(MARKERS) not in taken)
    styles = [fixed[value] if value in fixed else next(free) for value in order]
    sns.lineplot(
        data=frame.assign(**{by: frame[by].map(labels)}),
        x=x,
        y=y,
        hue=by,
        style=by,
        hue_order=list(labels.values()),
        style_order=list(labels.values()),
        palette=[COLOURS[style] for style in styles],
        markers=[MARKERS[style] for style in styles],
        dashes=[DASHES[style % len(DASHES)] for style in styles],
        errorbar=("pi", BAND),
        markevery=max(1, frame[x].nunique() // 8),
        ax=ax,
    )
    heights = _heights([ax])
    if (heights > 0).any():  # the range is that of the lines; bands may leave it
        ax.set_ylim(heights[heights > 0].min() / 1.4, 1.4 * heights.max())
