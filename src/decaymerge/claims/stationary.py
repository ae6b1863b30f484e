"""Claims about stationary points: Lemmas 2 to 4. Lemma 1 is in ``alignment.py``."""

import numpy as np
import torch

from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.collapse import collapsed
from decaymerge.measure import LOSSES, frobenius_norm, largest_output, spectral_norm
from decaymerge.workflow.jobs import ClaimsJob

STATIONARY = {"linear": 1e-6, "relu^p": 1e-4, "relu": 1e-3}
"""Relative tolerance of an equality at a stationary point: a ReLU network only comes near one."""
KINKED_FLOW = 5e-3
"""The same tolerance for a flow along kinks, which a solver follows to about 1e-4 a step."""
NO_DECAY = "λ = 0, where the claim is undefined"
RESTING = 1e-2
"""Relative change of a squared norm between the last two kept steps up to which the norm is at rest."""
RANK_ONE = 1e-12
"""Deviation from 1 up to which a ratio of norms is 1, so that matrices have rank one."""


def tolerance(run: Run) -> float:
    """Relative tolerance of an equality for the networks of a run."""
    network = run.job.network
    if run.job.training.optimiser == "gf" and not network.smooth:
        return KINKED_FLOW
    return STATIONARY[network.activation if network.power == 1 else "relu^p"]


def stack(values: list[np.ndarray]) -> np.ndarray:
    """Array (task, seed, step, part) from an array (seed, step[, part]) for each task."""
    stacked = np.stack(values)
    return stacked if stacked.ndim == 4 else stacked[..., None]


def has_collapsed(task: TaskNetworks) -> np.ndarray:
    """Whether the network of each seed has collapsed to zero, (seed)."""
    return collapsed(largest_output(task.margins[:, -1])).numpy()


