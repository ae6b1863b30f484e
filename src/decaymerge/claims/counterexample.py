"""The exact counterexample to Theorem 2 (ours): one unit a layer, one input a task, everything in closed form.

Task i has the input e_i and the label 1. The network with W_1 = s e_iᵀ and W_2 = … = W_K = s, s > 0, has the margin
s^K, and it is stationary where λ (1 + e^(s^K)) = s^(K-2). No pre-activation of a training input is on a kink. Both
assumptions of the theorem hold: the margin is positive, and the unit is active. Summed with the network of another
task and its s', the first layer stays as it is, and every further layer multiplies by s + s' in place of s.
"""

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.config.datasets import AxesTask
from decaymerge.config.experiment import Network
from decaymerge.gradient import Gradient, relative_residual
from decaymerge.network import activations
from decaymerge.workflow.jobs import ClaimsJob

EXACT = 1e-12
"""Deviation from the closed form up to which an equality of the exact networks holds."""
REACHED = 1e-6
"""The same for networks that a gradient flow has trained."""
PARTS = ["stationary", "formula", "weights reached", "formula reached"]


def stationary_weight(depth: int, weight_decay: float) -> float | None:
    """The larger root s of λ (1 + e^(s^K)) = s^(K-2), which is the stable one, or none where λ is too large.

    With K = 2: s² = log(1/λ - 1), for λ < 1/2. With K = 3: a root exists for λ < 0.2998.
    """
    from scipy.optimize import brentq  # late: it takes half a second, which other claims save

    def excess(margin: float) -> float:
        power = (depth - 2) / depth * np.log(margin) if depth > 2 else 0.0
        return float(power - np.logaddexp(0, margin) - np.log(weight_decay))

    # The left side of excess = 0 rises up to the margin z with z/(1 + e^-z) = (K-2)/K, and falls from there on.
    top = brentq(lambda margin: margin / (1 + np.exp(-margin)) - (depth - 2) / depth, 0, 2) if depth > 2 else 0.0
    if excess(top) <= 0:
        return None
    return float(brentq(excess, top, top + 700, xtol=1e-15) ** (1 / depth))


def stationary_network(weight: float, depth: int, axis: int, dim: int) -> list[Tensor]:
    """W_1 = s e_iᵀ of shape (1, dim), and W_2 = … = W_K = s of shape (1, 1)."""
    first = torch.zeros(1, dim, dtype=torch.float64)
    first[0, axis] = weight
    return [first, *(torch.full((1, 1), weight, dtype=torch.float64) for _ in range(depth - 1))]


def deviations(network: Network, own: list[Tensor], other: list[Tensor], inputs: Tensor) -> np.ndarray:
    """‖h_k^{θ+θ'}(x) - h_k^θ(x)‖ / ‖h_k^θ(x)‖ for k up to K, the output last, (…, layer).

    Args:
        network: Its activation.
        own: W_k of the own network, (…, d_k, d_{k-1}).
        other: W'_k.
        inputs: One input x of the own task, (…, 1, d).
    """

    def layers(weights: list[Tensor]) -> list[Tensor]:
        hidden = activations(network, weights, inputs)
        return [*hidden, hidden[-1] @ weights[-1].mT]

    merged = layers([weight + addend for weight, addend in zip(own, other, strict=True)])
    relative = [
        (summed - alone).norm(dim=(-2, -1)) / alone.norm(dim=(-2, -1))
        for summed, alone in zip(merged, layers(own), strict=True)
    ]
    return torch.stack(relative, -1).numpy()


def predicted_deviations(own: float, other: float, depth: int) -> np.ndarray:
    """(1 + s'/s)^(k-1) - 1 for k up to K, (layer)."""
    return (1 + other / own) ** np.arange(depth) - 1


