"""The gap between a sum and its networks, by layer: it adds up, and is zero where nothing crosses."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from builders import CPU, FORMS, RELU, data_and_networks, network_of, random_batch
from decaymerge.config.experiment import Network
from decaymerge.evaluate import LONG_NAMES, evaluate
from decaymerge.evaluate.gap_by_layer import gap_by_layer
from decaymerge.merge import merge
from decaymerge.workflow.jobs import EvaluateJob, MergeJob

GAP_VARIABLES = ["loss_increment", "output_increment", "cross_term"]
Layers = list[Tensor]


def job_of(network: Network, gap_by_layer: bool = True) -> EvaluateJob:
    return EvaluateJob(
        merge_set="a+b",
        task_names=["a", "b"],
        weight_decay=0,
        network=network,
        loss="logistic",
        margin=1.0,
        gap_by_layer=gap_by_layer,
    )


def two_networks(network: Network) -> tuple[Layers, Layers, Tensor, Tensor]:
    """Weights of the own and of another network, three seeds and two steps, and the own task's data in float64."""
    weights, inputs, labels = random_batch(network)
    own = [torch.stack([weight, -0.5 * weight], dim=1) for weight in weights]
    return own, [0.7 * weight.flip(0) for weight in own], inputs, labels


def decompose(network: Network, own: Layers, other: Layers, inputs: Tensor, labels: Tensor) -> xr.Dataset:
    summed = [w + c for w, c in zip(own, other, strict=True)]
    return gap_by_layer(job_of(network), own, summed, inputs, labels)


def reference_outputs(network: Network, weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """h_1, …, h_{K-1} and f(x) of one member, in numpy."""
    layers = [x]
    for weight in weights[:-1]:
        above = layers[-1] @ weight.T
        layers.append(np.maximum(above, 0) ** network.power if network.activation == "relu" else above)
    return [*layers[1:], (layers[-1] @ weights[-1].T)[:, 0]]


def reference_decomposition(
    network: Network, own: Layers, other: Layers, inputs: Tensor, labels: Tensor
) -> xr.Dataset:
    """One seed, step, layer and crossing at a time, in numpy."""
    depth, (seeds, steps) = len(own), own[0].shape[:2]
    increments = {name: np.empty((2, depth, seeds, steps)) for name in ("loss_increment", "output_increment")}
    cross_term = np.empty((depth, seeds, steps))
    for seed, step in np.ndindex(seeds, steps):
        w, c = ([layer[seed, step].numpy() for layer in layers] for layers in (own, other))
        both = [own_layer + other_layer for own_layer, other_layer in zip(w, c, strict=True)]
        x, y = inputs[seed].numpy(), labels[seed].numpy()
        inputs_of_layers = [x, *reference_outputs(network, w, x)[:-1]]
        for k, h in enumerate(inputs_of_layers):
            cross_term[k, seed, step] = np.linalg.norm(h @ c[k].T) / np.linalg.norm(h @ w[k].T)
            for crossing, (below, above) in enumerate([(w, both), (both, w)]):
                plain = reference_outputs(network, [*below[:k], w[k], *above[k + 1 :]], x)[-1]
                crossed = reference_outputs(network, [*below[:k], both[k], *above[k + 1 :]], x)[-1]
                place = (crossing, k, seed, step)
                losses = (np.logaddexp(0, -y * outputs).mean() for outputs in (crossed, plain))
                increments["loss_increment"][place] = next(losses) - next(losses)
                increments["output_increment"][place] = abs(crossed - plain).mean()
    dims = ("crossing", "layer", "seed", "step")
    return xr.Dataset(
        {name: (dims, values) for name, values in increments.items()}
        | {"cross_term": (dims[1:], cross_term)},
        coords={"crossing": ["first", "last"]},
    )


def reference_gap(network: Network, own: Layers, other: Layers, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """Loss of the sum minus the own loss, (seed, step)."""
    gap = np.empty(own[0].shape[:2])
    for seed, step in np.ndindex(gap.shape):
        w, c = ([layer[seed, step].numpy() for layer in layers] for layers in (own, other))
        both = [own_layer + other_layer for own_layer, other_layer in zip(w, c, strict=True)]
        x, y = inputs[seed].numpy(), labels[seed].numpy()
        summed, alone = (
            np.logaddexp(0, -y * reference_outputs(network, layers, x)[-1]).mean() for layers in (both, w)
        )
        gap[seed, step] = summed - alone
    return gap


@pytest.mark.parametrize(("activation", "power", "hidden"), FORMS)
def test_against_a_plain_loop(activation: str, power: float, hidden: list[int]) -> None:
    network = network_of(activation, power, hidden)
    case = two_networks(network)
    decomposition = decompose(network, *case)
    reference = reference_decomposition(network, *case)
    xr.testing.assert_allclose(decomposition, reference, rtol=1e-9, atol=1e-13)
    total = decomposition.loss_increment.sum("layer")
    gap = reference_gap(network, *case)
    np.testing.assert_allclose(total, [gap, gap], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_first_layer_that_does_not_see_the_task_adds_nothing(activation: str) -> None:
    network = network_of(activation, 1.0, [7, 5])
    own, other, inputs, labels = two_networks(network)
    inputs[..., 3:] = 0
    other[0][..., :3] = 0
    decomposition = decompose(network, own, other, inputs, labels)
    for name in GAP_VARIABLES:
        np.testing.assert_array_equal(decomposition[name].isel(layer=0), 0)
        assert (abs(decomposition[name].isel(layer=slice(1, None))) > 0).all()


def test_networks_on_coordinates_and_units_of_their_own_have_no_gap() -> None:
    network = network_of("relu", 1.0, [8, 4])
    own, other, inputs, labels = two_networks(network)
    inputs[..., 3:] = 0
    inputs.abs_()  # as the weights are below, so that no layer is dead, whose cross term is not a number
    output = torch.ones(1, dtype=torch.bool)
    for layers, half in ((own, 0), (other, 1)):
        units = [torch.arange(size) // (size // 2) == half for size in (6, 8, 4)]
        for weight, (below, above) in zip(layers, pairwise([*units, output]), strict=True):
            weight.abs_().mul_(above.outer(below))
    decomposition = decompose(network, own, other, inputs, labels)
    for name in GAP_VARIABLES:
        np.testing.assert_array_equal(decomposition[name], 0)


def test_evaluation_adds_it_for_the_sum_alone() -> None:
    data, own = data_and_networks(2)
    network = Network.model_validate(RELU)
    merged = merge(MergeJob(methods=["average", "sum"], network=network), own)
    plain, by_layer = (evaluate(job_of(network, asked), data, own, merged, CPU) for asked in (False, True))
    xr.testing.assert_identical(by_layer.drop_vars([*GAP_VARIABLES, "crossing"]), plain)
    assert set(by_layer.data_vars) == set(LONG_NAMES) - {"effective_dimension"}
    assert by_layer.loss_increment.dims == ("seed", "step", "task", "crossing", "layer")
    assert by_layer.cross_term.dims == ("seed", "step", "task", "layer")
    gap = by_layer.loss.sel(model="sum") - by_layer.loss.sel(model="own")
    for crossing in ("first", "last"):
        total = by_layer.loss_increment.sel(crossing=crossing).sum("layer")
        np.testing.assert_allclose(total, gap, atol=3e-6)
    assert (abs(gap) > 1e-3).any()
