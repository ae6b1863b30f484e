"""Panels that several figures share. Lines are means and bands standard deviations over seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from decaymerge.figures.style import COLOURS, DASHES, MARKERS

MODEL_LABELS = {"own": "own network", "sum": "sum of weights", "average": "average of weights"}


def nearest_weight_decay(summary: xr.Dataset, weight_decay: float) -> float:
    """The λ of the sweep that is nearest to the wanted one."""
    return float(summary.weight_decay.sel(weight_decay=weight_decay, method="nearest"))


def merge_of_all(summary: xr.Dataset) -> xr.Dataset:
    """The part of a summary about the merge of all tasks, without the dimension ``merge_set``."""
    return summary.isel(merge_set=-1)


def gap(summary: xr.Dataset) -> xr.DataArray:
    """Loss of each merged network minus the loss of the own network of the same task and seed."""
    merged = [model for model in summary.model.values if model != "own"]
    return summary.loss.sel(model=merged) - summary.loss.sel(model="own", drop=True)


def loss_against_steps(ax: Axes, loss: xr.DataArray, weight_decay: float, title: str) -> None:
    """Training loss of every model, from step 1; ``loss`` has dims (weight_decay, seed, step, model)."""
    chosen = loss.sel(weight_decay=weight_decay)
    lines(
        ax, _frame(chosen.sel(step=slice(1, None)), "loss"), "step", "loss", "model", list(loss.model.values)
    )
    ax.set(xscale="log", yscale="log", xlabel="gradient descent step", ylabel="training loss")
    ax.set_title(title)


def against_weight_decay(ax: Axes, values: xr.DataArray, title: str, ylabel: str) -> None:
    """A quantity of every model at the last step; ``values`` has dims (weight_decay, seed, step, model)."""
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
    """Stable rank of each hidden layer; ``rank`` has dims (weight_decay, seed, step, layer)."""
    chosen = rank.sel(weight_decay=weight_decay).isel(layer=slice(0, -1)).sel(step=slice(1, None))
    frame = _frame(chosen, "rank").assign(layer=lambda frame: "layer " + frame.layer.astype(str))
    layers = [f"layer {layer}" for layer in chosen.layer.values]
    lines(ax, frame, "step", "rank", "layer", layers)
    ax.set(xscale="log", yscale="log", xlabel="gradient descent step", ylabel="stable rank")
    plain_ticks(ax)
    ax.set_title(title)


def line_with_band(ax: Axes, values: xr.DataArray, label: str, style: int, *, dashed: bool = False) -> None:
    """Mean over ``seed`` along the other dimension of ``values``, with the range over seeds as a band."""
    mean = values.mean("seed")
    (along,) = mean.dims
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    look = {"color": colour, "marker": marker, "fillstyle": "none" if dashed else "full"}
    ax.plot(mean[along], mean, linestyle="--" if dashed else "-", label=label, **look)
    low, high = values.min("seed"), values.max("seed")
    ax.fill_between(mean[along], low, high, color=colour, alpha=0.15, linewidth=0)


def shared_log_limits(axes: Sequence[Axes]) -> None:
    """A vertical log axis of the same range, that of the lines, on panels that are to be compared."""
    drawn = np.concatenate(
        [np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.get_lines()]
    )
    drawn = drawn[drawn > 0]
    for ax in axes:
        ax.set(yscale="log", ylim=(drawn.min() / 1.6, 1.6 * drawn.max()))


def plain_ticks(ax: Axes) -> None:
    """Label 1, 2, 5, 10, … on a vertical log axis of few decades."""
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")


def _frame(values: xr.DataArray, name: str) -> pd.DataFrame:
    return values.rename(name).to_dataframe().reset_index()


def _decades(positive: np.ndarray) -> list[float]:
    exponents = range(
        int(np.floor(np.log10(positive.min()) + 1e-9)), int(np.ceil(np.log10(positive.max()))) + 1
    )
    return [10.0**exponent for exponent in exponents if 10.0**exponent <= positive.max() * 1.01]


def _standard_deviation(values: pd.Series) -> tuple[float, float]:
    """Mean ∓ standard deviation, the lower end kept positive: it may leave a log axis, but not break the band."""
    mean, deviation = float(values.mean()), float(values.std()) if len(values) > 1 else 0.0
    return max(mean - deviation, np.finfo(float).tiny), mean + deviation


def lines(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str, order: Sequence[str]) -> None:
    """Mean over seeds with its standard deviation as a band, one line for each value of ``by``."""
    labels = {value: MODEL_LABELS.get(value, value) for value in order}
    # The own network keeps the first style wherever it is shown; layers continue after the models' styles.
    first = {"layer": 4, "role": 0}.get(by, 0 if "own" in order else 1)
    styles = [(first + i) % len(MARKERS) for i in range(len(order))]
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
        errorbar=_standard_deviation,
        markevery=max(1, frame[x].nunique() // 8),
        ax=ax,
    )
    if not ax.get_lines():
        return
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()])
    if (drawn > 0).any():  # the lines set the range, bands may leave it
        ax.set_ylim(drawn[drawn > 0].min() / 1.4, 1.4 * drawn.max())
