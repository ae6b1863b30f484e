"""Claims about gradient flow: the end-to-end vector of deep linear networks, and Lemma 7 for any network."""

from functools import lru_cache

import numpy as np

from decaymerge import measure
from decaymerge.claims.interference import NO_OVERLAP, worst_sample
from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.stationary import has_collapsed
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

DYNAMICS = 1e-6
"""Deviation of w from Eq. 4, relative to the largest ‖w‖ of a run, up to which Theorem 4 holds. Also that of
Theorem 1 from an equality at ε = 0 (ours), as A(t) is known no better than w."""
SOLVER_TOLERANCE = 1e-12
VISIBLE = 1e-5
"""Interference, relative to its start, from which on its rate of decay is that of the flow, not of rounding."""


def end_to_end(task: TaskNetworks) -> np.ndarray:
    """End-to-end vector w = (W_K … W_1)ᵀ of the trained networks, (seed, step, d)."""
    product = task.weights[0]
    for weight in task.weights[1:]:
        product = weight @ product
    return product.squeeze(-2).numpy()


def objective(task: TaskNetworks) -> np.ndarray:
    """F = L + (λK/2) ‖w‖^(2/K) of the end-to-end vector of the trained networks, (seed, step)."""
    depth = task.job.network.depth
    norm = np.linalg.norm(end_to_end(task), axis=-1)
    loss = measure.loss(task.margins, task.job.training.loss).numpy()
    return loss + task.weight_decay * depth / 2 * norm ** (2 / depth)


class Trajectory:
    """Solution of Eq. 4, the equation of the end-to-end vector alone, and the integrals that the bounds need.

    Args:
        task: Its networks give w(0), the data and λ.
        times: Times t of the kept steps, (step).

    Attributes:
        w: End-to-end vector w(t), (seed, step, d).
        decay: e^{-A(t)} with A(t) = ∫ a, a = Kλ + (K-1) ‖w‖^(-2/K) ⟨w, ∇L(w)⟩, (seed, step).
        growth: ∫ e^{-(A(t)-A(s))} ‖w_s‖^(2-2/K) mean|ℓ'| ds, (seed, step).
        dissipation: ∫ ‖w‖^(2-2/K) ‖∇F‖² with F = L + (λK/2) ‖w‖^(2/K), (seed, step).

    Raises:
        ArithmeticError: the solver fails.
    """

    def __init__(self, task: TaskNetworks, times: np.ndarray) -> None:
        from scipy.integrate import solve_ivp  # late: it takes half a second, which other claims save

        self.depth, self.weight_decay = task.job.network.depth, task.weight_decay
        self.signed = (task.labels.unsqueeze(-1) * task.inputs).numpy()  # y_i x_i, (seed, sample, d)
        self.logistic = task.job.training.loss == "logistic"
        w = end_to_end(task)[:, 0]
        self.shape = (len(w), w.shape[1] + 3)
        start = np.concatenate([w, np.zeros((len(w), 3))], axis=1).ravel()
        tolerance = {"rtol": SOLVER_TOLERANCE, "atol": SOLVER_TOLERANCE}
        solution = solve_ivp(self.velocity, (0, times[-1]), start, method="DOP853", t_eval=times, **tolerance)
        if not solution.success:
            raise ArithmeticError(f"Eq. 4 could not be solved: {solution.message}")
        state = solution.y.T.reshape(len(times), *self.shape).swapaxes(0, 1)
        self.w, self.decay, self.growth = state[..., :-3], np.exp(-state[..., -3]), state[..., -2]
        self.dissipation = state[..., -1]

    def velocity(self, _: float, flat: np.ndarray) -> np.ndarray:
        """Time derivative of (w, A, growth, dissipation) of all seeds, (seed, d + 3) as one flat vector."""
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


@lru_cache(1)  # of one run, so that its networks are freed when the next λ comes
def trajectories(run: Run) -> list[Trajectory]:
    """The solution of Eq. 4 for each task of a run; several claims need it."""
    return [Trajectory(task, run.times) for task in run.tasks]


