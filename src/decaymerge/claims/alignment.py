"""Lemma 1: weights and gradient are aligned at a stationary point, and gradient descent comes near one."""

from functools import lru_cache

import numpy as np
import torch

from decaymerge.claims.curvature import minimum_norm_residual, sharpness
from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.stationary import (
    NO_DECAY,
    has_collapsed,
    is_full_batch,
    stack,
    tolerance,
    without_collapsed,
)
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.gradient import relative_residual
from decaymerge.workflow.jobs import ClaimsJob

FALLING = 0.99
"""Ratio of a residual to that at the kept step before, up to which it falls (ours)."""
FALLING_STEPS = 3
"""Number of last kept steps over which a residual must fall to count as falling at the end (ours)."""


@lru_cache(1)  # of one run, so that its networks are freed when the next λ comes
def sharpnesses(run: Run) -> list[np.ndarray]:
    """The sharpness of L_λ at the kept steps for each task of a run, (seed, step); two claims need it."""
    return [sharpness(task) for task in run.tasks]


def alignment(run: Run) -> Measured:
    """‖∇L + λθ‖ / (λ‖θ‖), which is 0 at a stationary point (Lemma 1).

    A smooth network that misses the tolerance has an unmet assumption only where it is on its way to a stationary
    point: where its residual falls by 1% or more at each of the last three kept steps. Otherwise more steps would
    not help, and the lemma is not supported. A network with kinks has a second part (ours): the same with the
    subgradient of least norm, at the last step.
    """
    network, training = run.job.network, run.job.training
    plain = stack([task.residual for task in run.tasks])
    allowed = np.full_like(plain, tolerance(run))
    if run.weight_decay == 0:
        return Measured(plain * np.nan, allowed, unmet=NO_DECAY, trivial=NO_DECAY)
    plain, notes = without_collapsed(run, plain)
    cosine = min(float(_cosine(task)[~has_collapsed(task)].min(initial=1)) for task in run.tasks)
    notes.append(f"least cosine of θ and -∇L {cosine:.6g}")
    notes.append(f"residual layer by layer at most {_residual_by_layer(run)}")
    step_too_large = ""
    if training.optimiser == "gd":
        product = training.step_size * max(float(values[:, -1].max()) for values in sharpnesses(run))
        notes.append(f"ηβ = {product:.3g} at the last step, by Lanczos")
        step_too_large = "" if product < 2 else f"ηβ = {product:.3g} is not below 2"
    if network.smooth:
        unmet = step_too_large or _still_falling(plain, allowed)
        return Measured(plain, allowed, unmet=unmet, note="; ".join(notes))
    least = np.full_like(plain, np.nan)
    least[:, :, -1, 0] = [minimum_norm_residual(task) for task in run.tasks]
    worst, worst_least = np.nanmax(plain[:, :, -1]), np.nanmax(least)
    notes.append(f"worst residual {worst:.3g} plain and {worst_least:.3g} for the minimum-norm subgradient")
    not_smooth = "a ReLU network is not smooth: samples may sit on its kinks"
    return Measured(
        np.concatenate([plain, least], -1),
        np.concatenate([allowed, allowed], -1),
        parts=["plain", "minimum norm"],
        unmet=not_smooth,
        note="; ".join(notes),
        trivial=f"{not_smooth}, whatever is measured",
    )


def _still_falling(residual: np.ndarray, allowed: np.ndarray) -> str:
    """That the residuals above their tolerance all fall at the end, in words, or an empty text.

    Both arguments have the shape (task, seed, step, part).
    """
    missed = np.asarray(residual[:, :, -1] > allowed[:, :, -1])
    last = residual[:, :, -FALLING_STEPS - 1 :]
    falls = np.all(last[:, :, 1:] <= FALLING * last[:, :, :-1], axis=2)
    if not missed.any() or not falls[missed].all():
        return ""
    return "not stationary yet: the residual still falls at the end"


def _cosine(task: TaskNetworks) -> np.ndarray:
    """Cosine of θ and -∇L at the last step, (seed)."""
    weights = torch.cat([weight[:, -1].flatten(1) for weight in task.trained_weights], -1)
    gradients = torch.cat([gradient[:, -1].flatten(1) for gradient in task.gradients], -1)
    return torch.cosine_similarity(weights, -gradients, dim=-1).numpy()


def _residual_by_layer(run: Run) -> str:
    """The largest residual of each trained layer at the last step, of networks that have not collapsed, as text."""
    worst = []
    for k in range(run.job.network.trained_layers):
        residuals = [
            relative_residual([task.trained_weights[k][:, -1]], [task.gradients[k][:, -1]], run.weight_decay)[
                ~torch.from_numpy(has_collapsed(task))
            ]
            for task in run.tasks
        ]
        worst.append(f"{float(torch.cat([*residuals, torch.zeros(1)]).max()):.2g}")
    return ", ".join(worst)


def lemma1_descent(run: Run) -> Measured:
    """min_{t≤T} ‖∇L_λ(θ_t)‖², and its bound (L_λ(θ_0) - L_λ(θ_T)) / (ηT (1 - ηβ/2)) (proof of Lemma 1).

    The proof has t < T. Here T is included, since the kept steps are sparse; of them alone the minimum is taken,
    which can only make it larger. β should bound the curvature between all steps; here it is the largest sharpness
    at the kept steps, an estimate.
    """
    step_size = run.job.training.step_size
    measured, bound = [], []
    product = step_size * max(float(values.max()) for values in sharpnesses(run))
    for task in run.tasks:
        decrease = task.regularised_loss[:, :1] - task.regularised_loss
        with np.errstate(divide="ignore", invalid="ignore"):
            bound.append(decrease / (step_size * task.steps * (1 - product / 2)))
        measured.append(np.minimum.accumulate(task.squared_gradient, axis=1))
    return Measured(
        stack(measured),
        stack(bound),
        unmet="" if product < 2 else f"ηβ = {product:.3g} is not below 2",
        note=f"ηβ = {product:.3g}, with β the largest sharpness at the kept steps, by Lanczos",
    )


def _is_smooth_descent(job: ClaimsJob) -> bool:
    training = job.training
    return (
        is_full_batch(job) and job.network.smooth and training.optimiser == "gd" and training.finish is None
    )


ALIGNMENT_CLAIMS = [
    Claim(
        name="alignment",
        brief="∇L(θ) = -λθ at a stationary point",
        statement=r"At a stationary point $\nabla L(\theta) = -\lambda\theta$: weights and gradient are aligned",
        source="Lemma 1",
        assumptions=r"smooth network, $\eta < 2/\beta$, run to a stationary point",
        kind="equality",
        when="last step",
        applies=is_full_batch,
        measure=alignment,
        tried=r"ReLU networks with $\eta$ from 0.1 to 0.5 and up to 100 000 steps: the plain residual stalls"
        " between 0.13 and 0.31, since samples sit on kinks. The minimum-norm subgradient is shown next to it.",
        parts_apart=True,
    ),
    Claim(
        name="lemma1_descent",
        brief="least gradient along gradient descent",
        statement=r"$\min_{t \le T} \|\nabla L_\lambda(\theta_t)\|^2 \le"
        r" \frac{L_\lambda(\theta_0) - L_\lambda(\theta_T)}{\eta T (1 - \eta\beta/2)}$",
        source="Lemma 1, its proof",
        assumptions=r"smooth network, gradient descent, $\eta < 2/\beta$; $\beta$ is estimated at the kept steps",
        kind="upper",
        when="every kept step",
        applies=_is_smooth_descent,
        measure=lemma1_descent,
    ),
]
