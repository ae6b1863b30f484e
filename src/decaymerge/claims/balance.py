"""Differences of the layers' squared norms decay at a rate that only λ sets (ours)."""

import numpy as np

from decaymerge.claims.networks import Run, TaskNetworks
from decaymerge.claims.stationary import KINKED_FLOW, stack
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.workflow.jobs import ClaimsJob

BALANCED = 1e-8
"""Deviation, relative to the largest initial difference, up to which differences decay as claimed in a smooth
network (ours). A flow along kinks is solved less finely, see ``KINKED_FLOW``."""
UNEQUAL = 1e-6
"""Largest initial difference, relative to the largest squared norm, above which it is not rounding (ours)."""


def balance(run: Run) -> Measured:
    """|D_t - e^{-2λt} D_0| with D = ‖W_k‖²/p^(K-k) - ‖W_{k+1}‖²/p^(K-k-1), a part for each k.

    It is relative to the largest |D_0| of the network, as a pair of layers may start with nearly equal norms.
    All layers have the same ⟨W_k, ∇_k L⟩ / p^(K-k), so that the loss drops out of dD/dt. Under gradient descent the
    factor is (1 - ηλ)^(2T), and a term in η² remains.
    """
    training = run.job.training
    if training.optimiser == "gf":
        tasks_and_decays = [(task, np.exp(-2 * run.weight_decay * run.times)[None]) for task in run.tasks]
    else:
        shrink = 1 - training.step_size * run.weight_decay
        tasks_and_decays = [(task, shrink ** (2 * task.steps)) for task in run.tasks]
    measured = stack([_deviation(task, decay) for task, decay in tasks_and_decays])
    allowed = np.full_like(measured, BALANCED if run.job.network.smooth else KINKED_FLOW)
    parts = [f"layers {k} and {k + 1}" for k in range(1, run.job.network.depth)]
    unmet = "the layers start with equal norms" if np.isnan(measured).all() else ""
    descent = "gradient descent adds a term in η² to what the flow does" if training.optimiser == "gd" else ""
    return Measured(measured, allowed, parts, unmet=unmet or descent, trivial=descent)


def _deviation(task: TaskNetworks, decay: np.ndarray) -> np.ndarray:
    """Deviation of one task, (seed, step, pair of layers); NaN where the layers start with equal norms.

    ``decay`` has the shape (seed, step) or (1, step).
    """
    network = task.job.network
    norms = task.squared_norms / network.power ** np.arange(network.depth - 1, -1, -1)
    difference = norms[..., :-1] - norms[..., 1:]
    largest = np.abs(difference[:, :1]).max(-1, keepdims=True)
    known = largest > UNEQUAL * norms[:, :1].max(-1, keepdims=True)
    deviation = np.abs(difference - decay[..., None] * difference[:, :1])
    return deviation / np.where(known, largest, np.nan)


def _starts_unbalanced(job: ClaimsJob) -> bool:
    network, training = job.network, job.training
    return (
        (training.optimiser == "gf" or (training.optimiser == "gd" and training.finish is None))
        and network.initialisation == "gaussian"
        and network.depth > 1
        and not network.fixed_outer_layer
    )


BALANCE = Claim(
    name="balance",
    brief="‖W_k‖² - ‖W_l‖² decays like e^(-2λt)",
    statement=r"$D_t = e^{-2\lambda t} D_0$ for $D = \|W_k\|_F^2 / p^{K-k} - \|W_l\|_F^2 / p^{K-l}$, on the whole"
    " trajectory",
    source="ours",
    assumptions="homogeneous network, gradient flow of all layers from unequal norms",
    kind="equality",
    when="every kept step",
    applies=_starts_unbalanced,
    measure=balance,
)