def theorem4(run: Run) -> Measured:
    """‖w(t) - (W_K … W_1)ᵀ(t)‖ relative to the largest ‖w‖ of the run, where w(t) solves Eq. 4 (Theorem 4)."""
    errors = []
    for task, solution in zip(run.tasks, trajectories(run), strict=True):
        difference = np.linalg.norm(solution.w - end_to_end(task), axis=-1)
        errors.append(difference / np.linalg.norm(solution.w, axis=-1).max(-1, keepdims=True))
    measured = np.stack(errors)[..., None]
    return Measured(measured, np.full_like(measured, DYNAMICS))


def theorem1(run: Run) -> Measured:
    """|⟨w'_t, x⟩| for the inputs x of the own task, and its bound (Theorems 1 and 3).

    The second part, ``sum of layers``, is the largest gap of the layer-wise sum. The theorem does not bound it.
    """
    measured, bound = [], []
    for (own, other), solution in zip(run.pairs, reversed(trajectories(run)[:2]), strict=True):
        inputs = own.inputs.numpy()
        interference = np.abs(np.einsum("std,snd->stn", end_to_end(other), inputs))
        start = interference[:, :1]
        limits = solution.decay[..., None] * start + (run.overlap[:, None] * solution.growth)[..., None]
        limits += DYNAMICS * np.linalg.norm(solution.w, axis=-1).max()  # the accuracy of w, see theorem4
        gap = np.abs(_layer_sum_gap(own, other))
        worst, limit = worst_sample(interference, limits)
        measured.append(np.stack([worst, gap.max(-1)], -1))
        bound.append(np.stack([limit, np.full_like(limit, np.nan)], -1))
    vectors, layers = (max(float(values[:, -1, part].max()) for values in measured) for part in (0, 1))
    note = (
        f"worst at the last step: {vectors:.3g} for w + w', {layers:.3g} for the sum layer by layer, which the"
        " theorem does not cover"
    )
    return Measured(np.stack(measured), np.stack(bound), ["w + w'", "sum of layers"], note=note)


def theorem1_orthogonal(run: Run) -> Measured:
    """|⟨w'_t, x⟩ - e^{-A(t)} ⟨w'_0, x⟩| for the inputs x of the own task, relative to the largest |⟨w'_0, x⟩|.

    It is Theorem 1 at ε = 0, where the bound is an equality (ours). w' is that of the networks, A is that of Eq. 4.
    """
    errors, growth, rates = [], [], []
    for (own, other), solution in zip(run.pairs, reversed(trajectories(run)[:2]), strict=True):
        interference = np.einsum("std,snd->stn", end_to_end(other), own.inputs.numpy())
        start = interference[:, :1]
        scale = np.abs(start).max(-1)
        errors.append(np.abs(interference - solution.decay[..., None] * start).max(-1) / scale)
        size = np.linalg.norm(interference, axis=-1) / np.linalg.norm(start, axis=-1)
        growth.append(size.max(-1))
        last = np.flatnonzero((size > VISIBLE).all(0))[-2:]
        rates.append(-np.diff(np.log(size[:, last]), axis=-1)[:, 0] / np.diff(run.times[last]))
    measured = np.stack(errors)[..., None]
    rate, factor = np.concatenate(rates), np.concatenate(growth)
    zero = sum(int(has_collapsed(task).sum()) for task in run.tasks)
    note = (
        f"late rate {rate.min():.4g} to {rate.max():.4g} at λ = {run.weight_decay:g}; before it decays, the"
        f" interference grows to {factor.min():.3g} to {factor.max():.3g} times its start"
        + (f"; {zero} networks collapsed to zero" if zero else "")
    )
    unmet = "" if (run.overlap < NO_OVERLAP).all() else f"the overlap is {run.overlap.max():.2g}, not 0"
    return Measured(measured, np.full_like(measured, DYNAMICS), unmet=unmet, note=note)


def _layer_sum_gap(own: TaskNetworks, other: TaskNetworks) -> np.ndarray:
    """f_{θ+θ'}(x) - f_θ(x) on the own inputs, (seed, step, sample)."""
    sum_hidden = own_hidden = own.inputs.unsqueeze(1).mT
    for own_weight, other_weight in zip(own.weights, other.weights, strict=True):
        sum_hidden, own_hidden = (own_weight + other_weight) @ sum_hidden, own_weight @ own_hidden
    return (sum_hidden - own_hidden).squeeze(-2).numpy()


