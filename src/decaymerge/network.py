"""The homogeneous network f(x) = W_K σ(W_{K-1} … σ(W_1 x)), and its initialisation."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from decaymerge.config.experiment import Network


def initialise(network: Network, input_dim: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Weights of one member, W_k of shape (d_k, d_{k-1}), in float64."""
    dims = [input_dim, *network.hidden, 1]
    return INITIALISATIONS[network.initialisation](network, dims, rng)


def _gaussian(network: Network, dims: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Variance 2/fan-in before a ReLU (He et al. 2015), 1/fan-in otherwise, the last layer included."""
    gain = 2.0 if network.activation == "relu" else 1.0
    variances = [gain / fan_in for fan_in in dims[:-2]] + [1.0 / dims[-2]]
    return [
        rng.standard_normal((out, fan_in)) * variance**0.5
        for fan_in, out, variance in zip(dims[:-1], dims[1:], variances, strict=True)
    ]


def _balanced(network: Network, dims: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """W_{k+1}ᵀW_{k+1} = W_kW_kᵀ (Theorem 1): u_k u_{k-1}ᵀ with random unit vectors, so that every norm is 1.

    With a scalar output W_K has rank one, and balance then leaves every other layer no higher rank.
    """
    vectors = [rng.standard_normal(dim) for dim in dims[:-1]]
    units = [*(vector / np.linalg.norm(vector) for vector in vectors), np.ones(1)]
    return [np.outer(above, below) for below, above in itertools.pairwise(units)]


INITIALISATIONS = {"gaussian": _gaussian, "balanced": _balanced}


TILE = {"cpu": 2 * 1024**2}
"""Bytes of one layer's activations that are worked on together, by kind of device: with the layer beside it they
stay near a core. A device that is not named takes all at once."""


def tiles(members: int, samples: int, width: int, like: Tensor) -> list[tuple[slice, slice]]:
    """Parts of members and samples to be worked on together; the first is the largest.

    Args:
        members: Number of networks.
        samples: Number of samples of each.
        width: Largest number of activations of a layer for one sample.
        like: Has the dtype and the device of the activations.
    """
    sample = width * like.element_size()
    room = max(1, TILE.get(like.device.type, members * samples * sample) // sample)
    of_samples = math.ceil(samples / math.ceil(samples / room))  # parts of about one size
    of_members = max(1, room // samples)
    return [
        (slice(member, min(member + of_members, members)), slice(sample, min(sample + of_samples, samples)))
        for member in range(0, members, of_members)
        for sample in range(0, samples, of_samples)
    ]


def outputs(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """f(x) for every kept step of every member.

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
        for some, of in parts:
            # All steps share their seed's inputs: stacked rows make the first layer one product.
            first = weights[0][seed, some]
            hidden = (first.flatten(0, 1) @ inputs[seed, of].mT).view(*first.shape[:2], -1)
            for weight in weights[1:]:
                if network.activation == "relu":
                    hidden = hidden.clamp_min_(0)
                    if network.power != 1:
                        hidden = hidden.pow_(network.power)
                hidden = weight[seed, some] @ hidden  # (step, d_k, sample)
            result[seed, some, of] = hidden.squeeze(1)
    return result


def activate(network: Network, hidden: Tensor) -> Tensor:
    """σ of a hidden layer's W_k h_{k-1}, of any shape."""
    return hidden.relu().pow(network.power) if network.activation == "relu" else hidden


def activations(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """h_1, …, h_{K-1}, each (…, sample, d_k), for weights (…, d_k, d_{k-1}) and inputs (…, sample, d)."""
    layers = [inputs]
    for weight in weights[:-1]:
        layers.append(activate(network, layers[-1] @ weight.mT))
    return layers[1:]


def flatten(layers: Sequence[Tensor]) -> np.ndarray:
    """One vector of all weights, on the CPU, from layers (seed, d_k, d_{k-1})."""
    return torch.cat([layer.flatten() for layer in layers]).cpu().numpy()


def unflatten(flat: np.ndarray, layers: Sequence[Tensor]) -> None:
    """Write the vector of ``flatten`` into ``layers``."""
    parts = torch.from_numpy(flat).split([layer.numel() for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        layer.copy_(part.view(layer.shape))
