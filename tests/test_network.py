"""The homogeneous network: closed-form gradient against autograd, homogeneity, outputs."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import ACTIVATIONS, FORMS, network_of, random_batch, reference_outputs
from decaymerge import measure
from decaymerge.collapse import collapsed
from decaymerge.config.experiment import Network
from decaymerge.config.numbers import Loss
from decaymerge.gradient import Gradient
from decaymerge.network import TILE, initialise, outputs


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize(("activation", "power", "hidden"), FORMS)
def test_gradient_agrees_with_autograd(activation: str, power: float, hidden: list[int], loss: Loss) -> None:
    network = network_of(activation, power, hidden)
    weights, inputs, labels = random_batch(network)
    for weight in weights:
        weight.mul_(0.3 if loss == "exponential" else 1).requires_grad_()  # e^-z would overflow
    losses = [
        measure.loss(
            labels[s] * reference_outputs(network, [weight[s] for weight in weights], inputs[s]), loss
        )
        for s in range(len(inputs))
    ]
    expected = torch.autograd.grad(sum(losses, torch.zeros(())), weights)
    with torch.no_grad():
        gradient = Gradient(network, weights, inputs, labels, loss)
        layers = gradient()
        torch.testing.assert_close(
            measure.loss(gradient.margins, loss), torch.stack(losses).detach(), rtol=1e-12, atol=0
        )
    for k, reference in enumerate(expected):
        error = (layers[k] - reference).abs().max() / reference.abs().max()
        assert error < 1e-10


@pytest.mark.parametrize(("activation", "power", "hidden"), FORMS)
def test_degree_of_each_layer(activation: str, power: float, hidden: list[int]) -> None:
    """F is homogeneous of degree p^(K-k) in W_k."""
    network = network_of(activation, power, hidden)
    weights, inputs, _ = random_batch(network)
    plain = outputs(network, [weight.unsqueeze(1) for weight in weights], inputs)
    for k in range(len(weights)):
        scaled = [weight * (3.0 if j == k else 1.0) for j, weight in enumerate(weights)]
        degree = power ** (len(weights) - 1 - k)
        torch.testing.assert_close(
            outputs(network, [weight.unsqueeze(1) for weight in scaled], inputs), 3.0**degree * plain
        )


@pytest.mark.parametrize(("activation", "power", "hidden"), FORMS)
def test_outputs_of_many_steps(activation: str, power: float, hidden: list[int]) -> None:
    network = network_of(activation, power, hidden)
    weights, inputs, _ = random_batch(network)
    steps = [torch.stack([weight, 2 * weight, -weight], dim=1) for weight in weights]  # (seed, step, out, in)
    values = outputs(network, steps, inputs)
    assert values.shape == (3, 3, 11)
    for seed in range(3):
        for step in range(3):
            expected = reference_outputs(network, [weight[seed, step] for weight in steps], inputs[seed])
            torch.testing.assert_close(values[seed, step], expected)


def test_rotating_inputs_and_first_layer_together_changes_nothing() -> None:
    network = network_of("relu", 1.0, [7, 5])
    weights, inputs, _ = random_batch(network)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.manual_seed(0)))
    steps = [weight.unsqueeze(1) for weight in weights]
    torch.testing.assert_close(
        outputs(network, [steps[0] @ rotation.T, *steps[1:]], inputs @ rotation.T),
        outputs(network, steps, inputs),
    )


def test_the_initial_scale_multiplies_every_weight() -> None:
    network = Network.model_validate({"hidden": [5, 4]})
    plain = initialise(network, 6, np.random.default_rng(0))
    scaled = initialise(network.model_copy(update={"initial_scale": 0.5}), 6, np.random.default_rng(0))
    for weight, other in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(other, 0.5 * weight)


def test_initial_variances() -> None:
    first, second, last = initialise(network_of("relu", 1.0, [400, 300]), 200, np.random.default_rng(1))
    assert first.shape == (400, 200) and second.shape == (300, 400) and last.shape == (1, 300)
    assert first.var() * 200 == pytest.approx(2, rel=0.03)
    assert second.var() * 400 == pytest.approx(2, rel=0.03)
    assert last.var() * 300 == pytest.approx(1, rel=0.3)


def test_measures_against_numpy() -> None:
    rng = np.random.default_rng(2)
    for shape in ((1, 9), (9, 1), (8, 5), (5, 8), (6, 6)):
        weight = rng.standard_normal((4, *shape))
        values = np.linalg.svd(weight, compute_uv=False)
        frobenius, spectral = (
            norm(torch.from_numpy(weight)) for norm in (measure.frobenius_norm, measure.spectral_norm)
        )
        np.testing.assert_allclose(frobenius, np.sqrt((values**2).sum(-1)), rtol=1e-13)
        np.testing.assert_allclose(spectral, values[:, 0], rtol=1e-13)
        np.testing.assert_allclose(
            measure.stable_rank(frobenius, spectral), (values**2).sum(-1) / values[:, 0] ** 2, rtol=1e-12
        )
    zero = torch.zeros(3, 3)
    assert torch.isnan(measure.stable_rank(measure.frobenius_norm(zero), measure.spectral_norm(zero)))
    margins = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    assert measure.error(margins).item() == 0.5
    assert measure.margin_error(margins, 1.0).item() == 0.75
    assert measure.largest_output(margins).item() == 2.0
    np.testing.assert_allclose(
        measure.loss(margins, "logistic"), np.log1p(np.exp(-margins.numpy())).mean(-1), rtol=1e-6
    )


@pytest.mark.parametrize("first_delta", [False, True])
@pytest.mark.parametrize("size", [1, 100, 700, 1500])
@pytest.mark.parametrize(("activation", "power"), ACTIVATIONS)
def test_tiles_change_nothing(
    activation: str, power: float, size: int, first_delta: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one sample of one member at a time to all of two members, the last tile smaller than the others."""
    network = network_of(activation, power, [7, 5])
    weights, inputs, labels = random_batch(network)
    steps = [torch.stack([weight, 2 * weight, -weight], dim=1) for weight in weights]
    monkeypatch.setitem(TILE, "cpu", 10**9)
    whole = Gradient(network, weights, inputs, labels, "logistic", first_delta=first_delta)
    expected, evaluated = [layer.clone() for layer in whole()], outputs(network, steps, inputs)
    monkeypatch.setitem(TILE, "cpu", size)
    gradient = Gradient(
        network, weights, inputs, labels, "logistic", same_inputs=first_delta, first_delta=first_delta
    )
    assert len(gradient.tiles) > 1 == len(whole.tiles)
    for layer, reference in zip(gradient(), expected, strict=True):
        torch.testing.assert_close(layer, reference, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient.margins, whole.margins, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(outputs(network, steps, inputs), evaluated, rtol=1e-12, atol=1e-14)
    if first_delta:
        assert gradient.first_delta is not None and whole.first_delta is not None
        torch.testing.assert_close(gradient.first_delta, whole.first_delta, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient.first_delta @ inputs, expected[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("activation", "power", "hidden"), FORMS)
def test_no_kernel_needs_the_cpu(activation: str, power: float, hidden: list[int]) -> None:
    """On the device 'meta', which has shapes alone and takes no other device's tensors."""
    network = network_of(activation, power, hidden)
    weights, inputs, labels = (
        [tensor.float().to("meta") for tensor in part] if isinstance(part, list) else part.float().to("meta")
        for part in random_batch(network)
    )
    assert isinstance(weights, list) and isinstance(inputs, Tensor) and isinstance(labels, Tensor)
    gradient = Gradient(network, weights, inputs, labels, "logistic", first_delta=True)
    assert [layer.shape for layer in gradient()] == [weight.shape for weight in weights]
    assert gradient.margins.shape == labels.shape
    assert gradient.gradients[0].device.type == "meta" and len(gradient.tiles) == 1
    steps = [weight.unsqueeze(1) for weight in weights]
    assert outputs(network, steps, inputs).shape == (3, 1, 11)


@pytest.mark.parametrize("kind", measure.LOSSES)
def test_a_collapsed_network_has_the_loss_of_a_zero_output(kind: Loss) -> None:
    margins = torch.tensor([[0.0, 9e-4, -9e-4], [0.0, 0.0, 2e-3]], dtype=torch.float64)
    zero = collapsed(measure.largest_output(margins))
    assert zero.tolist() == [True, False]
    of_zero = measure.loss(torch.zeros_like(margins), kind)
    assert (measure.loss(margins, kind) - of_zero).abs()[0] < 1e-3
