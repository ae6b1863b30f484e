"""Claims about the activations of deep ReLU networks and of their sum: Lemma 8 and Theorem 2."""

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import Run
from decaymerge.claims.stationary import has_collapsed
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

DECAYED = 0.01
"""Cosine at the last step below which activations count as orthogonal. It is ours: the lemma's rate is lost."""
SAME = 0.05
"""Relative deviation of activations up to which they count as equal. It is ours."""


def lemma8(run: Run) -> Measured:
    """Mean cosine of h_k(x) and h'_k(x') over pairs of inputs of the two tasks, a part for each layer (Lemma 8)."""
    own, other = run.tasks[:2]
    own_layers = own.hidden(own.weights, own.inputs)
    other_layers = other.hidden(other.weights, other.inputs)
    cosines = [
        (_unit(hidden).mean(-2) * _unit(other_hidden).mean(-2)).sum(-1).numpy()
        for hidden, other_hidden in zip(own_layers, other_layers, strict=True)
    ]
    both = np.stack([np.stack(cosines, -1)] * 2)  # both tasks have the same cosine
    measured, unmet, notes = _alive(run, both)
    if not unmet:
        middle, end = (np.nanmean(measured[0, :, step], 0) for step in (len(run.kept) // 2, -1))
        notes.append(
            "mean cosine, by layer, from the middle kept step to the last: "
            + ", ".join(f"{before:.3g} to {after:.3g}" for before, after in zip(middle, end, strict=True))
        )
    return Measured(measured, np.full_like(measured, DECAYED), _layers(run), unmet, "; ".join(notes))


def _alive(run: Run, measured: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    """Leave out the seeds in which a network of the pair has collapsed to zero: nothing is left to merge with.

    Returns:
        ``measured`` (task, seed, step, part) with NaN for these seeds; that no seed is left, in words, or an empty
        text; and a note of how many seeds are left out, if any.
    """
    zero = np.logical_or(*(has_collapsed(task) for task in run.tasks[:2]))
    unmet = "in every pair a network collapsed to zero" if zero.all() else ""
    note = f"in {zero.sum()} of {zero.size} pairs a network collapsed to zero; they are left out"
    return np.where(zero[:, None, None], np.nan, measured), unmet, [note] if zero.any() else []


def _unit(hidden: Tensor) -> Tensor:
    """Each activation vector (…, sample, d_k) divided by its norm; a zero vector stays zero."""
    return torch.nan_to_num(hidden / hidden.norm(dim=-1, keepdim=True))


def theorem2(run: Run) -> Measured:
    """Median of ‖h_k^{θ+θ'}(x) - h_k^θ(x)‖ / ‖h_k^θ(x)‖ over the inputs that meet Assumption 2 (Theorem 2)."""
    measured, settled_share, smallest = [], [], []
    positive_margin = all(
        bool(((task.slopes * task.margins).mean(-1) > 0).any(1).all()) for task in run.tasks
    )
    for own, other in run.pairs:
        summed = [weight + addend for weight, addend in zip(own.weights, other.weights, strict=True)]
        own_layers, sum_layers = own.hidden(own.weights, own.inputs), own.hidden(summed, own.inputs)
        medians = []
        for own_hidden, sum_hidden in zip(own_layers, sum_layers, strict=True):
            difference = (sum_hidden - own_hidden).norm(dim=-1)
            deviation = (difference / own_hidden.norm(dim=-1)).numpy()  # (seed, step, sample)
            settled = _settled(own_hidden)
            medians.append(_median(deviation, settled))
            settled_share.append(float(settled.mean()))
            smallest.append(_smallest_activation(own_hidden))
        measured.append(np.stack(medians, -1))
    deviations, unmet, notes = _alive(run, np.stack(measured))
    if not unmet and not positive_margin:
        unmet = "Assumption 1: the average margin is never positive"
    if not unmet and max(settled_share) == 0:
        unmet = "Assumption 2: no input has a settled set of active units"
    notes.append(
        f"Assumption 2 holds for a share of {min(settled_share):.2f} of the inputs in the worst layer;"
        f" smallest positive normalised activation (Definition 1) {min(smallest):.2g}"
    )
    return Measured(deviations, np.full_like(deviations, SAME), _layers(run), unmet, "; ".join(notes))


def _settled(hidden: Tensor) -> np.ndarray:
    """Whether an input has active units, and the same ones at the last two kept steps, (seed, sample)."""
    active = hidden[:, -2:] > 0
    return ((active[:, 0] == active[:, 1]).all(-1) & active[:, 1].any(-1)).numpy()


def _median(deviation: np.ndarray, settled: np.ndarray) -> np.ndarray:
    """Median over settled inputs, (seed, step, sample) to (seed, step); NaN where no input is settled."""
    known = np.where(settled[:, None], deviation, np.nan)
    empty = ~settled.any(-1)
    known[empty] = 0  # nanmedian would warn of a slice without numbers
    median = np.nanmedian(known, -1)
    median[empty] = np.nan
    return median


def _smallest_activation(hidden: Tensor) -> float:
    """Smallest positive entry of the normalised activations at the last step (Definition 1)."""
    last = _unit(hidden[:, -1])
    return float(last[last > 0].min()) if (last > 0).any() else float("nan")


def _layers(run: Run) -> list[str]:
    return [f"layer {k}" for k in range(1, run.job.network.depth)]


def _is_deep_relu_flow(job: ClaimsJob) -> bool:
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
        brief="⟨h_k(x), h'_k(x')⟩ decays exponentially",
        statement=r"$\langle h_k(x), h'_k(x')\rangle$ decays exponentially: its cosine ends below 0.01",
        source="Lemma 8, Corollary 2",
        assumptions="deep ReLU network, gradient flow; the threshold of 0.01 is ours, as the rate is lost",
        kind="upper",
        when="last step",
        applies=_is_deep_relu_flow,
        measure=lemma8,
        tried=r"$\lambda$ from 0.0003 to 0.05, above which networks collapse, up to $\lambda t \ge 6$: the cosine"
        " stays between 0.1 and 0.4. Activations of a ReLU are not negative, so networks that share an active unit"
        " have a positive cosine.",
        parts_apart=True,
    ),
    Claim(
        name="theorem2",
        brief="merged activations equal the own ones",
        statement=r"Merged and own network have the same activations: $h_k^{\theta+\theta'}(x) = h_k^\theta(x)$",
        source="Theorem 2",
        assumptions="deep ReLU network, gradient flow to stationarity, Assumptions 1 and 2; the 5% are ours",
        kind="upper",
        when="last step",
        applies=_is_deep_relu_flow,
        measure=theorem2,
        tried=r"$\lambda$ from 0.0003 to 0.05, above which networks collapse, up to $\lambda t \ge 6$: the first"
        " layer's deviation vanishes as its interference does; the second layer's is 0.2 or more for every pair.",
        parts_apart=True,
    ),
]
