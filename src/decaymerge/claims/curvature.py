"""Second-order and non-smooth properties of the loss, by autograd: no training loop needs them."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import TaskNetworks
from decaymerge.measure import LOSSES
from decaymerge.network import TILE, activations

LANCZOS_STEPS = 24
"""Products with the Hessian. How well the sharpness is then known is in docs/explanation/theory.md."""
TINY = 1e-300
"""Least length of a vector before it is scaled to 1, so that a space that is exhausted gives zeros."""
KINK = 1e-2
"""A pre-activation is on the kink if its modulus is at most this share of its layer's root mean square."""


def sharpness(task: TaskNetworks) -> np.ndarray:
    """Largest modulus of an eigenvalue of L_λ's Hessian at each kept step, (seed, step), by Lanczos."""
    generator = torch.Generator().manual_seed(0)
    trained = task.weights[: task.job.network.trained_layers]
    starts = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in trained]
    seeds, steps = task.weights[0].shape[:2]
    eigenvalues = np.zeros((seeds, steps))
    # The activations of a tile stay in the cache through all iterations.
    activations_bytes = task.inputs.shape[1] * max([*task.job.network.hidden, 1]) * task.inputs.element_size()
    room = max(1, TILE["cpu"] // activations_bytes)
    for seed, step in itertools.product(range(0, seeds, room), range(0, steps, max(1, room // seeds))):
        part = slice(seed, seed + room), slice(step, step + max(1, room // seeds))
        eigenvalues[part] = _sharpness(task, part, [start[part] for start in starts])
    return eigenvalues


def _sharpness(task: TaskNetworks, part: tuple[slice, slice], directions: list[Tensor]) -> np.ndarray:
    """The same for some seeds and steps, from a direction in each layer, (seed, step, d_k, d_{k-1})."""
    weights = [weight[part].clone().requires_grad_() for weight in task.weights]
    trained = weights[: len(directions)]
    inputs = task.inputs[part[0]].unsqueeze(1)
    hidden = [inputs, *activations(task.job.network, weights, inputs)][-1]
    margins = task.labels[part[0]].unsqueeze(1) * (hidden @ weights[-1].mT).squeeze(-1)
    loss = LOSSES[task.job.training.loss](margins).mean(-1).sum()  # different networks do not interact
    gradients = torch.autograd.grad(loss, trained, create_graph=True)

    def hessian(vector: list[Tensor]) -> list[Tensor]:
        products = torch.autograd.grad(gradients, trained, vector, retain_graph=True)
        return [product + task.weight_decay * part for product, part in zip(products, vector, strict=True)]

    return largest_eigenvalue(hessian, directions).numpy()


def largest_eigenvalue(operator: Callable[[list[Tensor]], list[Tensor]], start: list[Tensor]) -> Tensor:
    """Largest modulus of an eigenvalue of symmetric operators, one for each seed and step, (seed, step).

    After k steps of Lanczos the operator is the tridiagonal matrix of α and β in the basis of its k vectors.
    """
    previous, residual = [torch.zeros_like(part) for part in start], start
    alphas, betas = [], []
    for _ in range(LANCZOS_STEPS):
        betas.append(_sum(part.square() for part in residual).sqrt())
        beta = betas[-1][..., None, None]
        vector = [part / beta.clamp(min=TINY) for part in residual]
        image = operator(vector)
        alphas.append(_sum(part * other for part, other in zip(image, vector, strict=True)))
        alpha = alphas[-1][..., None, None]
        residual = [u - alpha * v - beta * w for u, v, w in zip(image, vector, previous, strict=True)]
        previous = vector
    diagonal, beside = torch.stack(alphas, -1), torch.stack(betas[1:], -1)
    tridiagonal = torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    return torch.linalg.eigvalsh(tridiagonal).abs().amax(-1)


def _sum(layers: Iterable[Tensor]) -> Tensor:
    """Sum over all entries of all layers, from (seed, step, d_k, d_{k-1}) to (seed, step)."""
    return torch.stack([layer.sum((-2, -1)) for layer in layers]).sum(0)


def minimum_norm_residual(task: TaskNetworks) -> np.ndarray:
    """‖g‖ / (λ‖θ‖) of the subgradient g of L_λ with the least norm, at the last step, (seed).

    The slope of the ReLU on a kink is free in [0, 1]; L-BFGS-B finds the slopes that make ‖g‖ least.
    """
    return np.array([_minimum_norm_residual(task, member) for member in range(len(task.inputs))])


def _minimum_norm_residual(task: TaskNetworks, member: int) -> float:
    """The same for the network of one seed, at position ``member``."""
    weights = [weight[member] for weight in task.last()]
    hidden = [task.inputs[member], *activations(task.job.network, weights, task.inputs[member])]
    preactivations = [below @ weight.mT for below, weight in zip(hidden, weights[:-1], strict=False)]
    on_kink = [u.abs() <= KINK * u.square().mean().sqrt() for u in preactivations]
    output_delta = -task.slopes[member, -1] * task.labels[member] / len(task.labels[member])

    def squared_residual(slopes: Sequence[Tensor]) -> Tensor:
        delta, total = output_delta.unsqueeze(-1), torch.zeros((), dtype=torch.float64)
        for k in range(len(weights) - 1, -1, -1):
            gradient = delta.mT @ hidden[k]
            total = total + (gradient + task.weight_decay * weights[k]).square().sum()
            if k:
                delta = slopes[k - 1] * (delta @ weights[k])
        return total

    counts = [int(mask.sum()) for mask in on_kink]
    scale = task.weight_decay**2 * sum(weight.square().sum() for weight in weights)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free_slopes = torch.tensor(flat, requires_grad=True)
        slopes = []
        for u, mask, part in zip(preactivations, on_kink, free_slopes.split(counts), strict=True):
            slope = (u > 0).double()
            slopes.append(slope.masked_scatter(mask, part))
        value = squared_residual(slopes) / scale
        (gradient,) = torch.autograd.grad(value, free_slopes)
        return value.item(), gradient.numpy()

    from scipy.optimize import minimize  # late: it takes half a second, which smooth networks save

    start = torch.cat([(u > 0).double()[mask] for u, mask in zip(preactivations, on_kink, strict=True)])
    if not len(start):
        return float(task.residual[member, -1])
    minimum = minimize(objective, start.numpy(), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(start))
    return float(minimum.fun) ** 0.5
