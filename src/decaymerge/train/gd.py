"""Full-batch gradient descent with weight decay."""

from collections.abc import Callable, Sequence

from torch import Tensor

from decaymerge.jobs import TrainJob
from decaymerge.network import Gradient

OnStep = Callable[[int, Sequence[Tensor], Tensor], None]


def gradient_descent(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, on_step: OnStep
) -> None:
    """W_k ← (1 - ηλ) W_k - η ∇_k L(W), all members of the block at once, in place.

    Args:
        job: Network, η, λ and the number of steps.
        weights: W_k of shape (seed, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        on_step: Called with step, weights and margins (seed, sample) before the update of that step, and once
            more after the last.
    """
    gradient = Gradient(job.network, inputs, labels)
    keep = 1 - job.step_size * job.weight_decay
    trained = len(weights) - job.network.fixed_outer_layer
    for step in range(job.steps):
        on_step(step, weights, gradient.forward(weights))
        for k, delta, below in gradient.backward(weights):
            if k < trained:
                weights[k].baddbmm_(delta.mT, below, beta=keep, alpha=-job.step_size)
    on_step(job.steps, weights, gradient.forward(weights))
