"""Intervals, tables and hypotheses, from summaries made by hand: against SciPy, and with collapsed networks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from builders import smoke_config
from decaymerge.collapse import describe_collapse, without_collapsed
from decaymerge.config import parse
from decaymerge.config.experiment import Experiment
from decaymerge.evaluate.table import table
from decaymerge.hypotheses import HYPOTHESES, judge, outcome
from decaymerge.statistics import interval

SEEDS = 6


def summary_of(
    losses: dict[float, dict[str, list[float]]], rank: dict[float, float] | None = None
) -> xr.Dataset:
    """A summary of two tasks, from the loss of each model for each seed, at each λ."""
    models = ["own", "sum"]
    values = np.array(
        [[by_model[model] for model in models] for by_model in losses.values()]
    )  # (λ, model, seed)
    shape = (1, len(losses), SEEDS, 2, 2, 2)  # merge_set, weight_decay, seed, step, model, task
    loss = np.broadcast_to(values.transpose(0, 2, 1)[None, :, :, None, :, None], shape).copy()
    dims = ("merge_set", "weight_decay", "seed", "step", "model", "task")
    ranks = (
        np.ones((*shape, 3))
        * np.array(list((rank or dict.fromkeys(losses, 2.0)).values()))[:, None, None, None, None, None]
    )
    ranks *= np.exp(0.01 * np.arange(SEEDS))[:, None, None, None, None]
    variables: dict[str, Any] = dict.fromkeys(
        ("loss", "test_loss", "error", "test_error", "margin_error"), (dims, loss)
    )
    variables["largest_output"] = (dims, np.ones(shape))
    variables["stable_rank"] = variables["norm_ratio"] = ((*dims, "layer"), ranks)
    coords = {"merge_set": ["a+b"], "weight_decay": list(losses), "seed": range(SEEDS), "step": [0, 9]}
    return xr.Dataset(variables, coords | {"model": models, "task": ["a", "b"], "layer": [1, 2, 3]})


def rows(seed: int, mean: float) -> list[float]:
    return list(mean * (1 + 0.1 * np.random.default_rng(seed).standard_normal(SEEDS)))


def row_of(frame: pd.DataFrame, quantity: str, task: str) -> pd.Series:
    """The row of the sum at the larger λ."""
    keys = {"quantity": quantity, "weight_decay": 1e-3, "model": "sum", "task": task}
    (row,) = [row for _, row in frame.iterrows() if row[list(keys)].to_dict() == keys]
    return row


@pytest.fixture
def summary() -> xr.Dataset:
    return summary_of(
        {
            0.0: {"own": rows(0, 0.01), "sum": rows(1, 0.3)},
            1e-3: {"own": rows(2, 0.02), "sum": rows(3, 0.03)},
        },
        rank={0.0: 8.0, 1e-3: 2.0},
    )


def test_interval_is_that_of_a_t_test() -> None:
    values = np.random.default_rng(0).standard_normal((4, 9)) + 0.5
    values[1, 3] = np.nan
    ours = interval(xr.DataArray(values, dims=("x", "seed")))
    for x, row in enumerate(values):
        test = stats.ttest_1samp(row[~np.isnan(row)], 0)
        low, high = test.confidence_interval(0.95)
        expected = [np.nanmean(row), low, high, np.isfinite(row).sum(), test.pvalue]
        np.testing.assert_allclose(ours.isel(x=x).to_array(), expected, rtol=1e-12)
    single = interval(xr.DataArray([1.0, np.nan], dims="seed"))
    assert single.n == 1 and single["mean"] == 1 and np.isnan(single.low)


def test_changes_in_the_table_are_paired(summary: xr.Dataset) -> None:
    frame = table(summary)
    row = row_of(frame, "loss", "a")
    losses = summary.loss.isel(merge_set=0, step=-1).sel(model="sum", task="a")
    change = (losses.sel(weight_decay=1e-3) - losses.sel(weight_decay=0)).values
    low, high = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    assert (row.n, row.rises, row.collapsed) == (SEEDS, 0, 0)
    np.testing.assert_allclose([row.change, row.change_low, row.change_high], [change.mean(), low, high])
    gap = row_of(frame, "gap", "mean")
    np.testing.assert_allclose(
        gap["mean"],
        float(
            (losses - summary.loss.isel(merge_set=0, step=-1).sel(model="own", task="a"))
            .sel(weight_decay=1e-3)
            .mean()
        ),
    )


def test_collapsed_networks_are_left_out_and_counted(summary: xr.Dataset) -> None:
    summary.largest_output.loc[
        {"weight_decay": 1e-3, "seed": [1, 4], "model": "own", "task": "b", "step": 9}
    ] = 1e-9
    summary.loss.loc[{"weight_decay": 1e-3, "seed": [1, 4]}] = 1e6
    assert describe_collapse(summary) == "left out, as they collapsed to zero: 2 at λ = 0.001, of 12 networks"
    assert without_collapsed(summary).loss.notnull().sum("seed").isel(weight_decay=1).max() == SEEDS - 2
    row = row_of(table(summary), "loss", "a")
    assert (row.n, row.change_n, row.collapsed) == (SEEDS - 2, SEEDS - 2, 2) and row["mean"] < 1
    assert row.rises == 0, "a collapsed network neither rises nor falls"


def experiment(overlap: str) -> Experiment:
    raw = smoke_config()["experiments"]["weight_decay"]
    raw["tasks"]["overlap"] = overlap
    return parse({"experiments": {"x": raw}}).experiments["x"]


def test_hypotheses(summary: xr.Dataset) -> None:
    experiments = {"sweep": experiment("orthogonal").same_inputs, "same": experiment("same").same_inputs}
    bad = summary_of({1e-3: {"own": rows(0, 0.01), "sum": rows(1, 0.4)}})
    verdicts = judge(experiments, [summary, bad], 1e-3)
    assert set(verdicts.hypothesis) == HYPOTHESES.keys() and set(verdicts.outcome) == {"holds"}
    rank = verdicts[verdicts.hypothesis == "decay_lowers_the_rank"]
    assert rank["mean"].item() == pytest.approx(np.log(4)) and rank.samples.item() == "training"
    broken = judge(experiments, [bad, summary], 1e-3)
    assert set(broken.outcome) == {"not supported"} and len(broken) == 4
    reverse = summary.assign_coords(weight_decay=[1e-3, 0.0]).sortby("weight_decay")
    assert set(judge({"sweep": experiments["sweep"]}, [reverse], 1e-3).outcome) == {"not supported"}


def test_an_interval_that_contains_the_threshold_decides_nothing() -> None:
    hypothesis = HYPOTHESES["decay_closes_the_gap"]
    assert outcome(hypothesis, -0.1, 0.2) == "undecided"
    assert outcome(hypothesis, np.nan, np.nan) == "undecided"
    assert outcome(hypothesis, 0.1, 0.2) == "holds" and outcome(hypothesis, -0.2, -0.1) == "not supported"
