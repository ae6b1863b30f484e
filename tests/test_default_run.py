"""What the README says of the default run, held against its summaries (`make check`)."""

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
    checks = claims.read(REPOSITORY / "results/claims.json")
    assert {check.experiment for check in checks} == {"scan/minilm", "scan/antiberty"} and len(checks) == 8
    assert {check.status for check in checks} == {"bound holds"}
