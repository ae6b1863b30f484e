"""Gradient flow with weight decay (Eq. 1), by SciPy's adaptive Runge-Kutta methods."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.jobs import TrainJob
from decaymerge.network import Gradient, flatten, unflatten
from decaymerge.train.recorder import Recorder

SOLVERS = {"smooth": ("DOP853", 1e-10), "kinked": ("RK23", 1e-4)}
"""Method and default tolerance; where a flow slides along kinks, a high order only costs steps."""


def gradient_flow(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, record: Recorder
) -> None:
    """dW_k/dt = -∇_k L(W) - λ W_k, kept at t = step · step_size; arguments as for ``gradient_descent``.

    Members are solved one by one: each has step sizes of its own, so its result does not depend on its block.
    """
    times = np.array(record.steps) * job.step_size
    members = []
    for member in range(len(inputs)):
        one = slice(member, member + 1)
        velocity = Velocity(job, [weight[one] for weight in weights], inputs[one], labels[one])

        def progress(share: float, done: int = member) -> None:
            record.advance((done + share) / len(inputs))

        members.append(velocity.solve(times, progress))
    gradient = Gradient(job.network, inputs, labels, job.loss)
    for row, step in enumerate(record.steps):
        state = [torch.cat([trajectory[k][row] for trajectory in members]) for k in range(len(weights))]
        record(step, state, gradient.forward(state))


class Velocity:
    """-∇L(W) - λW of one member, as a function of its weights in one flat vector."""

    def __init__(self, job: TrainJob, weights: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> None:
        self.job, self.start = job, weights
        self.gradient = Gradient(job.network, inputs, labels, job.loss)

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        """Velocity, shape (parameters)."""
        weights = unflatten(flat, self.start)
        gradients = self.gradient.gradients(weights)
        velocity = torch.zeros(len(flat), dtype=weights[0].dtype, device=weights[0].device)
        for k, part in enumerate(unflatten(velocity, self.start)[: self.job.network.trained]):
            torch.add(gradients[k], weights[k], alpha=self.job.weight_decay, out=part)
        return velocity.neg_().cpu().numpy()

    def solve(self, times: np.ndarray, progress: Callable[[float], None]) -> list[list[Tensor]]:
        """Weights of each layer at ``times``.

        Raises:
            UserError: the solver gives up.
        """

        def velocity(time: float, flat: np.ndarray) -> np.ndarray:
            progress(time / times[-1])
            return self(flat)

        method, default = SOLVERS["smooth" if self.job.network.smooth else "kinked"]
        tolerance = self.job.solver_tolerance or default
        start = flatten(self.start)
        solved = solve_ivp(
            velocity,
            (0, times[-1]),
            start,
            method=method,
            t_eval=times,
            rtol=tolerance,
            atol=tolerance,
        )
        if not solved.success:
            raise UserError(
                f"gradient flow of {self.job.experiment}/{self.job.task} at weight_decay {self.job.weight_decay:g}"
                f" stopped at t = {solved.t[-1]:g}: {solved.message}; use a larger training.solver_tolerance"
            )
        layers = [unflatten(np.ascontiguousarray(flat), self.start) for flat in solved.y.T]
        return [list(of_layer) for of_layer in zip(*layers, strict=True)]
