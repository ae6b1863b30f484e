"""Claims about the outputs of one task's network on another task's inputs, under gradient descent."""

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

IDENTITY = 1e-10
"""Relative deviation up to which the identity of the first layer holds."""
NO_OVERLAP = 1e-12
"""An overlap ε below this counts as 0."""


def shrinkage(task: TaskNetworks) -> np.ndarray:
    """(1 - ηλ)^T, the factor by which weight decay alone shrinks W_1 in T steps, (seed, step)."""
    return (1 - task.job.training.step_size * task.weight_decay) ** task.steps


def shrinkage_sum(task: TaskNetworks) -> np.ndarray:
    """η Σ_{t<T} (1-ηλ)^t = (1 - (1-ηλ)^T) / λ, which is ηT at λ = 0, (seed, step)."""
    if task.weight_decay == 0:
        return task.job.training.step_size * task.steps
    return (1 - shrinkage(task)) / task.weight_decay


def worst_sample(measured: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides at the sample with the least slack, (seed, step, sample) to (seed, step)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(measured == 0, 0, measured / bound)
    worst = ratio.argmax(-1)[..., None]
    return np.take_along_axis(measured, worst, -1)[..., 0], np.take_along_axis(bound, worst, -1)[..., 0]


def at_worst_samples(run: Run, sides: list[tuple[np.ndarray, np.ndarray]]) -> Measured:
    """Both sides at the sample with the least slack.

    The bounds take 1-ηλ for a factor of shrinking, which it is from 0 to 1 only.

    Args:
        run: Its η and λ.
        sides: (measured, bound) of each task, both (seed, step, sample).
    """
    measured, bound = zip(*(worst_sample(*side) for side in sides), strict=True)
    product = run.job.training.step_size * run.weight_decay
    unmet = f"ηλ = {product:.3g} is above 1" if product > 1 else ""
    return Measured(np.stack(measured)[..., None], np.stack(bound)[..., None], unmet=unmet)


def first_layer_on(other: TaskNetworks, inputs: Tensor) -> np.ndarray:
    """‖W'_1 x‖ with the first layer of ``other``, for inputs (seed, sample, d): (seed, step, sample)."""
    return (inputs.unsqueeze(1) @ other.weights[0].mT).norm(dim=-1).numpy()


def first_layer_bound(run: Run, other: TaskNetworks, inputs: Tensor, outer: np.ndarray | float) -> np.ndarray:
    """(1-ηλ)^T ‖W'_0 x‖ + ε ‖a‖ (1-(1-ηλ)^T)/λ, (seed, step, sample), of Lemma 5; ``outer`` is ‖a‖, (seed)."""
    start = first_layer_on(other, inputs)[:, :1]
    growth = (run.overlap * outer)[:, None] * shrinkage_sum(other)
    return shrinkage(other)[..., None] * start + growth[..., None]


def linear_interference(run: Run) -> Measured:
    """|⟨w'_T, x⟩| for the inputs x of the task that w' was not trained on, and its bound."""
    return at_worst_samples(
        run,
        [
            (first_layer_on(other, own.inputs), first_layer_bound(run, other, own.inputs, 1.0))
            for own, other in run.pairs
        ],
    )


def _outer_norm(task: TaskNetworks) -> np.ndarray:
    """‖a‖ of the fixed outer layer, (seed)."""
    return task.weights[1][:, 0].norm(dim=(-2, -1)).numpy()


def lemma5(run: Run) -> Measured:
    """‖W'_T x‖ for the inputs x of the task that W' was not trained on, and its bound (Lemma 5)."""
    return at_worst_samples(
        run,
        [
            (first_layer_on(other, own.inputs), first_layer_bound(run, other, own.inputs, _outer_norm(other)))
            for own, other in run.pairs
        ],
    )


def corollary1(run: Run) -> Measured:
    """|f_{W+W'}(x) - f_W(x)| for the inputs x of the own task, and its bound (Corollary 1)."""
    sides = []
    for own, other in run.pairs:
        x = own.inputs.unsqueeze(1)
        own_layer, outer = x @ own.weights[0].mT, own.weights[1].mT
        merged_layer = own_layer + x @ other.weights[0].mT
        gap = ((merged_layer.relu() - own_layer.relu()) @ outer).squeeze(-1).abs().numpy()
        norm = _outer_norm(own)
        bound = norm[:, None, None] * first_layer_bound(run, other, own.inputs, norm)
        sides.append((gap, bound))
    return at_worst_samples(run, sides)


def predicted_first_layer(task: TaskNetworks, inputs: Tensor) -> Tensor:
    """(1-ηλ)^T W_1(0) x + Σ_i A_i ⟨x_i, x⟩ at the last step, (seed, sample, d_1), without the trained W_1.

    The coefficients A of the training inputs x_i are summed up along training (see ``train/gd.py``).
    """
    assert task.coefficients is not None
    start = inputs @ task.weights[0][:, 0].mT
    shrunk = torch.from_numpy(shrinkage(task)[:, -1])[:, None, None] * start
    return shrunk + (inputs @ task.inputs.mT) @ torch.from_numpy(task.coefficients)


SIDES = ["measured", "predicted", "data-dependent bound", "bound by ε/λ"]
"""The measured interference, and what is known of it before merging."""


def interference(run: Run) -> np.ndarray:
    """Mean ‖W'_1 x‖ over the other task's inputs at the last step, and what is known of it before merging.

    ``predicted`` follows from the identity, with W'_1(0) and the coefficients A alone. The data-dependent bound is
    (1-ηλ)^T ‖W'_1(0) x‖ + Σ_i ‖A_i‖ |⟨x'_i, x⟩|. The bound by ε/λ is that of Lemma 5, NaN where it does not apply.

    Returns:
        Shape (task, seed, side), with the sides in the order of ``SIDES``.
    """
    values = np.full((2, len(run.seeds), len(SIDES)), np.nan)
    for t, (own, other) in enumerate(run.pairs):
        assert other.coefficients is not None
        start = first_layer_on(other, own.inputs)[:, 0]
        shrunk = shrinkage(other)[:, -1:] * start
        overlaps = (own.inputs @ other.inputs.mT).abs().numpy()
        data_bound = shrunk + (overlaps @ np.linalg.norm(other.coefficients, axis=-1)[..., None])[..., 0]
        sides = [
            first_layer_on(other, own.inputs)[:, -1],
            predicted_first_layer(other, own.inputs).norm(dim=-1).numpy(),
            data_bound,
        ]
        if _is_shallow(run.job):
            sides.append(first_layer_bound(run, other, own.inputs, _outer_norm(other))[:, -1])
        for side, value in enumerate(sides):
            values[t, :, side] = value.mean(-1)
    return values


def identity(run: Run) -> Measured:
    """Deviation of W_1(T) x from the identity on the inputs of all tasks, relative to the largest |W_1(0) x|.

    Where ε = 0, the second part is the relative deviation of W_1(T) x from (1-ηλ)^T W_1(0) x on the inputs of the
    other task.
    """
    shape = (len(run.tasks), len(run.seeds), len(run.kept), 2)
    measured, bound = np.full(shape, np.nan), np.full(shape, IDENTITY)
    orthogonal = bool((run.overlap < NO_OVERLAP).all()) if len(run.tasks) > 1 else False
    for t, task in enumerate(run.tasks):
        for other in run.tasks:
            trained = other.inputs @ task.weights[0][:, -1].mT
            start = other.inputs @ task.weights[0][:, 0].mT
            error = (trained - predicted_first_layer(task, other.inputs)).abs().amax((-2, -1))
            relative = (error / start.abs().amax((-2, -1))).numpy()
            measured[t, :, -1, 0] = np.fmax(measured[t, :, -1, 0], relative)
            if orthogonal and other is not task:
                shrunk = torch.from_numpy(shrinkage(task)[:, -1])[:, None, None] * start
                ratio = (trained - shrunk).norm(dim=(-2, -1)) / shrunk.norm(dim=(-2, -1))
                measured[t, :, -1, 1] = ratio.numpy()
    return Measured(measured, bound, ["W_1 x", "shrinkage at ε = 0"])


def _is_descent_of_two(job: ClaimsJob) -> bool:
    return job.training.optimiser == "gd" and len(job.task_names) > 1


def _is_shallow(job: ClaimsJob) -> bool:
    network = job.network
    return (
        _is_descent_of_two(job)
        and network.fixed_outer_layer
        and network.depth == 2
        and network.activation == "relu"
        and network.power == 1
        and job.training.loss == "logistic"
    )


INTERFERENCE_CLAIMS = [
    Claim(
        name="linear_interference",
        brief="linear predictor's interference",
        statement=r"$|\langle w'_T, x\rangle| \le (1-\eta\lambda)^T |\langle w'_0, x\rangle|"
        r" + \varepsilon (1-(1-\eta\lambda)^T)/\lambda$",
        source="linear predictor",
        assumptions=r"linear predictor, gradient descent, $\eta\lambda \le 1$, inputs on the unit sphere",
        kind="upper",
        when="every kept step",
        applies=lambda job: (
            _is_descent_of_two(job) and job.network.depth == 1 and job.training.loss == "logistic"
        ),
        measure=linear_interference,
    ),
    Claim(
        name="lemma5",
        brief="shallow ReLU: ‖W'_T x‖",
        statement=r"$\|W'_T x\| \le (1-\eta\lambda)^T \|W'_0 x\|"
        r" + \varepsilon \|a\| (1-(1-\eta\lambda)^T)/\lambda$",
        source="Lemma 5",
        assumptions=r"shallow ReLU network with a fixed outer layer, gradient descent, $\eta\lambda \le 1$",
        kind="upper",
        when="every kept step",
        applies=_is_shallow,
        measure=lemma5,
    ),
    Claim(
        name="corollary1",
        brief="shallow ReLU: change of the output by the sum",
        statement=r"$|f_{W+W'}(x) - f_W(x)| \le \|a\| \|W'_T x\|$, where Lemma 5 bounds $\|W'_T x\|$",
        source="Corollary 1",
        assumptions=r"shallow ReLU network with a fixed outer layer, gradient descent, $\eta\lambda \le 1$",
        kind="upper",
        when="every kept step",
        applies=_is_shallow,
        measure=corollary1,
    ),
    Claim(
        name="identity",
        brief="W₁(T)x from the inputs' coefficients, exactly",
        statement=r"$W_1(T) x = (1-\eta\lambda)^T W_1(0) x + \sum_i A_i(T) \langle x_i, x\rangle$ for every $x$;"
        r" at $\varepsilon = 0$ only the first term remains for the other task's inputs",
        source="ours",
        assumptions="gradient descent, any depth and activation",
        kind="equality",
        when="last step",
        applies=lambda job: job.training.optimiser == "gd" and job.training.finish is None,
        measure=identity,
        parts_apart=True,
    ),
]
