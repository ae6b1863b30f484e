"""Claims about gradient flow: the end-to-end vector of deep linear networks, and Lemma 7 for any network."""

from functools import lru_cache

import numpy as np
import torch

from decaymerge.claims.interference import worst_sample
from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

DYNAMICS = 1e-6
SOLVER_TOLERANCE = 1e-12


def end_to_end(task: TaskNetworks) -> np.ndarray:
    """End-to-end vector w = (W_K … W_1)ᵀ of the trained layers, (seed, step, d)."""
    product = task.weights[0]
    for weight in task.weights[1:]:
        product = weight @ product
    return product.squeeze(-2).numpy()


class Trajectory:
    """Eq. 4 solved for w alone from w(0), with the integrals that the bounds need, all (seed, step).

    Attributes:
        w: End-to-end vector, (seed, step, d).
        decay: e^{-A}, A(t) = ∫ a, a = Kλ + (K-1) ‖w‖^(-2/K) ⟨w, ∇L(w)⟩.
        growth: ∫ e^{-(A(t)-A(s))} ‖w_s‖^(2-2/K) mean|ℓ'| ds.
        dissipation: ∫ ‖w‖^(2-2/K) ‖∇F‖², F = L + (λK/2) ‖w‖^(2/K).
        objective: F.
    """

    def __init__(self, task: TaskNetworks, times: np.ndarray) -> None:
        from scipy.integrate import solve_ivp  # half a second, that other claims need not wait for

        self.depth, self.weight_decay = task.job.network.depth, task.weight_decay
        self.signed = (task.labels.unsqueeze(-1) * task.inputs).numpy()  # y_i x_i, (seed, sample, d)
        self.logistic = task.job.training.loss == "logistic"
        w = end_to_end(task)[:, 0]
        self.shape = (len(w), w.shape[1] + 3)
        start = np.concatenate([w, np.zeros((len(w), 3))], axis=1).ravel()
        tolerance = {"rtol": SOLVER_TOLERANCE, "atol": SOLVER_TOLERANCE}
        solved = solve_ivp(self.velocity, (0, times[-1]), start, method="DOP853", t_eval=times, **tolerance)
        if not solved.success:
            raise ArithmeticError(f"Eq. 4 could not be solved: {solved.message}")
        state = solved.y.T.reshape(len(times), *self.shape).swapaxes(0, 1)
        self.w, self.decay, self.growth = state[..., :-3], np.exp(-state[..., -3]), state[..., -2]
        self.dissipation = state[..., -1]
        margins = self.w @ self.signed.swapaxes(-1, -2)
        loss = (np.logaddexp(0, -margins) if self.logistic else np.exp(-margins)).mean(-1)
        norm = np.linalg.norm(self.w, axis=-1)
        self.objective = loss + self.weight_decay * self.depth / 2 * norm ** (2 / self.depth)

    def velocity(self, _: float, flat: np.ndarray) -> np.ndarray:
        """Time derivative of (w, A, growth, dissipation) of all members."""
        depth, decay = self.depth, self.weight_decay
        state = flat.reshape(self.shape)
        w, growth = state[:, :-3], state[:, -2:-1]
        margins = np.einsum("snd,sd->sn", self.signed, w)
        slopes = 1 / (1 + np.exp(margins)) if self.logistic else np.exp(-margins)  # -ℓ'(z_i)
        gradient = -np.einsum("snd,sn->sd", self.signed, slopes) / slopes.shape[1]
        length = np.linalg.norm(w, axis=-1, keepdims=True)
        unit, speed = w / length, length ** (2 - 2 / depth)
        radial = (unit * gradient).sum(-1, keepdims=True)  # ⟨ŵ, ∇L⟩
        rate = depth * decay + (depth - 1) * length ** (1 - 2 / depth) * radial
        total = gradient + decay * length ** (2 / depth - 2) * w  # ∇F
        parts = [
            -speed * (gradient + (depth - 1) * unit * radial) - depth * decay * w,
            rate,
            -rate * growth + speed * slopes.mean(-1, keepdims=True),
            speed * np.square(total).sum(-1, keepdims=True),
        ]
        return np.concatenate(parts, axis=1).ravel()


@lru_cache(1)  # of one run: it and its networks go when the next λ comes
def trajectories(run: Run) -> list[Trajectory]:
    """Of each task; several claims need them."""
    return [Trajectory(task, run.times) for task in run.tasks]


def theorem4(run: Run) -> Measured:
    """‖w(t) - W_K … W_1 (t)‖ relative to the largest ‖w‖ of the run."""
    errors = []
    for task, solved in zip(run.tasks, trajectories(run), strict=True):
        difference = np.linalg.norm(solved.w - end_to_end(task), axis=-1)
        errors.append(difference / np.linalg.norm(solved.w, axis=-1).max(-1, keepdims=True))
    measured = np.stack(errors)[..., None]
    return Measured(measured, np.full_like(measured, DYNAMICS))


