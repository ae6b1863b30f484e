"""Stage ``hypotheses``: the paper's four hypotheses about sums of networks (Figure 3), as effects with intervals.

Each hypothesis is about one number for each seed. Its 95% interval over seeds decides: the hypothesis ``holds`` if
the whole interval is on the claimed side of a threshold, is ``not supported`` if the whole interval is on the other
side, and is ``undecided`` otherwise. The paper states the hypotheses in words; numbers and thresholds are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from decaymerge.collapse import without_collapsed
from decaymerge.statistics import interval

NEARLY = 0.05
"""Loss up to which a sum does nearly as well as an own network. The loss of guessing is log 2 = .69."""


class Hypothesis(NamedTuple):
    """A statement about one number of each seed."""

    statement: str
    side: Literal["below", "above"]
    """Side of the threshold on which the number should lie."""
    threshold: float


HYPOTHESES = {
    "sums_solve_independent_tasks": Hypothesis(
        "independent tasks: gap between the sum and the own networks", "below", NEARLY
    ),
    "sums_fail_on_the_same_inputs": Hypothesis(
        "the same inputs: gap between the sum and the own networks", "above", NEARLY
    ),
    "decay_closes_the_gap": Hypothesis("gap at the smallest λ minus gap at λ, paired", "above", 0.0),
    "decay_lowers_the_rank": Hypothesis(
        "log of the stable rank at the smallest λ over that at λ, mean over hidden matrices, paired",
        "above",
        0.0,
    ),
}
"""In the paper's order."""


def effects(summary: xr.Dataset, weight_decay: float, *, same_inputs: bool) -> dict[str, xr.DataArray]:
    """The number of each seed for each hypothesis that an experiment decides, (samples, seed).

    ``samples`` is ``training`` or ``test``; stable ranks are under ``training``.

    Args:
        summary: An experiment that merges by summing. Only a sweep of λ says something about weight decay.
        weight_decay: The nearest λ is taken.
        same_inputs: Whether the tasks have the same inputs.
    """
    sweep = without_collapsed(summary).isel(merge_set=-1, step=-1).mean("task")
    at, least = sweep.sel(weight_decay=weight_decay, method="nearest"), sweep.isel(weight_decay=0)
    if same_inputs:
        return {"sums_fail_on_the_same_inputs": gap(at)}
    numbers = {"sums_solve_independent_tasks": gap(at)}
    if float(least.weight_decay) < float(at.weight_decay):
        numbers["decay_closes_the_gap"] = gap(least) - gap(at)
        if sweep.sizes["layer"] > 1:
            rank = sweep.stable_rank.sel(model="own").isel(layer=slice(-1))
            ratio = rank.isel(weight_decay=0) / rank.sel(weight_decay=at.weight_decay)
            numbers["decay_lowers_the_rank"] = np.log(ratio).mean("layer").expand_dims(samples=["training"])
    return numbers


def gap(last: xr.Dataset) -> xr.DataArray:
    """Loss of the sum minus that of the own networks, (samples, seed), for training and test samples."""
    losses = xr.concat([last.loss, last.test_loss], xr.Variable("samples", ["training", "test"]))
    return losses.sel(model="sum") - losses.sel(model="own")


def judge(
    same_inputs: Mapping[str, bool], summaries: Sequence[xr.Dataset], weight_decay: float
) -> pd.DataFrame:
    """A row for each experiment, hypothesis, and training or test samples: the effect, its interval, the outcome.

    Args:
        same_inputs: Whether the tasks of each experiment have the same inputs. All merge by summing.
        summaries: The summary of each experiment, in the same order.
        weight_decay: λ at which the hypotheses are judged.
    """
    rows = []
    for (name, same), summary in zip(same_inputs.items(), summaries, strict=True):
        numbers = effects(summary, weight_decay, same_inputs=same)
        for key, values in numbers.items():
            statistics = interval(values)
            for samples in values.samples.values:
                effect = {str(k): float(v) for k, v in statistics.sel(samples=samples).data_vars.items()}
                start = {"hypothesis": key, "experiment": name, "samples": samples}
                verdict = outcome(HYPOTHESES[key], effect["low"], effect["high"])
                if effect["n"] > 0:
                    rows.append(start | effect | {"outcome": verdict})
    return pd.DataFrame(rows)


def outcome(hypothesis: Hypothesis, low: float, high: float) -> str:
    """``holds``, ``not supported`` or ``undecided``, from the ends of the interval; NaN decides nothing."""
    below, above = high < hypothesis.threshold, low > hypothesis.threshold
    if hypothesis.side == "above":
        below, above = above, below
    if below:
        return "holds"
    return "not supported" if above else "undecided"
