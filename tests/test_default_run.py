"""What the README says of the default run, held against its summaries (`make check`)."""

from collections import Counter

import numpy as np
import pytest
import xarray as xr

from conftest import REPOSITORY
from decaymerge import claims, store

pytestmark = pytest.mark.default_run


def last(name: str) -> xr.Dataset:
    """Mean over seeds at the last step; dims (weight_decay, model, task[, layer])."""
    return store.read(REPOSITORY / f"results/{name}/summary.nc").isel(pair=0, step=-1).mean("seed")


def gap(summary: xr.Dataset) -> xr.DataArray:
    loss = summary.loss
    return (loss.sel(model="sum") - loss.sel(model="own")).max("task")


def test_independent_tasks_merge() -> None:
    found = last("independent").sel(weight_decay=1e-3)
    own, merged = found.loss.sel(model="own"), found.loss.sel(model="sum")
    assert (merged < 4 * own + 0.02).all()
    assert (found.error.sel(model="sum") < 0.01).all()


def test_same_inputs_do_not() -> None:
    assert (last("same_inputs").loss.sel(weight_decay=1e-3, model="sum") > 0.2).all()


def test_without_weight_decay_the_gap_stays() -> None:
    found = gap(last("weight_decay"))
    assert found.sel(weight_decay=0) >= 5 * found.sel(weight_decay=1e-3)


def test_weight_decay_lowers_the_stable_rank_of_hidden_matrices() -> None:
    rank = last("weight_decay").stable_rank.sel(model="own", layer=[1, 2])
    assert (rank.sel(weight_decay=1e-3) < 4).all()
    assert (rank.sel(weight_decay=0) > 4).all()


@pytest.mark.parametrize("name", ["independent", "weight_decay", "fashion_mnist"])
def test_average_is_worse_than_sum(name: str) -> None:
    loss = last(name).loss.sel(weight_decay=1e-3)
    assert (loss.sel(model="average") > loss.sel(model="sum")).all()


def test_fashion_mnist_own_networks_fit_and_the_sum_does_both() -> None:
    found = last("fashion_mnist").sel(weight_decay=1e-3)
    assert (found.error.sel(model="own") < 0.01).all()
    assert (found.error.sel(model="sum") < 0.05).all()


def test_claims_about_transformers_hold() -> None:
    checks = [check for check in all_checks() if check.experiment.startswith("scan/")]
    assert {check.experiment for check in checks} == {"scan/minilm", "scan/antiberty"} and len(checks) == 8
    assert {check.status for check in checks} == {"bound holds"}


def all_checks() -> list[claims.Check]:
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
    chosen = [c for c in all_checks() if c.claim == claim and c.experiment.startswith(prefix)]
    assert chosen and all(check.status == "equality" for check in chosen)
    assert all(check.measured is not None and check.measured <= tolerance for check in chosen)


def test_no_bound_is_violated_where_its_assumptions_hold() -> None:
    contradicted = {check.claim for check in all_checks() if check.status == "not supported"}
    assert contradicted == {"lemma8", "theorem2"}


def test_the_table_of_claims_in_the_readme_is_that_of_this_run() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for name in claims.CLAIMS:
        found = Counter(check.status for check in all_checks() if check.claim == name)
        outcome = ", ".join(f"{status} {count}" for status, count in sorted(found.items()))
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {outcome} |" in row, f"{row}: {outcome}"


def test_interference_is_predicted_before_merging() -> None:
    for name in ("overlap_000", "overlap_025", "overlap_050", "overlap_075", "overlap_100"):
        found = store.read(REPOSITORY / f"results/{name}/claims.nc").interference
        measured, predicted, bound, paper = (found.sel(side=side) for side in found.side.values)
        assert np.allclose(measured, predicted, rtol=1e-8)
        assert (measured <= bound * (1 + 1e-9)).all() and (bound <= paper * (1 + 1e-9)).all()


def test_inverse_norm_ratio_grows_with_decay_until_the_network_collapses() -> None:
    """Figure 2."""
    for name in ("labels_linear", "labels_quadratic"):
        summary = store.read(REPOSITORY / f"results/{name}/summary.nc").isel(pair=0, task=0, step=-1, model=0)
        ratio = (1 / summary.norm_ratio).mean(["layer", "seed"])
        assert float(ratio.sel(weight_decay=3e-3)) > float(ratio.sel(weight_decay=0)) + 0.02
    collapsed = store.read(REPOSITORY / "results/labels_quadratic/summary.nc").isel(pair=0, task=0, step=-1)
    assert (collapsed.loss.sel(weight_decay=3e-2) > 0.69).all()  # all weights are near zero: log 2
