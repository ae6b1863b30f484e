"""Stage ``train``: the networks of one task at one λ, all seeds of a block together."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import measure, store
from decaymerge.errors import UserError
from decaymerge.jobs import TrainJob
from decaymerge.network import initialise
from decaymerge.progress import progress_bar
from decaymerge.seeding import generator
from decaymerge.train.gd import gradient_descent
from decaymerge.train.span import InputSpan

METHODS = {"gd": gradient_descent}
REPORT_EVERY = 100
"""Steps between two looks at the loss, for the progress bar and for divergence; up to it every step is looked at,
since a step size that is far too large blows up at once."""
OVERSHOOT, END = 100, 2
"""A loss above these multiples of where it began is divergence: on the way, and at the last step."""


def kept_steps(steps: int, checkpoints: int) -> list[int]:
    """At most ``checkpoints`` steps, 0 and ``steps`` among them, evenly spaced on a log scale from 1."""
    spaced = np.geomspace(1, steps, checkpoints - 1) if checkpoints > 2 else [steps]
    return [0, *np.unique(np.rint(spaced).astype(int)).tolist()]


def train(job: TrainJob, tasks: xr.Dataset, device: torch.device) -> xr.Dataset:
    """Weights ``W1 … WK (seed, step, out_k, in_k)`` with ``loss`` and ``error (seed, step)`` at the kept steps.

    Raises:
        UserError: the loss of a member is not finite, or ends far above where it began.
    """
    dtype = getattr(torch, job.dtype)
    seeds = tasks.seed.values.tolist()
    inputs = torch.from_numpy(tasks.inputs.values).to(device)
    labels = torch.from_numpy(tasks.labels.values).to(device, dtype)
    members = [
        initialise(job.network, inputs.shape[-1], generator(job.experiment, job.task, seed, "weights"))
        for seed in seeds
    ]
    first, *others = [torch.from_numpy(np.stack(layer)).to(device) for layer in zip(*members, strict=True)]
    span = InputSpan(inputs, first)
    weights = [weight.to(dtype) for weight in (span.coordinates, *others)]

    record = Recorder(job, seeds, weights, span)
    METHODS[job.method](job, weights, span.inputs.to(dtype), labels, record)
    return record.dataset()


class Recorder:
    """Keeps weights and metrics at the kept steps, shows progress, and stops a run that diverges."""

    def __init__(self, job: TrainJob, seeds: list[int], weights: Sequence[Tensor], span: InputSpan) -> None:
        self.job, self.seeds, self.span = job, seeds, span
        self.steps = kept_steps(job.steps, job.checkpoints)
        self.row = {step: row for row, step in enumerate(self.steps)}
        shape = (len(seeds), len(self.steps))
        dtype = getattr(np, job.dtype)
        shapes = [span.outside.shape[1:], *(weight.shape[1:] for weight in weights[1:])]
        self.weights = [np.empty(shape + layer, dtype) for layer in shapes]
        self.loss, self.error = np.empty(shape, dtype), np.empty(shape, dtype)
        self.bar = progress_bar(f"{job.experiment}/{job.task} λ={job.weight_decay:g}", job.steps, "step")

    def __call__(self, step: int, weights: Sequence[Tensor], margins: Tensor) -> None:
        """Look at the state before the update of ``step``."""
        row = self.row.get(step)
        if row is None and step > REPORT_EVERY and step % REPORT_EVERY:
            return
        loss = measure.loss(margins).cpu().numpy()
        if row is not None:
            decay = (1 - self.job.step_size * self.job.weight_decay) ** step
            first = self.span.first_layer(weights[0], decay)
            for kept, weight in zip(self.weights, (first, *weights[1:]), strict=True):
                kept[:, row] = weight.cpu().numpy()
            self.loss[:, row] = loss
            self.error[:, row] = measure.error(margins).cpu().numpy()
        self._check(step, loss)
        self.bar.set_postfix_str(f"loss {loss.mean():.4g}", refresh=False)
        self.bar.update(step - self.bar.n)

    def _check(self, step: int, loss: np.ndarray) -> None:
        allowed = END if step == self.job.steps else OVERSHOOT
        bad = ~(loss <= allowed * np.maximum(self.loss[:, 0], math.log(2)))  # so that nan is bad
        if bad.any():
            self.bar.close()
            job, first = self.job, int(bad.argmax())
            raise UserError(
                f"training diverged: experiment {job.experiment}, task {job.task},"
                f" weight_decay {job.weight_decay:g}, seed {self.seeds[first]}, step {step}: loss is"
                f" {loss[first]:.4g}; use a smaller training.step_size than {job.step_size:g}"
                f" (ηλ = {job.step_size * job.weight_decay:g})"
            )

    def dataset(self) -> xr.Dataset:
        """All that was kept."""
        self.bar.close()
        kept = store.weights_to_dataset(self.weights, self.seeds, self.steps)
        kept = kept.assign(loss=(("seed", "step"), self.loss), error=(("seed", "step"), self.error))
        return store.describe(kept, {"loss": "training loss", "error": "training error"})
