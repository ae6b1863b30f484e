"""The homogeneous network f(x) = W_K σ(W_{K-1} … σ(W_1 x)): its initialisation and its outputs."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from decaymerge.config.experiment import Network


def initialise(network: Network, input_dim: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Initial weights of the network of one seed, W_k of shape (d_k, d_{k-1}), in float64.

    Args:
        network: Widths, activation and kind of initialisation.
        input_dim: d.
        rng: Random stream of the seed.
    """
    dims = [input_dim, *network.hidden, 1]
    weights = INITIALISATIONS[network.initialisation](network, dims, rng)
    return [network.initial_scale * weight for weight in weights]


def _gaussian(network: Network, dims: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Gaussian weights of variance 2/fan-in before a ReLU (He et al. 2015), and 1/fan-in otherwise."""
    gain = 2.0 if network.activation == "relu" else 1.0
    variances = [gain / fan_in for fan_in in dims[:-2]] + [1.0 / dims[-2]]
    return [
        rng.standard_normal((out, fan_in)) * variance**0.5
        for fan_in, out, variance in zip(dims[:-1], dims[1:], variances, strict=True)
    ]


def _balanced(network: Network, dims: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """W_k = u_k u_{k-1}ᵀ with random unit vectors u_k, so that W_{k+1}ᵀW_{k+1} = W_kW_kᵀ (Theorem 1).

    Every norm is 1. A scalar output gives W_K rank one, and balance gives every other layer the rank of W_K.
    """
    vectors = [rng.standard_normal(dim) for dim in dims[:-1]]
    units = [*(vector / np.linalg.norm(vector) for vector in vectors), np.ones(1)]
    return [np.outer(above, below) for below, above in itertools.pairwise(units)]


def _positive(network: Network, dims: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Absolute values of Gaussian weights, each matrix scaled to norm 2.

    One unit a layer then lies in the basin of the larger stationary point (``claims/counterexample.py``).
    """
    weights = [np.abs(weight) for weight in _gaussian(network, dims, rng)]
    return [2 * weight / np.linalg.norm(weight) for weight in weights]


INITIALISATIONS = {"gaussian": _gaussian, "balanced": _balanced, "positive": _positive}


TILE = {"cpu": 2 * 1024**2}
"""Bytes of one layer's activations that are computed together, by kind of device: a CPU can keep them, and those of
the next layer, in its cache. There is no limit on other devices."""


def tiles(networks: int, samples: int, width: int, inputs: Tensor) -> list[tuple[slice, slice]]:
    """Slices of the networks and of their samples that are computed together; the first pair is the largest.

    Args:
        networks: Number of networks.
        samples: Number of samples of each network.
        width: Width of the widest layer.
        inputs: A tensor with the dtype and the device of the activations.
    """
    if inputs.device.type not in TILE:
        return [(slice(0, networks), slice(0, samples))]
    room = max(1, TILE[inputs.device.type] // (width * inputs.element_size()))  # samples that fit into a tile
    sample_count = math.ceil(samples / math.ceil(samples / room))  # all tiles have about the same size
    network_count = max(1, room // samples)
    return [
        (slice(i, min(i + network_count, networks)), slice(j, min(j + sample_count, samples)))
        for i in range(0, networks, network_count)
        for j in range(0, samples, sample_count)
    ]


def outputs(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """f(x) of the network of every seed at every kept step.

    Args:
        network: Activation and depth.
        weights: W_k of shape (seed, step, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).

    Returns:
        Shape (seed, step, sample).
    """
    seeds, steps = weights[0].shape[:2]
    result = inputs.new_empty(seeds, steps, inputs.shape[1])
    parts = tiles(steps, inputs.shape[1], max([*network.hidden, 1]), inputs)
    for seed in range(seeds):
        for step, sample in parts:
            # All steps of a seed have the same inputs: with stacked rows the first layer is one product.
            first = weights[0][seed, step]
            hidden = (first.flatten(0, 1) @ inputs[seed, sample].mT).view(*first.shape[:2], -1)
            for weight in weights[1:]:
                if network.activation == "relu":
                    hidden = hidden.clamp_min_(0)
                    if network.power != 1:
                        hidden = hidden.pow_(network.power)
                hidden = weight[seed, step] @ hidden  # (step, d_k, sample)
            result[seed, step, sample] = hidden.squeeze(1)
    return result


def activate(network: Network, hidden: Tensor) -> Tensor:
    """σ of a hidden layer's W_k h_{k-1}, of any shape."""
    return hidden.relu().pow(network.power) if network.activation == "relu" else hidden


def activations(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """h_1, …, h_{K-1} of shape (…, sample, d_k), from weights (…, d_k, d_{k-1}) and inputs (…, sample, d)."""
    layers = [inputs]
    for weight in weights[:-1]:
        layers.append(activate(network, layers[-1] @ weight.mT))
    return layers[1:]


def flatten(layers: Sequence[Tensor]) -> np.ndarray:
    """All weights as one vector on the CPU, from layers of shape (seed, d_k, d_{k-1})."""
    return torch.cat([layer.flatten() for layer in layers]).cpu().numpy()


def unflatten(flat: np.ndarray, layers: Sequence[Tensor]) -> None:
    """Write a vector that ``flatten`` has made back into ``layers``, in place."""
    parts = torch.from_numpy(flat).split([layer.numel() for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        layer.copy_(part.view(layer.shape))
