"""Second-order and non-smooth properties of the loss at the last step: by autograd, since no loop needs them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import TaskNetworks
from decaymerge.measure import LOSSES
from decaymerge.network import activations

POWER_ITERATIONS = 40
KINK = 1e-2
"""Pre-activations below this share of their layer's root mean square count as on the kink."""


def sharpness(task: TaskNetworks) -> np.ndarray:
    """Largest eigenvalue (by modulus) of the Hessian of L_λ at the last step, (seed), by power iteration."""
    weights = [weight.clone().requires_grad_() for weight in task.last()]
    trained = weights[: task.job.network.trained_layers]
    hidden = [task.inputs, *activations(task.job.network, weights, task.inputs)][-1]
    margins = task.labels * (hidden @ weights[-1].mT).squeeze(-1)
    loss = LOSSES[task.job.training.loss](margins).mean(-1).sum()  # members do not interact
    gradients = torch.autograd.grad(loss, trained, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in trained]
    eigenvalue = torch.zeros(len(task.inputs))
    for _ in range(POWER_ITERATIONS):
        length = sum((part.square().sum((-2, -1)) for part in vector), torch.zeros(1)).sqrt()
        vector = [part / length[:, None, None] for part in vector]
        products = torch.autograd.grad(gradients, trained, vector, retain_graph=True)
        image = [p + task.weight_decay * v for p, v in zip(products, vector, strict=True)]
        eigenvalue = sum(
            ((i * v).sum((-2, -1)) for i, v in zip(image, vector, strict=True)), torch.zeros(1)
        ).abs()
        vector = image
    return eigenvalue.numpy()


def minimum_norm_residual(task: TaskNetworks) -> np.ndarray:
    """Relative residual of the subgradient of least norm, (seed): slopes on a kink are free in [0, 1]."""
    return np.array([_minimum_norm_residual(task, member) for member in range(len(task.inputs))])


def _minimum_norm_residual(task: TaskNetworks, member: int) -> float:
    weights = [weight[member] for weight in task.last()]
    hidden = [task.inputs[member], *activations(task.job.network, weights, task.inputs[member])]
    before = [below @ weight.mT for below, weight in zip(hidden, weights[:-1], strict=False)]
    free = [u.abs() <= KINK * u.square().mean().sqrt() for u in before]
    outer = -task.slopes[member, -1] * task.labels[member] / len(task.labels[member])

    def squared_residual(slopes: Sequence[Tensor]) -> Tensor:
        delta, total = outer.unsqueeze(-1), torch.zeros((), dtype=torch.float64)
        for k in range(len(weights) - 1, -1, -1):
            gradient = delta.mT @ hidden[k]
            total = total + (gradient + task.weight_decay * weights[k]).square().sum()
            if k:
                delta = slopes[k - 1] * (delta @ weights[k])
        return total

    sizes = [int(mask.sum()) for mask in free]
    size = task.weight_decay**2 * sum(weight.square().sum() for weight in weights)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.tensor(flat, requires_grad=True)
        slopes = []
        for u, mask, part in zip(before, free, vector.split(sizes), strict=True):
            slope = (u > 0).double()
            slopes.append(slope.masked_scatter(mask, part))
        value = squared_residual(slopes) / size
        (gradient,) = torch.autograd.grad(value, vector)
        return value.item(), gradient.numpy()

    from scipy.optimize import minimize  # half a second, that smooth networks need not wait for

    start = torch.cat([(u > 0).double()[mask] for u, mask in zip(before, free, strict=True)]).numpy()
    if not start.size:
        return float(task.residual[member, -1])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * start.size)
    return float(found.fun) ** 0.5
