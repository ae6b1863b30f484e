"""Full-batch gradient descent with weight decay, to a number of steps or to a stationary point."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from decaymerge import measure
from decaymerge.jobs import TrainJob
from decaymerge.network import Gradient, flatten, relative_residual, unflatten
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
    gradient = Gradient(job.network, inputs, labels, job.loss)
    keep = 1 - job.step_size * job.weight_decay
    trained = job.network.trained
    coefficients = (
        inputs.new_zeros(*inputs.shape[:2], weights[0].shape[1]) if job.dtype == "float64" else None
    )

    def stationary() -> Tensor:
        gradients = gradient.gradients(weights)
        return relative_residual(weights[:trained], gradients[:trained], job.weight_decay) <= (
            job.stationarity or 0
        )

    state = weights if coefficients is None else [*weights, coefficients]
    for step in range(record.resume(*state), job.steps):
        record.save(step, *state)
        if job.stationarity is not None and step % REPORT_EVERY == 0:
            stops = stationary()
            if record.stop(step, stops, weights, gradient.forward(weights), coefficients):
                return
        record(step, weights, gradient.forward(weights), coefficients)
        for k, delta, below in gradient.backward(weights):
            if k == 0 and coefficients is not None:
                coefficients.mul_(keep).sub_(delta, alpha=job.step_size)
            if k < trained:
                weights[k].baddbmm_(delta.mT, below, beta=keep, alpha=-job.step_size)
    if job.finish is not None:
        finish(job, weights, inputs, labels, record.running)
        coefficients = None  # they are those of gradient descent
    if job.stationarity is not None:
        record.stop(job.steps, stationary(), weights, gradient.forward(weights), coefficients)
    record(job.steps, weights, gradient.forward(weights), coefficients)


def finish(
    job: TrainJob, weights: Sequence[Tensor], inputs: Tensor, labels: Tensor, members: np.ndarray
) -> None:
    """Minimise L + λ‖θ‖²/2 for the given members by L-BFGS from where they are, in place."""
    from scipy.optimize import minimize  # half a second, that other runs need not wait for

    for member in np.flatnonzero(members):
        one = slice(member, member + 1)
        start = [weight[one] for weight in weights]
        gradient = Gradient(job.network, inputs[one], labels[one], job.loss)

        def objective(
            flat: np.ndarray, start: Sequence[Tensor] = start, gradient: Gradient = gradient
        ) -> tuple[float, np.ndarray]:
            layers = unflatten(flat, start)
            slopes = flatten(gradient.gradients(layers)) + job.weight_decay * flat
            loss = measure.loss(gradient.margins.squeeze(-1), job.loss)
            return float(loss) + job.weight_decay / 2 * float(flat @ flat), slopes

        found = minimize(objective, flatten(start), jac=True, method="L-BFGS-B", options=LBFGS)
        for weight, solved in zip(start, unflatten(found.x, start), strict=True):
            weight.copy_(solved)