def theorem1(run: Run) -> Measured:
    """|⟨w'_t, x⟩| for x of the own task; beside it, without a bound, the largest gap of the layer-wise sum."""
    measured, bound = [], []
    for (own, other), solved in zip(run.pairs, reversed(trajectories(run)[:2]), strict=True):
        inputs = own.inputs.numpy()
        interference = np.abs(np.einsum("std,snd->stn", end_to_end(other), inputs))
        start = interference[:, :1]
        limit = solved.decay[..., None] * start + (run.overlap[:, None] * solved.growth)[..., None]
        limit += DYNAMICS * np.linalg.norm(solved.w, axis=-1).max()  # what w is known to, see Theorem 4
        gap = np.abs(_layer_sum_gap(own, other))
        worst, at_worst = worst_sample(interference, limit)
        measured.append(np.stack([worst, gap.max(-1)], -1))
        bound.append(np.stack([at_worst, np.full_like(at_worst, np.nan)], -1))
    vectors, layers = (max(float(values[:, -1, part].max()) for values in measured) for part in (0, 1))
    note = (
        f"worst at the last step: {vectors:.3g} for w + w', {layers:.3g} for the sum layer by layer, which the"
        " theorem does not cover"
    )
    return Measured(np.stack(measured), np.stack(bound), ["w + w'", "sum of layers"], note=note)


def _layer_sum_gap(own: TaskNetworks, other: TaskNetworks) -> np.ndarray:
    """f_{θ+θ'}(x) - f_θ(x) on the own inputs, (seed, step, sample)."""
    summed = own.inputs.unsqueeze(1).mT
    alone = summed
    for mine, theirs in zip(own.weights, other.weights, strict=True):
        summed, alone = (mine + theirs) @ summed, mine @ alone
    return (summed - alone).squeeze(-2).numpy()


def lemma6(run: Run) -> Measured:
    """∫ ‖w‖^(2-2/K) ‖∇F‖² against F(0) - F(t)."""
    solved = trajectories(run)
    measured = np.stack([one.dissipation for one in solved])[..., None]
    bound = np.stack([one.objective[:, :1] - one.objective for one in solved])[..., None]
    return Measured(measured, bound)


def lemma7(run: Run) -> Measured:
    """min_{s≤t} ‖∇L_λ(θ_s)‖ over the kept times, against √((L_λ(0) - L_λ(t)) / t)."""
    measured, bound = [], []
    for task in run.tasks:
        squares = [
            (gradient + run.weight_decay * weight).square().sum((-2, -1))
            for gradient, weight in zip(task.gradients, task.trained_weights, strict=True)
        ]
        norm = torch.stack(squares).sum(0).sqrt().numpy()
        measured.append(np.minimum.accumulate(norm, axis=1))
        fallen = task.regularised_loss[:, :1] - task.regularised_loss
        with np.errstate(divide="ignore", invalid="ignore"):
            bound.append(np.sqrt(np.maximum(fallen, 0) / run.times))
    return Measured(np.stack(measured)[..., None], np.stack(bound)[..., None])


def _flow(job: ClaimsJob) -> bool:
    return job.training.optimiser == "gf"


def _balanced(job: ClaimsJob) -> bool:
    return _flow(job) and job.network.initialisation == "balanced" and not job.network.fixed_outer_layer


FLOW_CLAIMS = [
    Claim(
        name="theorem4",
        statement=r"The end-to-end vector obeys $\dot w = -\|w\|^{2-2/K}(\nabla L(w) + (K-1)"
        r" \hat w \hat w^\top \nabla L(w)) - K \lambda w$",
        source="Theorem 4, Eq. 4",
        assumptions="linear network, gradient flow from a balanced start",
        kind="equality",
        when="every kept step",
        applies=_balanced,
        measure=theorem4,
    ),
    Claim(
        name="theorem1",
        statement=r"$|\langle w'_t, x\rangle| \le e^{-A(t)} |\langle w'_0, x\rangle| + \varepsilon \int_0^t"
        r" e^{-(A(t)-A(s))} \|w'_s\|^{2-2/K} \mathrm{mean}|\ell'| ds$ for the summed vectors $w + w'$",
        source="Theorems 1 and 3, trajectory form",
        assumptions="linear network, gradient flow from a balanced start, inputs on the unit sphere",
        kind="upper",
        when="every kept step",
        applies=lambda job: _balanced(job) and len(job.task_names) > 1,
        measure=theorem1,
        parts_apart=True,
    ),
    Claim(
        name="lemma6",
        statement=r"$\int_0^t \|w\|^{2-2/K} \|\nabla F\|^2 ds \le F(0) - F(t)$,"
        r" $F = L + \frac{\lambda K}{2} \|w\|^{2/K}$",
        source="Lemma 6",
        assumptions="linear network, gradient flow from a balanced start",
        kind="upper",
        when="every kept step",
        applies=_balanced,
        measure=lemma6,
    ),
    Claim(
        name="lemma7",
        statement=r"$\min_{s \le t} \|\nabla L_\lambda(\theta_s)\| \le"
        r" \sqrt{(L_\lambda(\theta_0) - L_\lambda(\theta_t))/t}$",
        source="Lemma 7",
        assumptions="gradient flow",
        kind="upper",
        when="every kept step",
        applies=lambda job: _flow(job) and not job.network.fixed_outer_layer,
        measure=lemma7,
    ),
]
