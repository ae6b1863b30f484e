"""Claims about stationary points: Lemmas 1 to 4."""

import numpy as np
import torch

from decaymerge.claims.curvature import minimum_norm_residual, sharpness
from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.gradient import relative_residual
from decaymerge.measure import LOSSES, frobenius_norm, spectral_norm
from decaymerge.workflow.jobs import ClaimsJob

KINKED_FLOW = 5e-3
"""The same for a flow that slides along kinks, which a solver follows to about 1e-4 a step."""
NO_DECAY = "λ = 0, where it is undefined"
STATIONARY = {"linear": 1e-6, "relu^p": 1e-4, "relu": 1e-3}
"""Relative tolerance of an equality at a stationary point: a ReLU network only comes near one."""
RESTING = 1e-2
"""Change of a squared norm between the last two kept steps up to which it is at rest."""
LEMMA_3 = 1e-2
"""Deviation from Lemma 3 up to which its consequences are held against a run."""
COLLAPSED = 1e-6
"""‖θ‖ relative to where it began, below which a network counts as zero."""


def tolerance(run: Run) -> float:
    """Of equalities for this kind of network."""
    network = run.job.network
    if run.job.training.optimiser == "gf" and not network.smooth:
        return KINKED_FLOW
    return STATIONARY[network.activation if network.power == 1 else "relu^p"]


def _stack(values: list[np.ndarray]) -> np.ndarray:
    """(task, seed, step, part) from (seed, step[, part]) of each task."""
    stacked = np.stack(values)
    return stacked if stacked.ndim == 4 else stacked[..., None]


def _collapsed(task: TaskNetworks) -> np.ndarray:
    norms = np.sqrt(task.squared_norms.sum(-1))
    return norms[:, -1] < COLLAPSED * norms[:, 0]


def _without_collapsed(run: Run, measured: np.ndarray, note: str = "") -> tuple[np.ndarray, str]:
    """NaN for networks that have gone to zero, which is a stationary point of its own, and a note of how many."""
    gone = np.stack([_collapsed(task) for task in run.tasks])
    counted = f"{gone.sum()} of {gone.size} networks collapsed to zero and are left out" if gone.any() else ""
    return np.where(gone[:, :, None, None], np.nan, measured), "; ".join(filter(None, [counted, note]))


def alignment(run: Run) -> Measured:
    """‖∇L + λθ‖ / (λ‖θ‖), and beside it, for networks with kinks, that of the minimum-norm subgradient."""
    network, training = run.job.network, run.job.training
    plain = _stack([task.residual for task in run.tasks])
    allowed = np.full_like(plain, tolerance(run))
    if run.weight_decay == 0:
        return Measured(plain * np.nan, allowed, unmet=NO_DECAY)
    plain, gone = _without_collapsed(run, plain)
    cosine = min(float(_cosine(task)[~_collapsed(task)].min(initial=1)) for task in run.tasks)
    note = f"{gone}; " if gone else ""
    note += f"least cosine of θ and -∇L {cosine:.6g}; residual layer by layer at most {_by_layer(run)}"
    unmet = ""
    if training.optimiser == "gd":
        scaled = training.step_size * max(float(sharpness(task).max()) for task in run.tasks)
        note += f"; ηβ = {scaled:.3g} at the last step, by power iteration"
        unmet = "" if scaled < 2 else f"ηβ = {scaled:.3g} is not below 2"
    if not network.smooth:
        least = np.full_like(plain, np.nan)
        least[:, :, -1, 0] = [minimum_norm_residual(task) for task in run.tasks]
        both = np.concatenate([plain, least], -1)
        note += (
            f"; worst residual {np.nanmax(plain[:, :, -1]):.3g} plain and {np.nanmax(least):.3g} for the"
            " minimum-norm subgradient"
        )
        unmet = "a ReLU network is not smooth: samples sit on its kinks"
        return Measured(both, np.concatenate([allowed] * 2, -1), ["plain", "minimum norm"], unmet, note)
    if not unmet and (plain[:, :, -1] > allowed[:, :, -1]).any():
        ended = not all(task.stationary for task in run.tasks)
        unmet = "the run ended at its last step before it was stationary" if ended else ""
    return Measured(plain, allowed, unmet=unmet, note=note)


