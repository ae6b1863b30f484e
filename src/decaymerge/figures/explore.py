"""``explore.html``: a self-contained page on which a reader moves λ, step and number of tasks of a finished run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from plotly.offline import get_plotlyjs

from decaymerge.figures.page import write_page
from decaymerge.provenance import made_by
from decaymerge.statistics import interval

DIGITS = 4


def write_explore(
    summaries: Mapping[str, xr.Dataset], traces: Mapping[str, xr.Dataset], output: Path
) -> None:
    """Write the page to ``output``, HTML, with all of its data and the library that draws.

    Args:
        summaries: Summary of each experiment that has one.
        traces: ``claims.nc`` of those whose claims were checked; of these, some have ``interference``.
        output: The page.

    Raises:
        UserError: the page cannot be written.
    """
    traces = {name: trace for name, trace in traces.items() if "interference" in trace}
    content: dict[str, dict[str, Any]] = {name: _training(summary) for name, summary in summaries.items()}
    for name, trace in traces.items():
        content.setdefault(name, {}).update(_interference(trace))
    origins = sorted({made_by(result.attrs) for result in (*summaries.values(), *traces.values())})
    # No "</script>" may stand in a script.
    text = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    write_page("explore.html", output, content=text, plotly=get_plotlyjs(), origins=origins)


def _training(summary: xr.Dataset) -> dict[str, Any]:
    """Means over tasks and seeds, and 95% intervals over seeds.

    Losses and gaps have the dimensions (merge_set, weight_decay, model, step), ranks those with layer for model.
    """
    order = ("merge_set", "weight_decay", "model", "step")
    losses = {name: summary[name].mean("task") for name in ("loss", "test_loss") if name in summary}
    ranks = summary.stable_rank.sel(model="own").mean("task")
    return {
        "decays": summary.weight_decay.values.tolist(),
        "steps": summary.step.values.tolist(),
        "models": summary.model.values.tolist(),
        "layers": summary.layer.values.tolist(),
        "tasks": [len(str(name).split("+")) for name in summary.merge_set.values],
        "seeds": summary.sizes["seed"],
        "ranks": _bands(ranks, ("merge_set", "weight_decay", "layer", "step")),
        "loss": {name: _bands(loss, order) for name, loss in losses.items()},
        "gap": {name: _bands(loss - loss.sel(model="own"), order) for name, loss in losses.items()},
    }


def _interference(trace: xr.Dataset) -> dict[str, Any]:
    """Mean ‖W'_1 x‖ over the other task's inputs, measured and predicted, (weight_decay, side)."""
    return {
        "decays": trace.weight_decay.values.tolist(),
        "seeds": trace.sizes["seed"],
        "sides": trace.side.values.tolist(),
        "interference": _bands(trace.interference.mean("task"), ("weight_decay", "side")),
    }


def _bands(values: xr.DataArray, order: tuple[str, ...]) -> dict[str, Any]:
    """``mean``, ``low`` and ``high`` over seeds, as nested lists with the dimensions in ``order``; None for NaN."""
    band = interval(values)
    return {side: _rounded(band[side].transpose(*order).values) for side in ("mean", "low", "high")}


def _rounded(values: np.ndarray) -> Any:
    """Nested lists with a few digits, and None where a number is not finite."""
    if values.ndim:
        return [_rounded(part) for part in values]
    return float(f"{values:.{DIGITS}g}") if np.isfinite(values) else None
