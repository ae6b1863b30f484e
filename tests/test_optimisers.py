"""Minibatches, gradient flow, stationary points, initialisations and shared outer layers."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from builders import BALANCED, data_and_networks, gaussian_data, train_job, trained
from decaymerge.config.experiment import Network
from decaymerge.gradient import Gradient, relative_residual
from decaymerge.merge import merge
from decaymerge.network import initialise
from decaymerge.store import weights_of
from decaymerge.train.sgd import minibatches
from decaymerge.workflow.jobs import MergeJob

SGD: dict[str, Any] = {"optimiser": "sgd", "batch_size": 7}


def last_residual(
    networks: xr.Dataset, data: xr.Dataset, network: Network, weight_decay: float
) -> np.ndarray:
    weights = [torch.from_numpy(weight[:, -1]) for weight in weights_of(networks)]
    labels = torch.from_numpy(data.labels.values).double()
    gradient = Gradient(network, weights, torch.from_numpy(data.inputs.values), labels, "logistic")
    return relative_residual(weights, gradient(), weight_decay).numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_minibatches_depend_on_the_seed_alone(dtype: str, tolerance: float) -> None:
    whole = trained((0, 1, 2), dtype=dtype, **SGD)
    alone = trained((1,), dtype=dtype, **SGD)
    np.testing.assert_allclose(alone.loss[0], whole.loss.sel(seed=1), rtol=tolerance)
    decayed = trained(weight_decay=0.1, **SGD)
    np.testing.assert_array_equal(decayed.W1.sel(step=0), trained(**SGD).W1.sel(step=0))


def test_an_epoch_has_every_sample_once_and_the_next_another_order() -> None:
    batches = minibatches(train_job(optimiser="sgd", batch_size=5), [0, 1], 20)
    first, second = (np.concatenate([next(batches) for _ in range(4)], axis=1) for _ in range(2))
    for epoch in (first, second):
        assert (np.sort(epoch, axis=1) == np.arange(20)).all()
    assert (first != second).any() and (first[0] != first[1]).any()


def test_a_batch_of_all_samples_is_gradient_descent() -> None:
    whole = trained(optimiser="sgd", batch_size=gaussian_data().sizes["sample"], dtype="float64")
    np.testing.assert_allclose(whole.loss, trained(dtype="float64").loss, rtol=1e-9)


def test_gradient_flow_is_the_limit_of_small_steps() -> None:
    """The distance of gradient descent to the flow at the same time is of the order of the step size."""
    flow = trained(network=BALANCED, optimiser="gf", step_size=1.0, steps=20, dtype="float64")
    distances = []
    for step_size in (0.02, 0.01):
        descent = trained(
            network=BALANCED, step_size=step_size, steps=int(20 / step_size), dtype="float64", kept_steps=2
        )
        distances.append(float(np.abs(descent.W1.isel(step=-1) - flow.W1.isel(step=-1)).max()))
    assert distances[1] < 0.05
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.1)


def test_halving_the_solver_tolerance_changes_less_than_the_claims_tolerance() -> None:
    settings: dict[str, Any] = {"network": BALANCED, "optimiser": "gf", "step_size": 1.0, "dtype": "float64"}
    coarse, fine = (trained(**settings, solver_tolerance=tolerance) for tolerance in (1e-10, 0.5e-10))
    change = np.abs(coarse.W1 - fine.W1).max() / np.abs(fine.W1).max()
    assert 0 < float(change) < 1e-7  # Theorem 4's dynamics are held to 1e-6


def test_gradient_flow_depends_on_the_block_to_the_tolerance_alone() -> None:
    settings: dict[str, Any] = {"network": BALANCED, "optimiser": "gf", "step_size": 1.0, "dtype": "float64"}
    whole, alone = trained((0, 1, 2), **settings), trained((1,), **settings)
    np.testing.assert_allclose(alone.W1[0], whole.W1.sel(seed=1), rtol=1e-7, atol=1e-8)


def test_flow_decays_outside_the_span_of_the_inputs() -> None:
    flow = trained(
        network=BALANCED, optimiser="gf", step_size=1.0, steps=50, weight_decay=0.05, dtype="float64"
    )
    first = flow.W1.values[..., 6:]  # the other task's coordinates
    decay = np.exp(-0.05 * flow.step.values)
    np.testing.assert_allclose(first, decay[:, None, None] * first[:, :1], rtol=1e-7, atol=1e-10)


def test_a_stationary_member_stops_and_stays() -> None:
    network = Network.model_validate(BALANCED)
    settings: dict[str, Any] = {
        "network": BALANCED,
        "weight_decay": 0.05,
        "steps": 20_000,
        "dtype": "float64",
    }
    networks = trained((0, 1, 2), stationarity=1e-8, **settings)
    assert (networks.stationary == 1).all() and (networks.last_step < 5000).all()
    assert (last_residual(networks, gaussian_data(seeds=(0, 1, 2)), network, 0.05) < 1e-8).all()
    assert (networks.W1.sel(step=20_000) == networks.W1.isel(step=-2)).all()
    alone = trained((2,), stationarity=1e-8, **settings)  # its end does not depend on its block
    assert alone.last_step[0] == networks.last_step.sel(seed=2)
    np.testing.assert_allclose(alone.W1[0], networks.W1.sel(seed=2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("finish", [None, "lbfgs"])
@pytest.mark.parametrize("hidden", [[], [8]])
def test_stationary_in_float32_is_stationary_outside_of_the_inputs_as_well(
    finish: str | None, hidden: list[int]
) -> None:
    network = {"activation": "linear", "hidden": hidden}
    settings: dict[str, Any] = {"network": network, "weight_decay": 0.05, "steps": 5000}
    networks = trained(stationarity=1e-3, finish=finish, **settings)
    assert (networks.stationary == 1).all()
    weights = {name: networks[name].astype(float) for name in networks if str(name).startswith("W")}
    form = Network.model_validate(network)
    residual = last_residual(networks.assign(weights), gaussian_data(), form, 0.05)
    assert (residual < 1.1e-3).all()


def test_a_run_that_is_too_short_is_not_stationary() -> None:
    networks = trained(network=BALANCED, steps=300, stationarity=1e-8, dtype="float64")
    assert (networks.stationary == 0).all() and (networks.last_step == 300).all()


def test_finish_reaches_stationarity_where_descent_is_too_slow() -> None:
    squared = {"activation": "relu", "power": 2, "hidden": [8]}
    settings: dict[str, Any] = {"network": squared, "weight_decay": 3e-3, "steps": 500, "stationarity": 1e-6}
    slow = trained(dtype="float64", **settings)
    finished = trained(dtype="float64", finish="lbfgs", **settings)
    assert (slow.stationary == 0).all() and (finished.stationary == 1).all()
    residual = last_residual(finished, gaussian_data(), Network.model_validate(squared), 3e-3)
    assert (residual < 1e-6).all()
    np.testing.assert_array_equal(slow.W1.isel(step=-2), finished.W1.isel(step=-2))  # as before the finish
    assert "coefficients" in slow and "coefficients" not in finished  # L-BFGS has none


def test_balanced_initialisation() -> None:
    network = Network.model_validate({"activation": "linear", "hidden": [5, 7]})
    balanced = network.model_copy(update={"initialisation": "balanced"})
    first, second, third = initialise(balanced, 4, np.random.default_rng(0))
    np.testing.assert_allclose(second.T @ second, first @ first.T, atol=1e-15)
    np.testing.assert_allclose(third.T @ third, second @ second.T, atol=1e-15)
    assert [w.shape for w in (first, second, third)] == [(5, 4), (7, 5), (1, 7)]


def test_tasks_share_a_fixed_outer_layer_and_merging_keeps_it() -> None:
    network = {"activation": "relu", "hidden": [10], "fixed_outer_layer": True}
    _, networks = data_and_networks(network=network)
    assert (networks[0].W2 == networks[1].W2).all() and (networks[0].W1 != networks[1].W1).any()
    merged = merge(MergeJob.model_validate({"methods": ["sum"], "network": network}), networks)
    np.testing.assert_array_equal(merged.W2[0], networks[0].W2)
    np.testing.assert_allclose(merged.W1[0], networks[0].W1 + networks[1].W1, rtol=1e-6)