def _cosine(task: TaskNetworks) -> np.ndarray:
    weights = torch.cat([weight[:, -1].flatten(1) for weight in task.trained_weights], -1)
    gradients = torch.cat([gradient[:, -1].flatten(1) for gradient in task.gradients], -1)
    return torch.cosine_similarity(weights, -gradients, dim=-1).numpy()


def _by_layer(run: Run) -> str:
    worst = []
    for k in range(run.job.network.trained_layers):
        residuals = [
            relative_residual([task.trained_weights[k][:, -1]], [task.gradients[k][:, -1]], run.weight_decay)
            for task in run.tasks
        ]
        worst.append(f"{float(torch.stack(residuals).max()):.2g}")
    return ", ".join(worst)


def _not_stationary(run: Run) -> str:
    if run.weight_decay == 0:
        return NO_DECAY
    worst = max(
        float(np.where(_collapsed(task), 0, np.nan_to_num(task.residual[:, -1], nan=np.inf)).max())
        for task in run.tasks
    )
    return "" if worst <= tolerance(run) else f"not at a stationary point: the residual is {worst:.2g}"


def rank_one(run: Run) -> Measured:
    """σ_2/σ_1 of each hidden layer's matrix; 0 for a network that has collapsed to zero."""

    def ratios(task: TaskNetworks) -> np.ndarray:
        values = [torch.linalg.svdvals(weight) for weight in task.weights[:-1]]
        # A single row has no second singular value.
        shares = [value[..., 1:2].sum(-1) / value[..., 0] for value in values]
        found = torch.stack(shares, -1).numpy()
        found[_collapsed(task), -1] = 0
        return found

    measured = _stack([ratios(task) for task in run.tasks])
    collapsed = sum(int(_collapsed(task).sum()) for task in run.tasks)
    notes = [f"{collapsed} networks collapsed to zero"] if collapsed else []
    if run.job.network.initialisation == "balanced":
        notes.append("a balanced start with a scalar output has rank one already")
    parts = [f"layer {k}" for k in range(1, run.job.network.depth)]
    return Measured(
        measured, np.full_like(measured, tolerance(run)), parts, _not_stationary(run), "; ".join(notes)
    )


