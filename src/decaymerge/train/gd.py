"""Full-batch gradient descent with weight decay, to a number of steps or to a stationary point."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from decaymerge import measure
from decaymerge.gradient import Gradient, descend, relative_residual
from decaymerge.jobs import TrainJob
from decaymerge.network import flatten, unflatten
from decaymerge.train.recorder import REPORT_EVERY, Recorder

LBFGS = {"maxiter": 20_000, "maxfun": 50_000, "maxcor": 30, "ftol": 0, "gtol": 1e-12}
"""It ends where float64 allows no further descent."""


def gradient_descent(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, record: Recorder
) -> None:
    """W_k ← (1 - ηλ) W_k - η ∇_k L(W), all members of the block at once, in place.

    In float64, where claims are checked, the coefficients A of the first layer in its inputs are kept as well:
    A ← (1 - ηλ) A - η δ_1, with W_1(T) x = (1 - ηλ)^T W_1(0) x + Σ_i A_i ⟨x_i, x⟩ for every x.

    Args:
        job: Network, η, λ, the number of steps, and the residual that ends a run.
        weights: W_k of shape (seed, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        record: Called with the state before the update of each step, and once more after the last.
    """
    exact = job.dtype == "float64"
    change = Gradient(  # -η ∇L
        job.network,
        weights,
        inputs,
        labels,
        job.loss,
        scale=-job.step_size,
        same_inputs=True,
        first_delta=exact,
    )
    keep = 1 - job.step_size * job.weight_decay
    trained = job.network.trained
    coefficients = inputs.new_zeros(*inputs.shape[:2], weights[0].shape[1]) if exact else None

    def stationary(changes: Sequence[Tensor]) -> Tensor:
        gradients = [added / -job.step_size for added in changes[:trained]]
        return relative_residual(weights[:trained], gradients, job.weight_decay) <= (job.stationarity or 0)

    state = weights if coefficients is None else [*weights, coefficients]
    for step in range(record.resume(*state), job.steps):
        record.save(step, *state)
        changes = change()
        looks = job.stationarity is not None and step % REPORT_EVERY == 0
        if looks and record.stop(step, stationary(changes), weights, change.margins, coefficients):
            return
        record(step, weights, change.margins, coefficients)
        if coefficients is not None and change.first_delta is not None:
            coefficients.mul_(keep).add_(change.first_delta.mT)
        descend(weights[:trained], changes, keep)
    if job.finish is not None:
        finish(job, weights, inputs, labels, record.running)
        coefficients = None  # they are those of gradient descent
    if job.stationarity is not None:
        record.stop(job.steps, stationary(change()), weights, change.margins, coefficients)
    record(job.steps, weights, change.forward(), coefficients)


def finish(
    job: TrainJob, weights: Sequence[Tensor], inputs: Tensor, labels: Tensor, members: np.ndarray
) -> None:
    """Minimise L + λ‖θ‖²/2 for the given members by L-BFGS from where they are, in place."""
    from scipy.optimize import minimize  # half a second, that other runs need not wait for

    for member in np.flatnonzero(members):
        one = slice(member, member + 1)
        start = [weight[one] for weight in weights]
        gradient = Gradient(job.network, start, inputs[one], labels[one], job.loss)

        def objective(flat: np.ndarray, gradient: Gradient = gradient) -> tuple[float, np.ndarray]:
            unflatten(flat, gradient.weights)
            slopes = flatten(gradient()) + job.weight_decay * flat
            loss = measure.loss(gradient.margins, job.loss)
            return float(loss) + job.weight_decay / 2 * float(flat @ flat), slopes

        found = minimize(objective, flatten(start), jac=True, method="L-BFGS-B", options=LBFGS)
        unflatten(found.x, start)
