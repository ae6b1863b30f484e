"""The gap between a sum and its networks, by layer: it adds up, and is zero where nothing crosses."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from decaymerge import tasks
from decaymerge.config.experiment import Network
from decaymerge.evaluate import LONG_NAMES, evaluate
from decaymerge.evaluate.gap_by_layer import by_layer
from decaymerge.merge import merge
from decaymerge.workflow.jobs import EvaluateJob, MergeJob
from test_network import CASES, batch, network_of
from test_tasks import gaussian_job
from test_train import train, train_job

CPU = torch.device("cpu")
OF_SUM = ["loss_increment", "output_increment", "cross_term"]
Layers = list[Tensor]


def job_of(network: Network, gap_by_layer: bool = True) -> EvaluateJob:
    return EvaluateJob(
        pair="a+b",
        tasks=["a", "b"],
        weight_decay=0,
        network=network,
        loss="logistic",
        margin=1.0,
        gap_by_layer=gap_by_layer,
    )


def two_networks(network: Network) -> tuple[Layers, Layers, Tensor, Tensor]:
    """Weights of the own and of another network, three seeds and two steps, and the own task's data in float64."""
    weights, inputs, labels = batch(network)
    own = [torch.stack([weight, -0.5 * weight], dim=1) for weight in weights]
    return own, [0.7 * weight.flip(0) for weight in own], inputs, labels


def decompose(network: Network, own: Layers, other: Layers, inputs: Tensor, labels: Tensor) -> xr.Dataset:
    return by_layer(job_of(network), own, [w + c for w, c in zip(own, other, strict=True)], inputs, labels)


@pytest.mark.parametrize(("activation", "power", "hidden"), CASES)
def test_against_a_plain_loop(activation: str, power: float, hidden: list[int]) -> None:
    network = network_of(activation, power, hidden)
    own, other, inputs, labels = two_networks(network)
    found = decompose(network, own, other, inputs, labels)
    assert found.sizes == {"crossing": 2, "layer": len(own), "seed": 3, "step": 2}

    def through(weight: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """A layer that is not the last one."""
        above = hidden @ weight.T
        return np.maximum(above, 0) ** network.power if activation == "relu" else above

    def output(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
        for weight in weights[:-1]:
            x = through(weight, x)
        return (x @ weights[-1].T)[:, 0]

    for seed, step in np.ndindex(3, 2):
        w, c = ([layer[seed, step].numpy() for layer in layers] for layers in (own, other))
        both = [of_own + of_other for of_own, of_other in zip(w, c, strict=True)]
        x, y = inputs[seed].numpy(), labels[seed].numpy()
        hidden_below = x
        for k in range(len(w)):
            at = found.isel(seed=seed, step=step, layer=k)
            for crossing, below, above in (("first", w, both), ("last", both, w)):
                plain = output([*below[:k], w[k], *above[k + 1 :]], x)
                crossed = output([*below[:k], both[k], *above[k + 1 :]], x)
                change = np.logaddexp(0, -y * crossed).mean() - np.logaddexp(0, -y * plain).mean()
                part = at.sel(crossing=crossing)
                assert float(part.loss_increment) == pytest.approx(change, rel=1e-9, abs=1e-13)
                assert float(part.output_increment) == pytest.approx(abs(crossed - plain).mean(), rel=1e-9)
            ratio = np.linalg.norm(hidden_below @ c[k].T) / np.linalg.norm(hidden_below @ w[k].T)
            assert float(at.cross_term) == pytest.approx(ratio, rel=1e-9)
            hidden_below = through(w[k], hidden_below)
        gap = np.logaddexp(0, -y * output(both, x)).mean() - np.logaddexp(0, -y * output(w, x)).mean()
        total = found.loss_increment.isel(seed=seed, step=step).sum("layer")
        np.testing.assert_allclose(total, [gap, gap], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_first_layer_that_does_not_see_the_task_adds_nothing(activation: str) -> None:
    network = network_of(activation, 1.0, [7, 5])
    own, other, inputs, labels = two_networks(network)
    inputs[..., 3:] = 0
    other[0][..., :3] = 0
    found = decompose(network, own, other, inputs, labels)
    for name in OF_SUM:
        np.testing.assert_array_equal(found[name].isel(layer=0), 0)
        assert (abs(found[name].isel(layer=slice(1, None))) > 0).all()


def test_networks_on_coordinates_and_units_of_their_own_have_no_gap() -> None:
    network = network_of("relu", 1.0, [8, 4])
    own, other, inputs, labels = two_networks(network)
    inputs[..., 3:] = 0
    inputs.abs_()  # as the weights are below, so that no layer is dead, whose cross term is not a number
    for layers, half in ((own, 0), (other, 1)):
        mine = [torch.arange(size) // (size // 2) == half for size in (6, 8, 4)] + [
            torch.ones(1, dtype=torch.bool)
        ]
        for weight, (below, above) in zip(layers, pairwise(mine), strict=True):
            weight.abs_().mul_(above.outer(below))
    found = decompose(network, own, other, inputs, labels)
    for name in OF_SUM:
        np.testing.assert_array_equal(found[name], 0)


@pytest.fixture(scope="module")
def trained() -> tuple[list[xr.Dataset], list[xr.Dataset], xr.Dataset]:
    """Data, own networks and their sum and average, of two tasks."""
    data = [tasks.make(gaussian_job(index), []) for index in (0, 1)]
    own = [train(train_job(task=name), made, CPU) for name, made in zip("ab", data, strict=True)]
    return data, own, merge(MergeJob(methods=["average", "sum"], trained=3), own)


def test_evaluation_adds_it_for_the_sum_alone(trained: Any) -> None:
    data, own, merged = trained
    network = Network(hidden=[10, 8])
    plain, found = (evaluate(job_of(network, asked), data, own, merged, CPU) for asked in (False, True))
    xr.testing.assert_identical(found.drop_vars([*OF_SUM, "crossing"]), plain)
    assert set(found.data_vars) == set(LONG_NAMES)
    assert found.loss_increment.dims == ("seed", "step", "task", "crossing", "layer")
    assert found.cross_term.dims == ("seed", "step", "task", "layer")
    gap = found.loss.sel(model="sum") - found.loss.sel(model="own")
    for crossing in ("first", "last"):
        np.testing.assert_allclose(found.loss_increment.sel(crossing=crossing).sum("layer"), gap, atol=3e-6)
    assert (abs(gap) > 1e-3).any()
