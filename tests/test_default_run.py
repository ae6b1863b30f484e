"""What docs/explanation/results.md says of the default run, held against its summaries (`make check`)."""

from collections import Counter

import numpy as np
import pytest
import xarray as xr

from conftest import REPOSITORY
from decaymerge import claims, store
from decaymerge.claims.verdict import Verdict

pytestmark = pytest.mark.default_run


def last(name: str) -> xr.Dataset:
    """Mean over seeds at the last step; dims (weight_decay, model, task[, layer])."""
    return store.read(REPOSITORY / f"results/{name}/summary.nc").isel(merge_set=0, step=-1).mean("seed")


def gap(summary: xr.Dataset) -> xr.DataArray:
    loss = summary.loss
    return (loss.sel(model="sum") - loss.sel(model="own")).max("task")


def test_independent_tasks_merge() -> None:
    trained = last("independent").sel(weight_decay=1e-3)
    own, merged = trained.loss.sel(model="own"), trained.loss.sel(model="sum")
    assert (merged < 4 * own + 0.02).all()
    assert (trained.error.sel(model="sum") < 0.01).all()


def test_same_inputs_do_not() -> None:
    assert (last("same_inputs").loss.sel(weight_decay=1e-3, model="sum") > 0.2).all()


def test_without_weight_decay_the_gap_stays() -> None:
    gaps = gap(last("weight_decay"))
    assert gaps.sel(weight_decay=0) >= 5 * gaps.sel(weight_decay=1e-3)


def test_weight_decay_lowers_the_stable_rank_of_hidden_matrices() -> None:
    rank = last("weight_decay").stable_rank.sel(model="own", layer=[1, 2])
    assert (rank.sel(weight_decay=1e-3) < 4).all()
    assert (rank.sel(weight_decay=0) > 4).all()


@pytest.mark.parametrize("name", ["independent", "weight_decay", "fashion_mnist"])
def test_average_is_worse_than_sum(name: str) -> None:
    loss = last(name).loss.sel(weight_decay=1e-3)
    assert (loss.sel(model="average") > loss.sel(model="sum")).all()


def test_fashion_mnist_own_networks_fit_and_the_sum_does_both() -> None:
    trained = last("fashion_mnist").sel(weight_decay=1e-3)
    assert (trained.error.sel(model="own") < 0.01).all()
    assert (trained.error.sel(model="sum") < 0.05).all()


def test_claims_about_transformers_hold() -> None:
    verdicts = [verdict for verdict in all_verdicts() if verdict.experiment.startswith("scan/")]
    assert {verdict.experiment for verdict in verdicts} == {"scan/minilm", "scan/antiberty"}
    assert len(verdicts) == 8
    assert {verdict.outcome for verdict in verdicts} == {"holds"}
    assert "equality" not in {verdict.kind for verdict in verdicts}


def all_verdicts() -> list[Verdict]:
    return claims.read(REPOSITORY / "results/claims.json")


@pytest.mark.parametrize(
    ("claim", "prefix", "tolerance"),
    [
        ("alignment", "linear_", 1e-6),
        ("rank_one", "linear_", 1e-6),
        ("norm_preservation", "linear_", 1e-6),
        ("alignment", "relu_squared", 1e-4),
        ("norm_preservation", "relu_squared", 1e-4),
        ("norm_preservation", "relu_gd", 1e-3),
        ("identity", "", 1e-10),
        ("theorem4", "", 1e-6),
    ],
)
def test_equalities_hold(claim: str, prefix: str, tolerance: float) -> None:
    verdicts = [v for v in all_verdicts() if v.claim == claim and v.experiment.startswith(prefix)]
    assert verdicts and {(verdict.kind, verdict.outcome) for verdict in verdicts} == {("equality", "holds")}
    assert all(verdict.measured is not None and verdict.measured <= tolerance for verdict in verdicts)


def test_no_bound_is_violated_where_its_assumptions_hold() -> None:
    contradicted = {verdict.claim for verdict in all_verdicts() if verdict.outcome == "not supported"}
    assert contradicted == {"lemma8", "theorem2"}


def test_the_table_of_claims_in_the_documentation_is_that_of_this_run() -> None:
    text = (REPOSITORY / "docs/explanation/results.md").read_text()
    for name in claims.CLAIMS:
        counts = Counter(verdict.outcome for verdict in all_verdicts() if verdict.claim == name)
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {outcomes} |" in row, f"{row}: {outcomes}"


def test_interference_is_predicted_before_merging() -> None:
    for name in ("overlap_000", "overlap_025", "overlap_050", "overlap_075", "overlap_100"):
        interference = store.read(REPOSITORY / f"results/{name}/claims.nc").interference
        sides = (interference.sel(side=side) for side in interference.side.values)
        measured, predicted, bound, paper = sides
        assert np.allclose(measured, predicted, rtol=1e-8)
        assert (measured <= bound * (1 + 1e-9)).all() and (bound <= paper * (1 + 1e-9)).all()


def test_inverse_norm_ratio_grows_with_decay_until_the_network_collapses() -> None:
    """Figure 2."""
    for name in ("labels_linear", "labels_quadratic"):
        summary = store.read(REPOSITORY / f"results/{name}/summary.nc").isel(
            merge_set=0, task=0, step=-1, model=0
        )
        ratio = (1 / summary.norm_ratio).mean(["layer", "seed"])
        assert float(ratio.sel(weight_decay=3e-3)) > float(ratio.sel(weight_decay=0)) + 0.02
    collapsed = store.read(REPOSITORY / "results/labels_quadratic/summary.nc").isel(
        merge_set=0, task=0, step=-1
    )
    assert (collapsed.loss.sel(weight_decay=3e-2) > 0.69).all()  # all weights are near zero: log 2
