"""Claims about the activations of deep ReLU networks and of their sum: Lemma 8 and Theorem 2."""

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

DECAYED = 0.01
"""Cosine at the last step below which activations count as orthogonal; ours, since the lemma's rate is lost."""
SAME = 0.05
"""Relative deviation of activations up to which they count as equal; ours."""


def lemma8(run: Run) -> Measured:
    """Mean cosine of h_k(x) and h'_k(x') over pairs of inputs of the two tasks, layer by layer."""
    own, other = run.tasks[:2]
    cosines = []
    for mine, theirs in zip(
        own.hidden(own.weights, own.inputs), other.hidden(other.weights, other.inputs), strict=True
    ):
        cosines.append((_unit(mine).mean(-2) * _unit(theirs).mean(-2)).sum(-1).numpy())
    measured = np.stack([np.stack(cosines, -1)] * 2)  # it is one number for both tasks
    half, end = measured[0, :, len(run.kept) // 2], measured[0, :, -1]
    note = "mean cosine, by layer, at the middle kept step and at the last: " + ", ".join(
        f"{before:.3g} to {after:.3g}" for before, after in zip(half.mean(0), end.mean(0), strict=True)
    )
    return Measured(measured, np.full_like(measured, DECAYED), _layers(run), note=note)


def _unit(hidden: Tensor) -> Tensor:
    """Each activation vector over its norm, 0 where it is 0."""
    return torch.nan_to_num(hidden / hidden.norm(dim=-1, keepdim=True))


def theorem2(run: Run) -> Measured:
    """‖h_k^{θ+θ'}(x) - h_k^θ(x)‖ / ‖h_k^θ(x)‖ over the inputs that meet Assumption 2, a median over them."""
    measured, settled_share, smallest = [], [], []
    positive_margin = all(
        bool(((task.slopes * task.margins).mean(-1) > 0).any(1).all()) for task in run.tasks
    )
    for own, other in run.pairs:
        merged = [mine + theirs for mine, theirs in zip(own.weights, other.weights, strict=True)]
        of_layer = []
        for alone, summed in zip(
            own.hidden(own.weights, own.inputs), own.hidden(merged, own.inputs), strict=True
        ):
            deviation = ((summed - alone).norm(dim=-1) / alone.norm(dim=-1)).numpy()  # (seed, step, sample)
            settled = _settled(alone)
            of_layer.append(_median(deviation, settled))
            settled_share.append(float(settled.mean()))
            smallest.append(_smallest_activation(alone))
        measured.append(np.stack(of_layer, -1))
    unmet = "" if positive_margin else "Assumption 1: the average margin is never positive"
    if not unmet and max(settled_share) == 0:
        unmet = "Assumption 2: no input has a settled set of active units"
    note = (
        f"Assumption 2 holds for a share of {min(settled_share):.2f} of the inputs in the worst layer;"
        f" smallest positive normalised activation (Definition 1) {min(smallest):.2g}"
    )
    found = np.stack(measured)
    return Measured(found, np.full_like(found, SAME), _layers(run), unmet, note)


def _settled(hidden: Tensor) -> np.ndarray:
    """Whether an input's active units are the same at the last two kept steps, and not none, (seed, sample)."""
    active = hidden[:, -2:] > 0
    return ((active[:, 0] == active[:, 1]).all(-1) & active[:, 1].any(-1)).numpy()


def _median(deviation: np.ndarray, settled: np.ndarray) -> np.ndarray:
    """Over settled inputs, (seed, step, sample) to (seed, step); NaN where there is none."""
    chosen = np.where(settled[:, None], deviation, np.nan)
    empty = ~settled.any(-1)
    chosen[empty] = 0
    median = np.nanmedian(chosen, -1)
    median[empty] = np.nan
    return median


def _smallest_activation(hidden: Tensor) -> float:
    last = _unit(hidden[:, -1])
    return float(last[last > 0].min()) if (last > 0).any() else float("nan")


def _layers(run: Run) -> list[str]:
    return [f"layer {k}" for k in range(1, run.job.network.depth)]


def _applies(job: ClaimsJob) -> bool:
    network = job.network
    return (
        job.training.optimiser == "gf"
        and network.activation == "relu"
        and network.power == 1
        and network.depth > 2
        and len(job.task_names) > 1
    )


ACTIVATION_CLAIMS = [
    Claim(
        name="lemma8",
        statement=r"$\langle h_k(x), h'_k(x')\rangle$ decays exponentially: its cosine ends below 0.01",
        source="Lemma 8, Corollary 2",
        assumptions="deep ReLU network, gradient flow; that 0.01 is little is ours, the rate is lost",
        kind="upper",
        when="last step",
        applies=_applies,
        measure=lemma8,
        tried=r"$\lambda$ from 0.003 to 0.03, up to $t = 2000$: the cosine stays between 0.2 and 0.4. Activations"
        " of a ReLU are not negative, so that networks which share any active unit have a positive one.",
        parts_apart=True,
    ),
    Claim(
        name="theorem2",
        statement=r"Merged and own network have the same activations: $h_k^{\theta+\theta'}(x) = h_k^\theta(x)$",
        source="Theorem 2",
        assumptions="deep ReLU network, gradient flow to stationarity, Assumptions 1 and 2; 5% is ours",
        kind="upper",
        when="last step",
        applies=_applies,
        measure=theorem2,
        tried=r"$\lambda$ from 0.003 to 0.03, up to $t = 2000$: the first layer's deviation vanishes as its"
        " interference does; the second layer's stays at about a half for every pair of networks.",
        parts_apart=True,
    ),
]