def lemma6(run: Run) -> Measured:
    """∫ ‖w‖^(2-2/K) ‖∇F‖² ds along the solution of Eq. 4, and its bound F(0) - F(t) of the networks (Lemma 6)."""
    measured = np.stack([solution.dissipation for solution in trajectories(run)])[..., None]
    objectives = [objective(task) for task in run.tasks]
    bound = np.stack([values[:, :1] - values for values in objectives])[..., None]
    return Measured(measured, bound)


def lemma7(run: Run) -> Measured:
    """min_{s≤t} ‖∇L_λ(θ_s)‖ over the kept times, and its bound √((L_λ(θ_0) - L_λ(θ_t)) / t) (Lemma 7)."""
    measured, bound = [], []
    for task in run.tasks:
        measured.append(np.minimum.accumulate(np.sqrt(task.squared_gradient), axis=1))
        decrease = task.regularised_loss[:, :1] - task.regularised_loss
        with np.errstate(divide="ignore", invalid="ignore"):
            bound.append(np.sqrt(np.maximum(decrease, 0) / run.times))
    return Measured(np.stack(measured)[..., None], np.stack(bound)[..., None])


def _is_flow(job: ClaimsJob) -> bool:
    return job.training.optimiser == "gf"


def _is_balanced_flow(job: ClaimsJob) -> bool:
    return _is_flow(job) and job.network.initialisation == "balanced" and not job.network.fixed_outer_layer


FLOW_CLAIMS = [
    Claim(
        name="theorem4",
        brief="dynamics of the end-to-end vector",
        statement=r"The end-to-end vector obeys $\dot w = -\|w\|^{2-2/K}(\nabla L(w) + (K-1)"
        r" \hat w \hat w^\top \nabla L(w)) - K \lambda w$",
        source="Theorem 4, Eq. 4",
        assumptions="linear network, gradient flow from a balanced start",
        kind="equality",
        when="every kept step",
        applies=_is_balanced_flow,
        measure=theorem4,
    ),
    Claim(
        name="theorem1",
        brief="interference of the summed end-to-end vectors",
        statement=r"$|\langle w'_t, x\rangle| \le e^{-A(t)} |\langle w'_0, x\rangle| + \varepsilon \int_0^t"
        r" e^{-(A(t)-A(s))} \|w'_s\|^{2-2/K} \mathrm{mean}|\ell'| ds$ for the summed vectors $w + w'$",
        source="Theorems 1 and 3, trajectory form",
        assumptions="linear network, gradient flow from a balanced start, inputs on the unit sphere",
        kind="upper",
        when="every kept step",
        applies=lambda job: _is_balanced_flow(job) and len(job.task_names) > 1,
        measure=theorem1,
        parts_apart=True,
    ),
    Claim(
        name="theorem1_orthogonal",
        brief="Theorem 1 is an equality at ε = 0",
        statement=r"At $\varepsilon = 0$, $\langle w'_t, x\rangle = e^{-A(t)} \langle w'_0, x\rangle$ for the"
        r" inputs $x$ of the other task",
        source="ours, after Theorem 1",
        assumptions=r"linear network, gradient flow from a balanced start, $\varepsilon = 0$",
        kind="equality",
        when="every kept step",
        applies=lambda job: _is_balanced_flow(job) and job.orthogonal_inputs,
        measure=theorem1_orthogonal,
    ),
    Claim(
        name="lemma6",
        brief="dissipation along the flow",
        statement=r"$\int_0^t \|w\|^{2-2/K} \|\nabla F\|^2 ds \le F(0) - F(t)$,"
        r" $F = L + \frac{\lambda K}{2} \|w\|^{2/K}$",
        source="Lemma 6",
        assumptions="linear network, gradient flow from a balanced start",
        kind="upper",
        when="every kept step",
        applies=_is_balanced_flow,
        measure=lemma6,
    ),
    Claim(
        name="lemma7",
        brief="least gradient along the flow",
        statement=r"$\min_{s \le t} \|\nabla L_\lambda(\theta_s)\| \le"
        r" \sqrt{(L_\lambda(\theta_0) - L_\lambda(\theta_t))/t}$",
        source="Lemma 7",
        assumptions="gradient flow",
        kind="upper",
        when="every kept step",
        applies=lambda job: _is_flow(job) and not job.network.fixed_outer_layer,
        measure=lemma7,
    ),
]
