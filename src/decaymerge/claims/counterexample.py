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
PARTS = ["stationary", "formula", "weights", "merged"]


def stationary_weight(depth: int, weight_decay: float) -> float | None:
    """The larger root s of λ (1 + e^(s^K)) = s^(K-2), which is the stable one, or none where λ is too large.

    With K = 2: s² = log(1/λ - 1), for λ < 1/2. With K = 3: a root exists for λ < 0.2998.
    """
    from scipy.optimize import brentq  # late: it takes half a second, which other claims save

    def excess(margin: float) -> float:
        power = (depth - 2) / depth * np.log(margin) if depth > 2 else 0.0
        return float(power - np.logaddexp(0, margin) - np.log(weight_decay))

    # The left side of excess = 0 rises up to the margin z with z/(1 + e^-z) = (K-2)/K, and falls from there on.
    top = (
        brentq(lambda margin: margin / (1 + np.exp(-margin)) - (depth - 2) / depth, 0, 2)
        if depth > 2
        else 0.0
    )
    if excess(top) <= 0:
        return None
    return float(brentq(excess, top, top + 700, xtol=1e-15) ** (1 / depth))


def stationary_network(weight: float, depth: int, axis: int) -> list[Tensor]:
    """W_1 = s e_iᵀ of shape (1, 2), and W_2 = … = W_K = s of shape (1, 1)."""
    first = weight * torch.eye(2, dtype=torch.float64)[axis : axis + 1]
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

    ``stationary``: ‖∇L + λθ‖ / (λ‖θ‖) of the exact network. ``formula``: of the deviations between merged and own
    network from (1 + s'/s)^(k-1) - 1, in both tasks and for every λ' of the experiment. ``weights``: of the trained
    weights from the exact ones. ``merged``: as ``formula``, of the trained networks, both at λ.
    """
    training, depth = run.job.training, run.job.network.depth
    shape = (2, len(run.seeds), len(run.kept), len(PARTS))
    measured, bound = np.full(shape, np.nan), np.full(shape, [EXACT, EXACT, REACHED, REACHED])
    weight = stationary_weight(depth, run.weight_decay)
    roots = [stationary_weight(depth, decay) for decay in training.weight_decay]
    partners = [root for root in roots if root is not None]
    if weight is None:
        return Measured(measured, bound, PARTS, unmet="λ is too large for a stationary point other than zero")
    for axis, (own, other) in enumerate(run.pairs):
        exact = stationary_network(weight, depth, axis)
        state = [layer[None] for layer in exact]
        gradients = Gradient(run.job.network, state, own.inputs[:1], own.labels[:1], training.loss)()
        measured[axis, :, -1, 0] = relative_residual(state, gradients, run.weight_decay)
        measured[axis, :, -1, 1] = max(
            _error(run.job.network, ours, theirs, axis)
            for root in partners
            for ours, theirs in ((weight, root), (root, weight))
        )
        distances = [
            (trained - layer).square().sum((-2, -1)) for trained, layer in zip(own.last(), exact, strict=True)
        ]
        measured[axis, :, -1, 2] = torch.stack(distances).sum(0).sqrt() / (weight * depth**0.5)
        seen = deviations(run.job.network, own.last(), other.last(), own.inputs)
        measured[axis, :, -1, 3] = relative_error(seen, predicted_deviations(weight, weight, depth)).max(-1)
    least = min((1 + max(weight / root, root / weight)) ** (depth - 1) - 1 for root in partners)
    note = (
        f"s = {weight:.4f}; merged and own output differ by {2 ** (depth - 1) - 1} times the own one at λ' = λ, and"
        f" in one of the tasks by {least:.3g} times or more at every λ' of the experiment"
    )
    return Measured(measured, bound, PARTS, note=note)


def _error(network: Network, own: float, other: float, axis: int) -> float:
    """Largest error of the formula for the exact networks with s = ``own`` and s' = ``other``."""
    seen = deviations(
        network,
        stationary_network(own, network.depth, axis),
        stationary_network(other, network.depth, 1 - axis),
        torch.eye(2, dtype=torch.float64)[axis : axis + 1],
    )
    return float(relative_error(seen, predicted_deviations(own, other, network.depth)).max())


def relative_error(seen: np.ndarray, formula: np.ndarray) -> np.ndarray:
    """Error relative to the formula, or absolute where the formula is below 1, (…, layer)."""
    return np.abs(seen - formula) / np.maximum(formula, 1)


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
    statement=r"With one unit a layer, inputs $e_1$ and $e_2$ and labels 1, merged and own network deviate by"
    r" $(1 + s'/s)^{k-1} - 1$ in layer $k$, where $\lambda(1 + e^{s^K}) = s^{K-2}$, at stationary points that"
    " gradient flow reaches",
    source="ours, against Theorem 2 and Lemma 8",
    assumptions="those of Theorem 2; away from kinks, so that Lemma 1 holds as well",
    kind="equality",
    when="last step",
    applies=_is_counterexample,
    measure=theorem2_counterexample,
    parts_apart=True,
)
