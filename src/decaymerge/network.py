"""The homogeneous network f(x) = W_K σ(W_{K-1} … σ(W_1 x)), its initialisation and its gradient in closed form."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from decaymerge.experiments import Network
from decaymerge.settings import Loss


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


def outputs(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """f(x) for every kept step of every member.

    Args:
        network: Activation and depth.
        weights: W_k of shape (seed, step, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).

    Returns:
        Shape (seed, step, sample).
    """
    # All steps share their seed's inputs: stacked rows make the first layer one product per seed.
    seeds, steps = weights[0].shape[:2]
    hidden = (weights[0].flatten(1, 2) @ inputs.mT).unflatten(1, (steps, -1))  # (seed, step, d_1, sample)
    for weight in weights[1:]:
        if network.activation == "relu":
            hidden = hidden.clamp_min_(0)
            if network.power != 1:
                hidden = hidden.pow_(network.power)
        hidden = weight @ hidden
    return hidden.reshape(seeds, steps, -1)


def activations(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """h_1, …, h_{K-1}, each (…, sample, d_k), for weights (…, d_k, d_{k-1}) and inputs (…, sample, d)."""
    found = [inputs]
    for weight in weights[:-1]:
        hidden = found[-1] @ weight.mT
        found.append(hidden.relu().pow(network.power) if network.activation == "relu" else hidden)
    return found[1:]


SLOPES: dict[Loss, Callable[[Tensor], Tensor]] = {"logistic": torch.sigmoid_, "exponential": torch.exp_}
"""-ℓ'(z) from -z, in place."""


class Gradient:
    """Gradient of L(θ) = mean_i ℓ(y_i f(x_i)) for a batch of members, without autograd.

    Buffers are allocated once; the loop that trains allocates nothing.

    Args:
        network: Activation and depth.
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        loss: ℓ.
    """

    def __init__(self, network: Network, inputs: Tensor, labels: Tensor, loss: Loss) -> None:
        self.network = network
        self.slope_of = SLOPES[loss]
        self.labels = labels.unsqueeze(-1)  # (seed, sample, 1)
        buffers = [[inputs.new_empty(*inputs.shape[:2], width) for width in network.hidden] for _ in range(2)]
        self.rectified, self.deltas = buffers  # σ'(u_k) needs max(u_k, 0) alone; (seed, sample, d_k)
        powered = network.activation == "relu" and network.power != 1
        activations = [torch.empty_like(buffer) for buffer in self.rectified] if powered else self.rectified
        self.activations = [inputs, *activations]  # h_0 = x, h_1, …
        self.margins = torch.empty_like(self.labels)
        self.slope = torch.empty_like(self.labels)

    def forward(self, weights: Sequence[Tensor]) -> Tensor:
        """Margins z_i = y_i f(x_i), shape (seed, sample), valid until the next call."""
        for k, rectified in enumerate(self.rectified):
            torch.bmm(self.activations[k], weights[k].mT, out=rectified)  # u_k = W_k h_{k-1}
            if self.network.activation == "relu":
                rectified.clamp_min_(0)
                if self.network.power != 1:
                    torch.pow(rectified, self.network.power, out=self.activations[k + 1])
        torch.bmm(self.activations[-1], weights[-1].mT, out=self.margins)
        return self.margins.mul_(self.labels).squeeze(-1)

    def backward(self, weights: Sequence[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (k, δ_k, h_{k-1}) from the last layer to the first, after ``forward``; ∇W_k = δ_kᵀ h_{k-1}.

        δ_k, of shape (seed, sample, d_k), is the gradient with respect to W_k h_{k-1}, and δ_{k-1} is formed
        before layer k is yielded: the caller may overwrite W_k in place. k counts from 0.
        """
        # δ_K = y ℓ'(z)/n
        self.slope_of(torch.neg(self.margins, out=self.slope))
        self.slope.mul_(self.labels).div_(-self.labels.shape[1])
        delta = self.slope
        for k in range(len(weights) - 1, -1, -1):
            below = self._delta_below(k, delta, weights[k]) if k > 0 else delta
            yield k, delta, self.activations[k]
            delta = below

    def gradients(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """∇_k L(θ) for every layer, each of its layer's shape (seed, d_k, d_{k-1})."""
        self.forward(weights)
        return [delta.mT @ below for _, delta, below in self.backward(weights)][::-1]

    def _delta_below(self, k: int, delta: Tensor, weight: Tensor) -> Tensor:
        """δ_{k-1} = σ'(u_{k-1}) ⊙ (δ_k W_k)."""
        below, rectified = self.deltas[k - 1], self.rectified[k - 1]
        torch.bmm(delta, weight, out=below)
        if self.network.activation == "relu":
            if self.network.power == 1:
                torch.ops.aten.threshold_backward.grad_input(below, rectified, 0, grad_input=below)
            else:  # p max(u, 0)^(p-1), which is 0 where u < 0
                below.mul_(rectified.pow_(self.network.power - 1)).mul_(self.network.power)
        return below


def flatten(layers: Sequence[Tensor]) -> np.ndarray:
    """One vector of all weights, on the CPU, from layers (seed, d_k, d_{k-1})."""
    return torch.cat([layer.flatten() for layer in layers]).cpu().numpy()


def unflatten(flat: np.ndarray | Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The layers of ``flatten``, as views of one vector where ``like`` are."""
    vector = torch.as_tensor(flat, device=like[0].device)
    parts = vector.split([layer.numel() for layer in like])
    return [part.view(layer.shape) for part, layer in zip(parts, like, strict=True)]


def relative_residual(weights: Sequence[Tensor], gradients: Sequence[Tensor], weight_decay: float) -> Tensor:
    """‖∇L + λθ‖ / (λ‖θ‖) over the given layers, (…, d_k, d_{k-1}) to (…): 0 at a stationary point (Lemma 1).

    Not a number where λ = 0 or θ = 0, where the residual is undefined.
    """
    squares = zip(
        *[
            (g.add(w, alpha=weight_decay).square().sum((-2, -1)), w.square().sum((-2, -1)))
            for w, g in zip(weights, gradients, strict=True)
        ],
        strict=True,
    )
    residual, size = (sum(values).sqrt() for values in squares)
    return residual / (weight_decay * size)
