"""Gradient flow with weight decay (Eq. 1), by SciPy's adaptive Runge-Kutta methods."""

import numpy as np
import torch
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.gradient import Gradient
from decaymerge.network import flatten, unflatten
from decaymerge.train.recorder import Recorder
from decaymerge.workflow.jobs import TrainJob

SOLVERS = {"smooth": ("DOP853", 1e-11), "kinked": ("RK23", 1e-4)}
"""Method and default tolerance. Where a flow slides along kinks, a high order costs steps and gains nothing."""


def gradient_flow(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, record: Recorder
) -> None:
    """dW_k/dt = -∇_k L(W) - λ W_k, kept at t = step · step_size; arguments as for ``gradient_descent``.

    The networks of all seeds are one system and share their step sizes, so a network's result depends on its block
    to the solver's tolerance. Solving them one by one took as many times longer as there are seeds.

    Raises:
        UserError: the solver gives up.
    """
    import scipy.integrate  # it takes half a second, which other optimisers are spared

    gradient = Gradient(job.network, weights, inputs, labels, job.loss)
    times = np.array(record.steps) * job.step_size
    method, default = SOLVERS["smooth" if job.network.smooth else "kinked"]
    tolerance = job.solver_tolerance or default

    def velocity(time: float, flat: np.ndarray) -> np.ndarray:
        unflatten(flat, weights)
        return -flatten(_descent(job, gradient))

    def record_at(step: int, flat: np.ndarray) -> None:
        unflatten(flat, weights)
        record(step, weights, gradient.forward())

    # State of the solver: θ, its time, and the size of its next step (0: the solver chooses).
    flat, clock = torch.from_numpy(flatten(weights)), torch.zeros(2, dtype=torch.float64)
    record.resume(flat, clock)
    start, size = clock.tolist()
    if start == 0:
        record_at(0, flat.numpy())
    solver = getattr(scipy.integrate, method)(
        velocity,
        start,
        flat.numpy().copy(),
        times[-1],
        rtol=tolerance,
        atol=tolerance,
        first_step=min(size, times[-1] - start) or None,
    )
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed":
            raise UserError(
                f"gradient flow of {job.experiment}/{job.task} at weight_decay {job.weight_decay:g} stopped at"
                f" t = {solver.t:g}: {message}; use a larger training.solver_tolerance than {tolerance:g}"
            )
        passed = np.flatnonzero((times > solver.t_old) & (times <= solver.t))
        if passed.size:
            between = solver.dense_output()
            for row in passed:
                record_at(record.steps[row], between(times[row]))
        flat.copy_(torch.from_numpy(solver.y))
        clock.copy_(torch.tensor([solver.t, solver.h_abs]))
        step = int(solver.t / job.step_size)
        record.advance(step)
        record.save(step, flat, clock)


def _descent(job: TrainJob, gradient: Gradient) -> list[Tensor]:
    """∇_k L + λ W_k, and 0 for a layer that is fixed."""
    return [
        slope.add_(weight, alpha=job.weight_decay)
        if k < job.network.trained_layers
        else torch.zeros_like(weight)
        for k, (slope, weight) in enumerate(zip(gradient(), gradient.weights, strict=True))
    ]
