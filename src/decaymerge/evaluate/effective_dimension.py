"""How many directions of a layer's inputs the networks of several tasks take up (ours).

Least squares on activations asks one matrix to act on the inputs of all tasks as their own matrices do. It can,
where the spans of the tasks' inputs are linearly independent, and these fit into the layer's width only while
their dimensions add up to no more than it. Activations fill all directions a little, so they are counted with a
ridge, as in ridge regression: r_i = tr G_i (G_i + ρI)^{-1} with G_i = H_iᵀH_i / n_i.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge.config.experiment import Network
from decaymerge.network import activations

RIDGES = (1e-6, 1.0)
"""ρ over the mean diagonal of a task's G_i: that of the merge method ``least_squares``, and one that counts the
directions in which activations are larger than in the mean."""


def effective_dimensions(
    network: Network, own: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor]
) -> xr.DataArray:
    """r_i of the inputs of each layer, (task, seed, step, layer, ridge).

    Args:
        network: Activation and depth.
        own: W_k of each task's network, shape (seed, step, d_k, d_{k-1}).
        inputs: Inputs of each task, shape (seed, sample, d).
    """
    seeds, steps = own[0][0].shape[:2]
    dimensions = np.full((len(own), seeds, steps, network.depth, len(RIDGES)), np.nan)
    for seed, step in np.ndindex(seeds, steps):
        layers = [
            [samples[seed].double(), *activations(network, _at(weights, seed, step), samples[seed].double())]
            for weights, samples in zip(own, inputs, strict=True)
        ]
        for task, hidden in enumerate(layers):
            for k, h in enumerate(hidden):
                # The eigenvalues of G_i that are not zero are those of H_i H_iᵀ/n, the smaller one of both.
                gram = (h.mT @ h if h.shape[0] > h.shape[1] else h @ h.mT) / len(h)
                mean = float(h.square().mean())
                if gram.isfinite().all() and mean > 0:
                    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0)
                    dimensions[task, seed, step, k] = [
                        float((eigenvalues / (eigenvalues + ridge * mean)).sum()) for ridge in RIDGES
                    ]
    return xr.DataArray(dimensions, {"ridge": list(RIDGES)}, ("task", "seed", "step", "layer", "ridge"))


def _at(weights: Sequence[Tensor], seed: int, step: int) -> list[Tensor]:
    return [weight[seed, step].double() for weight in weights]