def without_collapsed(run: Run, measured: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Leave out the networks that have gone to zero, since θ = 0 is a stationary point that the claims exclude.

    Returns:
        ``measured`` (task, seed, step, part) with NaN for these networks, and a note of how many there are, if any.
    """
    zero = np.stack([has_collapsed(task) for task in run.tasks])
    note = f"{zero.sum()} of {zero.size} networks collapsed to zero and are left out"
    return np.where(zero[:, :, None, None], np.nan, measured), [note] if zero.any() else []


def _not_stationary(run: Run) -> str:
    """Why the run is not at a stationary point, or an empty text."""
    if run.weight_decay == 0:
        return NO_DECAY
    worst = max(
        float(np.where(has_collapsed(task), 0, np.nan_to_num(task.residual[:, -1], nan=np.inf)).max())
        for task in run.tasks
    )
    return "" if worst <= tolerance(run) else f"not at a stationary point: the residual is {worst:.2g}"


def rank_one(run: Run) -> Measured:
    """σ_2/σ_1 of each matrix but the last, a part for each; 0 for a network that has gone to zero (Lemma 2)."""

    def ratios(task: TaskNetworks) -> np.ndarray:
        per_layer = []
        for weight in task.weights[:-1]:
            singular_values = torch.linalg.svdvals(weight)
            second = singular_values[..., 1:2].sum(-1)  # 0 for a single row, which has no second one
            per_layer.append(second / singular_values[..., 0])
        per_task = torch.stack(per_layer, -1).numpy()
        per_task[has_collapsed(task), -1] = 0
        return per_task

    measured = stack([ratios(task) for task in run.tasks])
    zero = sum(int(has_collapsed(task).sum()) for task in run.tasks)
    parts = [f"layer {k}" for k in range(1, run.job.network.depth)]
    return Measured(
        measured,
        np.full_like(measured, tolerance(run)),
        parts,
        _not_stationary(run),
        f"{zero} networks collapsed to zero" if zero else "",
        "the matrices start with rank one, which training keeps" if _starts_with_rank_one(run) else "",
    )


def _starts_with_rank_one(run: Run) -> bool:
    """Whether the matrices at the start have rank one and lie along each other: ‖W_K … W_1‖ = Π_k ‖W_k‖_F.

    Every gradient of such a linear network lies along its matrices, so that they keep their rank.
    """
    ratios = []
    for task in run.tasks:
        start = [weight[:, 0] for weight in task.weights]
        product, norms = start[0], frobenius_norm(start[0])
        for weight in start[1:]:
            product, norms = weight @ product, norms * frobenius_norm(weight)
        ratios.append(frobenius_norm(product) / norms)
    return bool((torch.cat(ratios) - 1).abs().max() <= RANK_ONE)


def deviation_from_lemma_3(task: TaskNetworks) -> np.ndarray:
    """|‖W_k‖_F² / (p^(K-k) B²) - 1| with the B of Lemma 3, (seed, step, layer)."""
    network = task.job.network
    degrees = network.power ** np.arange(network.depth - 1, -1, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(task.squared_norms / (degrees * task.squared_bound[..., None]) - 1)


def _norms_move(run: Run) -> str:
    """Why the norms are not at rest, or an empty text.

    Lemma 3 needs only homogeneity and norms at rest, so a network with kinks can meet it without being stationary.
    """
    if run.weight_decay == 0 or run.job.network.smooth:
        return _not_stationary(run)
    moved = max(
        float(np.abs(norms[:, -2] / norms[:, -1] - 1).max(initial=0))
        for norms in (task.squared_norms[~has_collapsed(task)] for task in run.tasks)
    )
    return "" if moved <= RESTING else f"the norms still move, by {moved:.2g} between the last two kept steps"


def _implied(run: Run, statement: str) -> str:
    """That a statement follows from what its row assumes, for a smooth network, or an empty text."""
    if not run.job.network.smooth:
        return ""
    return f"at a stationary point of a homogeneous smooth network {statement} follows by algebra"


def norm_preservation(run: Run) -> Measured:
    """Relative deviation of every layer's squared norm from p^(K-k) B², a part for each layer (Lemma 3)."""
    measured = stack([deviation_from_lemma_3(task) for task in run.tasks])
    parts = [f"layer {k}" for k in range(1, run.job.network.depth + 1)]
    measured, notes = without_collapsed(run, measured)
    if not run.job.network.smooth and not all(task.stationary for task in run.tasks):
        notes.append("the weights are not stationary, but Lemma 3 needs only norms at rest")
    allowed = np.full_like(measured, tolerance(run))
    trivial = _implied(run, "Lemma 3")
    return Measured(measured, allowed, parts, _norms_move(run), "; ".join(notes), trivial)


def low_rank_eq2(run: Run) -> Measured:
    """(1/K) Σ_k ‖W_k‖_2/‖W_k‖_F, and its lower bound max_i (|f(x_i)|/‖x_i‖)^(1/K) / B (Lemma 4, Eq. 2)."""
    depth = run.job.network.depth
    measured, bound = [], []
    for task in run.tasks:
        inverse_ratios = [spectral_norm(weight) / frobenius_norm(weight) for weight in task.weights]
        measured.append(torch.stack(inverse_ratios).mean(0).numpy())
        scaled = task.margins.abs() / task.inputs.norm(dim=-1).unsqueeze(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound.append(scaled.amax(-1).numpy() ** (1 / depth) / np.sqrt(task.squared_bound))
    known, notes = without_collapsed(run, stack(measured))
    rank_one = np.isclose(known[:, :, -1], 1, rtol=0, atol=RANK_ONE).all()
    trivial = "every matrix has rank one, so that the left side is 1" if rank_one else _implied(run, "Eq. 2")
    return Measured(known, stack(bound), unmet=_norms_move(run), note="; ".join(notes), trivial=trivial)


def low_rank_eq3(run: Run) -> Measured:
    """The largest ‖W_k‖_F², and its bound mean_i(ℓ_i |z_i|) / λ (Lemma 4, Eq. 3)."""
    if run.weight_decay == 0:
        nothing = stack([task.residual * np.nan for task in run.tasks])
        return Measured(nothing, nothing, unmet=NO_DECAY, trivial=NO_DECAY)
    loss = LOSSES[run.job.training.loss]
    measured = [task.squared_norms.max(-1) for task in run.tasks]
    bound = [
        (loss(task.margins) * task.margins.abs()).mean(-1).numpy() / run.weight_decay for task in run.tasks
    ]
    known, notes = without_collapsed(run, stack(measured))
    trivial = _implied(run, "Eq. 3")
    return Measured(known, stack(bound), unmet=_norms_move(run), note="; ".join(notes), trivial=trivial)


def is_full_batch(job: ClaimsJob) -> bool:
    """Whether all layers are trained without minibatches, so that training can reach a stationary point."""
    return job.training.optimiser in ("gd", "gf") and not job.network.fixed_outer_layer


def _is_of_degree_one(job: ClaimsJob) -> bool:
    return is_full_batch(job) and job.network.power == 1


STATIONARY_CLAIMS = [
    Claim(
        name="rank_one",
        brief="deep linear: every matrix has rank one",
        statement=r"At a stationary point of a deep linear network $\sigma_2/\sigma_1 = 0$: rank one",
        source="Lemma 2",
        assumptions="linear network, stationary point",
        kind="equality",
        when="last step",
        applies=lambda job: (
            is_full_batch(job) and job.network.activation == "linear" and job.network.depth > 1
        ),
        measure=rank_one,
    ),
    Claim(
        name="norm_preservation",
        brief="‖W_k‖_F² = p^(K-k) B²",
        statement=r"At a stationary point $\|W_k\|_F^2 = p^{K-k} B^2$ with"
        r" $B^2 = \frac{1}{\lambda} \mathrm{mean}_i(-\ell'(z_i) z_i)$",
        source="Lemma 3; the factors for ReLU^p are ours",
        assumptions="homogeneous network, norms at rest",
        kind="equality",
        when="last step",
        applies=is_full_batch,
        measure=norm_preservation,
    ),
    Claim(
        name="low_rank_eq2",
        brief="average of ‖W_k‖₂/‖W_k‖_F bounded below",
        statement=r"$\frac{1}{K} \sum_k \|W_k\|_2/\|W_k\|_F \ge \max_i (|f(x_i)|/\|x_i\|)^{1/K} / B$",
        source="Lemma 4, Eq. 2",
        assumptions="network of degree one in each layer, Lemma 3",
        kind="lower",
        when="last step",
        applies=_is_of_degree_one,
        measure=low_rank_eq2,
    ),
    Claim(
        name="low_rank_eq3",
        brief="B² ≤ mean(ℓ·abs(z))/λ, logistic and exponential loss",
        statement=r"$B^2 \le \frac{1}{\lambda} \mathrm{mean}_i(\ell_i |z_i|)$, $B^2 = \max_k \|W_k\|_F^2$",
        source="Lemma 4, Eq. 3",
        assumptions="logistic or exponential loss, network of degree one in each layer, Lemma 3",
        kind="upper",
        when="last step",
        applies=_is_of_degree_one,
        measure=low_rank_eq3,
    ),
]