def deviation_from_lemma_3(task: TaskNetworks) -> np.ndarray:
    """|‖W_k‖_F² / (p^(K-k) B²) - 1|, (seed, step, layer)."""
    network = task.job.network
    degrees = network.power ** np.arange(network.depth - 1, -1, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(task.squared_norms / (degrees * task.squared_bound[..., None]) - 1)


def _norms_move(run: Run) -> str:
    """Lemma 3 needs homogeneity alone, and norms at rest: a network with kinks can meet it without alignment."""
    if run.weight_decay == 0 or run.job.network.smooth:
        return _not_stationary(run)
    moved = max(
        float(np.abs(task.squared_norms[:, -2] / task.squared_norms[:, -1] - 1).max()) for task in run.tasks
    )
    return (
        ""
        if moved <= RESTING
        else f"the norms still move: by {moved:.2g} since the kept step before the last"
    )


def norm_preservation(run: Run) -> Measured:
    """Deviation of every layer's squared norm from p^(K-k) B²."""
    measured = _stack([deviation_from_lemma_3(task) for task in run.tasks])
    parts = [f"layer {k}" for k in range(1, run.job.network.depth + 1)]
    settled = all(task.stationary for task in run.tasks)
    note = "" if settled or run.job.network.smooth else "stationary in its norms, not in its weights"
    measured, note = _without_collapsed(run, measured, note)
    return Measured(measured, np.full_like(measured, tolerance(run)), parts, _norms_move(run), note)


def _lemma_3_unmet(run: Run) -> str:
    if run.weight_decay == 0:
        return NO_DECAY
    worst = max(
        float(deviation_from_lemma_3(task)[~_collapsed(task), -1].max(initial=0)) for task in run.tasks
    )
    return "" if worst <= LEMMA_3 else f"Lemma 3 is off by {worst:.2g}: not at a stationary point"


def low_rank_eq2(run: Run) -> Measured:
    """(1/K) Σ_k ‖W_k‖_2/‖W_k‖_F against (|f(x_i)|/‖x_i‖)^(1/K) / B for the best i."""
    depth = run.job.network.depth
    measured, bound = [], []
    for task in run.tasks:
        inverse = [spectral_norm(weight) / frobenius_norm(weight) for weight in task.weights]
        measured.append(torch.stack(inverse).mean(0).numpy())
        scaled = task.margins.abs() / task.inputs.norm(dim=-1).unsqueeze(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound.append(scaled.amax(-1).numpy() ** (1 / depth) / np.sqrt(task.squared_bound))
    sides, note = _without_collapsed(run, _stack(measured))
    return Measured(sides, _stack(bound), unmet=_lemma_3_unmet(run), note=note)


def low_rank_eq3(run: Run) -> Measured:
    """The largest ‖W_k‖_F² against mean_i(ℓ_i |z_i|) / λ."""
    if run.weight_decay == 0:
        nothing = _stack([task.residual * np.nan for task in run.tasks])
        return Measured(nothing, nothing, unmet=NO_DECAY)
    value = LOSSES[run.job.training.loss]
    measured = [task.squared_norms.max(-1) for task in run.tasks]
    bound = [
        (value(task.margins) * task.margins.abs()).mean(-1).numpy() / run.weight_decay for task in run.tasks
    ]
    sides, note = _without_collapsed(run, _stack(measured))
    return Measured(sides, _stack(bound), unmet=_lemma_3_unmet(run), note=note)


def _to_the_end(job: ClaimsJob) -> bool:
    return job.training.optimiser in ("gd", "gf") and not job.network.fixed_outer_layer


def _of_degree_one(job: ClaimsJob) -> bool:
    return _to_the_end(job) and job.network.power == 1


STATIONARY_CLAIMS = [
    Claim(
        name="alignment",
        statement=r"At a stationary point $\nabla L(\theta) = -\lambda\theta$: weights and gradient are aligned",
        source="Lemma 1",
        assumptions=r"smooth network, $\eta < 2/\beta$, run to a stationary point",
        kind="equality",
        when="last step",
        applies=_to_the_end,
        measure=alignment,
        tried=r"ReLU networks with $\eta$ from 0.1 to 0.5 and up to 100 000 steps: the plain residual stalls"
        " between 0.13 and 0.31, since samples sit on kinks; the minimum-norm subgradient is shown beside it.",
        parts_apart=True,
    ),
    Claim(
        name="rank_one",
        statement=r"At a stationary point of a deep linear network $\sigma_2/\sigma_1 = 0$: rank one",
        source="Lemma 2",
        assumptions="linear network, stationary point",
        kind="equality",
        when="last step",
        applies=lambda job: _to_the_end(job) and job.network.activation == "linear" and job.network.depth > 1,
        measure=rank_one,
    ),
    Claim(
        name="norm_preservation",
        statement=r"At a stationary point $\|W_k\|_F^2 = p^{K-k} B^2$ with"
        r" $B^2 = \frac{1}{\lambda} \mathrm{mean}_i(-\ell'(z_i) z_i)$",
        source="Lemma 3; the factors for ReLU^p are ours",
        assumptions="homogeneous network, norms at rest",
        kind="equality",
        when="last step",
        applies=_to_the_end,
        measure=norm_preservation,
    ),
    Claim(
        name="low_rank_eq2",
        statement=r"$\frac{1}{K} \sum_k \|W_k\|_2/\|W_k\|_F \ge \max_i (|f(x_i)|/\|x_i\|)^{1/K} / B$",
        source="Lemma 4, Eq. 2",
        assumptions="network of degree one in each layer, Lemma 3",
        kind="lower",
        when="last step",
        applies=_of_degree_one,
        measure=low_rank_eq2,
    ),
    Claim(
        name="low_rank_eq3",
        statement=r"$B^2 \le \frac{1}{\lambda} \mathrm{mean}_i(\ell_i |z_i|)$, $B^2 = \max_k \|W_k\|_F^2$",
        source="Lemma 4, Eq. 3",
        assumptions="logistic or exponential loss, network of degree one in each layer, Lemma 3",
        kind="upper",
        when="last step",
        applies=_of_degree_one,
        measure=low_rank_eq3,
    ),
]
