"""Full-batch gradient descent with weight decay, for a number of steps or to a stationary point."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from decaymerge import measure
from decaymerge.config.experiment import LBFGS_ITERATIONS
from decaymerge.gradient import Gradient, descend, relative_residual
from decaymerge.network import flatten, unflatten
from decaymerge.train.recorder import REPORT_EVERY, Recorder
from decaymerge.workflow.jobs import TrainJob

LBFGS = {"maxiter": LBFGS_ITERATIONS, "maxfun": 50_000, "maxcor": 30, "ftol": 0, "gtol": 1e-12}
"""L-BFGS ends where float64 allows no further descent."""


def gradient_descent(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, record: Recorder
) -> None:
    """W_k ← (1 - ηλ) W_k - η ∇_k L(W), for all seeds of the block at once, in place.

    In float64, where claims are checked, the coefficients A of the first layer in its inputs are also kept:
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
    shrink = 1 - job.step_size * job.weight_decay
    trained = job.network.trained_layers
    coefficients = inputs.new_zeros(*inputs.shape[:2], weights[0].shape[1]) if exact else None

    def stationary(changes: Sequence[Tensor]) -> Tensor:
        gradients = [layer / -job.step_size for layer in changes[:trained]]
        tolerance = 0 if job.stationarity is None else job.stationarity
        return relative_residual(weights[:trained], gradients, job.weight_decay) <= tolerance

    state = weights if coefficients is None else [*weights, coefficients]
    for step in range(record.resume(*state), job.steps):
        record.save(step, *state)
        changes = change()
        is_tested = job.stationarity is not None and step % REPORT_EVERY == 0
        if is_tested and record.stop(step, stationary(changes), weights, change.margins, coefficients):
            return
        record(step, weights, change.margins, coefficients)
        if coefficients is not None and change.first_delta is not None:
            coefficients.mul_(shrink).add_(change.first_delta.mT)
        descend(weights[:trained], changes, shrink)
    if job.finish is not None:
        finish(job, weights, inputs, labels, record.running)
        coefficients = None  # L-BFGS does not update them
    if job.stationarity is not None:
        record.stop(job.steps, stationary(change()), weights, change.margins, coefficients)
    record(job.steps, weights, change.forward(), coefficients)


def finish(
    job: TrainJob, weights: Sequence[Tensor], inputs: Tensor, labels: Tensor, members: np.ndarray
) -> None:
    """Minimise L + λ‖θ‖²/2 by L-BFGS, in place, for the seeds that ``members`` (seed) marks."""
    from scipy.optimize import minimize  # it takes half a second, which other runs are spared

    for member in np.flatnonzero(members):
        row = slice(member, member + 1)
        start = [weight[row] for weight in weights]
        gradient = Gradient(job.network, start, inputs[row], labels[row], job.loss)

        def objective(flat: np.ndarray, gradient: Gradient = gradient) -> tuple[float, np.ndarray]:
            unflatten(flat, gradient.weights)
            slopes = flatten(gradient()) + job.weight_decay * flat
            loss = measure.loss(gradient.margins, job.loss)
            return float(loss) + job.weight_decay / 2 * float(flat @ flat), slopes

        minimum = minimize(objective, flatten(start), jac=True, method="L-BFGS-B", options=LBFGS)
        unflatten(minimum.x, start)
