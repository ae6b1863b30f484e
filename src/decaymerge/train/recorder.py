"""Record of a run: weights and metrics at the kept steps, and the step at which each seed ended."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import measure, store
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar
from decaymerge.train.restart import RestartFile
from decaymerge.train.span import InputSpan
from decaymerge.workflow.jobs import TrainJob

REPORT_EVERY = 100
"""Steps between two looks at the loss, for the progress bar and for divergence. Every step up to this one is
checked, since a step size that is far too large blows up at once."""
OVERSHOOT, END = 100, 2
"""A loss above these multiples of its initial value is divergence: on the way, and at the last step."""


def kept_steps(steps: int, count: int) -> list[int]:
    """At most ``count`` steps, 0 and ``steps`` among them, evenly spaced on a log scale from 1."""
    spaced = np.geomspace(1, steps, count - 1) if count > 2 else [steps]
    return [0, *np.unique(np.rint(spaced).astype(int)).tolist()]


class Recorder:
    """Keeps weights and metrics at the kept steps, shows progress, and stops a run that diverges."""

    def __init__(
        self,
        job: TrainJob,
        seeds: list[int],
        weights: Sequence[Tensor],
        span: InputSpan,
        restart: RestartFile | None,
    ) -> None:
        self.job, self.seeds, self.span, self.restart = job, seeds, span, restart
        self.steps = kept_steps(job.steps, job.kept_steps)
        self.row = {step: row for row, step in enumerate(self.steps)}
        shape = (len(seeds), len(self.steps))
        dtype = getattr(np, job.dtype)
        self.weights = [np.empty(shape + weight.shape[1:], dtype) for weight in weights]  # W_1 in its span
        self.decay = np.empty(shape, dtype)
        self.loss, self.error = np.empty(shape, dtype), np.empty(shape, dtype)
        self.coefficients: np.ndarray | None = None
        self.running = np.ones(len(seeds), dtype=bool)
        self.stationary = np.zeros(len(seeds), dtype=np.int8)
        self.last_step = np.full(len(seeds), job.steps)
        self.bar = progress_bar(f"{job.experiment}/{job.task} λ={job.weight_decay:g}", job.steps, "step")

    def resume(self, *state: Tensor) -> int:
        """Restore ``state`` and the record of a run that was killed, in place.

        Returns:
            The step that it had reached, before the update of that step; 0 for a new run.
        """
        saved = self.restart.state if self.restart is not None else None
        if saved is None:
            return 0
        for k, tensor in enumerate(state):
            tensor.copy_(torch.from_numpy(saved[f"state.{k}"]))
        self.coefficients = saved.get("coefficients")
        for name, array in self._kept().items():
            array[...] = saved[name]
        step = int(saved["step"])
        self.bar.write(f"continuing from step {step}, where a run was killed", self.bar.fp)
        self.bar.update(step)
        return step

    def save(self, step: int, *state: Tensor) -> None:
        """Write ``state``, before the update of ``step``, and the record so far, if it is time to."""
        if self.restart is not None and self.restart.due():
            arrays = {f"state.{k}": tensor.cpu().numpy() for k, tensor in enumerate(state)}
            basis = self.span.basis.cpu().numpy()
            self.restart.write({"step": np.array(step), "basis": basis, **arrays, **self._kept()})

    def _kept(self) -> dict[str, np.ndarray]:
        arrays = {f"weights.{k}": weight for k, weight in enumerate(self.weights)}
        arrays |= {"decay": self.decay, "loss": self.loss, "error": self.error, "running": self.running}
        arrays |= {"stationary": self.stationary, "last_step": self.last_step}
        return arrays if self.coefficients is None else {**arrays, "coefficients": self.coefficients}

    def is_recorded(self, step: int) -> bool:
        """Whether the state before the update of ``step`` is recorded or checked."""
        return step in self.row or step <= REPORT_EVERY or step % REPORT_EVERY == 0

    def __call__(
        self, step: int, weights: Sequence[Tensor], margins: Tensor, coefficients: Tensor | None = None
    ) -> None:
        """Record and check the state before the update of ``step``; arrays are copied."""
        if not self.is_recorded(step):
            return
        loss = measure.loss(margins, self.job.loss).cpu().numpy()
        if (row := self.row.get(step)) is not None:
            last = step == self.job.steps
            self._keep(self.running, row, step, weights, margins, coefficients if last else None)
        self._check(step, loss)
        self.bar.set_postfix_str(f"loss {loss.mean():.4g}", refresh=False)
        self.advance(step)

    def stop(
        self,
        step: int,
        stationary: Tensor,
        weights: Sequence[Tensor],
        margins: Tensor,
        coefficients: Tensor | None,
    ) -> bool:
        """Record the networks that have become ``stationary`` (seed) for the rest of the run, unchanged.

        Returns:
            Whether all networks are stationary.
        """
        new = self.running & stationary.cpu().numpy()
        if new.any():
            row = next(row for row, kept in enumerate(self.steps) if kept >= step)
            self._keep(new, slice(row, None), step, weights, margins, coefficients)
            self.last_step[new], self.stationary[new] = step, 1
            self.running &= ~new
        return not self.running.any()

    def advance(self, step: int) -> None:
        """Show progress between the recorded steps."""
        self.bar.update(step - self.bar.n)

    def _keep(
        self,
        members: np.ndarray,
        rows: int | slice,
        step: int,
        weights: Sequence[Tensor],
        margins: Tensor,
        coefficients: Tensor | None,
    ) -> None:
        self.decay[members, rows] = self._decay(step)
        values = [*weights, measure.loss(margins, self.job.loss), measure.error(margins)]
        for kept, value in zip([*self.weights, self.loss, self.error], values, strict=True):
            values_of_members = value.cpu().numpy()[members]
            single = isinstance(rows, int)
            kept[members, rows] = values_of_members if single else values_of_members[:, None]
        if coefficients is not None:
            if self.coefficients is None:
                self.coefficients = np.full(coefficients.shape, np.nan, self.loss.dtype)
            self.coefficients[members] = coefficients.cpu().numpy()[members]

    def _decay(self, step: int) -> float:
        """Factor by which gradient descent has shrunk W_1 outside the span of its inputs."""
        return (1 - self.job.step_size * self.job.weight_decay) ** step

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
        """The whole record."""
        self.bar.close()
        kept = store.weights_to_dataset(self.weights, self.seeds, self.steps)
        if not self.span.is_full:
            basis, outside = (part.cpu().numpy() for part in (self.span.basis, self.span.outside))
            kept = store.first_layer_in_span(kept, basis, self.decay, outside)
        kept = kept.assign(
            loss=(("seed", "step"), self.loss),
            error=(("seed", "step"), self.error),
            last_step=("seed", self.last_step),
            stationary=("seed", self.stationary),
        )
        names = {
            "loss": "training loss",
            "error": "training error",
            "last_step": "step at which the network became stationary, or the last step of the run",
            "stationary": "1 if the residual fell below the tolerance, 0 if not or if no tolerance was set",
        }
        if self.coefficients is not None:
            kept["coefficients"] = (("seed", "sample", "out_1"), self.coefficients)
            names["coefficients"] = "coefficients A of the first layer in its inputs at the last step"
        return store.describe(kept, names)