def theorem2_counterexample(run: Run) -> Measured:
    """The largest deviations from the closed form, at the last step, a part for each of ``PARTS``.

    ``stationary``: ‖∇L + λθ‖ / (λ‖θ‖) of the exact network. ``formula``: how far the deviations between merged and own
    network are from (1 + s'/s)^(k-1) - 1, relative to 1 or the formula, for every λ' of the experiment and in both
    orders. ``weights reached`` and ``formula reached``: the same for the trained networks, both at λ, and how far their
    weights are from the exact ones.
    """
    network, depth, dim = run.job.network, run.job.network.depth, len(run.tasks)
    shape = (dim, len(run.seeds), len(run.kept), len(PARTS))
    measured, bound = np.full(shape, np.nan), np.full(shape, [EXACT, EXACT, REACHED, REACHED])
    weight = stationary_weight(depth, run.weight_decay)
    if weight is None:
        return Measured(measured, bound, PARTS, unmet="λ is too large for a stationary point other than zero")
    others = [
        other for decay in run.job.training.weight_decay if (other := stationary_weight(depth, decay)) is not None
    ]
    smallest = np.inf
    for t, (own, other) in enumerate(run.pairs):
        exact = stationary_network(weight, depth, t, dim)
        state = [layer[None] for layer in exact]
        gradients = Gradient(network, state, own.inputs[:1], own.labels[:1], run.job.training.loss)()
        measured[t, :, -1, 0] = relative_residual(state, gradients, run.weight_decay)
        errors = []
        for other_weight in others:
            partner = stationary_network(other_weight, depth, 1 - t, dim)
            for first, second, axis in ((exact, partner, t), (partner, exact, 1 - t)):
                seen = deviations(network, first, second, torch.eye(dim, dtype=torch.float64)[axis : axis + 1])
                s, s_other = (weight, other_weight) if first is exact else (other_weight, weight)
                formula = predicted_deviations(s, s_other, depth)
                errors.append(np.abs(seen - formula) / np.maximum(formula, 1))
            larger = max(weight / other_weight, other_weight / weight)
            smallest = min(smallest, (1 + larger) ** (depth - 1) - 1)
        measured[t, :, -1, 1] = np.max(errors)
        distance = sum(
            (trained - layer).square().sum((-2, -1)) for trained, layer in zip(own.last(), exact, strict=True)
        )
        measured[t, :, -1, 2] = torch.as_tensor(distance).sqrt().numpy() / (weight * depth**0.5)
        formula = predicted_deviations(weight, weight, depth)
        seen = deviations(network, own.last(), other.last(), own.inputs)
        measured[t, :, -1, 3] = (np.abs(seen - formula) / np.maximum(formula, 1)).max(-1)
    note = (
        f"s = {weight:.4f}; the outputs of merged and own network differ by {2 ** (depth - 1) - 1} times the own one"
        f" at λ' = λ, and in one of the two tasks by {smallest:.3g} times or more at every λ' of the experiment"
    )
    return Measured(measured, bound, PARTS, note=note)


def _is_counterexample(job: ClaimsJob) -> bool:
    network = job.network
    return (
        len(job.data) == 2
        and all(isinstance(data, AxesTask) for data in job.data)
        and network.activation == "relu"
        and network.power == 1
        and network.depth > 1
        and set(network.hidden) == {1}
        and network.initialisation == "positive"
        and job.training.optimiser == "gf"
        and job.training.loss == "logistic"
        and not network.fixed_outer_layer
        and min(job.training.weight_decay) > 0
    )


COUNTEREXAMPLE = Claim(
    name="theorem2_counterexample",
    brief="an exact counterexample to Theorem 2",
    statement=r"With one unit a layer, the inputs $e_1$ and $e_2$ and the labels 1, merged and own network deviate by"
    r" $(1 + s'/s)^{k-1} - 1$ in layer $k$, where $\lambda(1 + e^{s^K}) = s^{K-2}$, at stationary points that gradient"
    " flow reaches",
    source="ours, against Theorem 2 and Lemma 8",
    assumptions="those of Theorem 2; away from kinks, so that Lemma 1 holds as well",
    kind="equality",
    when="last step",
    applies=_is_counterexample,
    measure=theorem2_counterexample,
    parts_apart=True,
)
