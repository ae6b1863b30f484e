"""Stage ``train``: the networks of one task at one λ, all seeds of a block together."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.network import initialise
from decaymerge.seeding import generator
from decaymerge.train.gd import gradient_descent
from decaymerge.train.gf import gradient_flow
from decaymerge.train.recorder import Recorder
from decaymerge.train.restart import RestartFile
from decaymerge.train.sgd import stochastic_gradient_descent
from decaymerge.train.span import InputSpan
from decaymerge.workflow.jobs import TrainJob

OPTIMISERS = {"gd": gradient_descent, "sgd": stochastic_gradient_descent, "gf": gradient_flow}


def train(
    job: TrainJob, tasks: xr.Dataset, device: torch.device, restart: RestartFile | None = None
) -> xr.Dataset:
    """Weights ``W1 … WK (seed, step, out_k, in_k)`` with ``loss`` and ``error (seed, step)`` at the kept steps.

    ``W1`` is in parts (see ``store.first_layer_in_span``) where the inputs do not span all coordinates.
    ``last_step (seed)`` is the step at which the network of a seed became stationary, or the last step of the run;
    rows after it repeat its state. With ``restart``, the state is written there from time to time, and a run that
    was killed continues from it.

    Raises:
        UserError: the loss of a seed is not finite, or ends far above its initial value.
    """
    weights, inputs, labels, record = begin(job, tasks, device, restart)
    with torch.inference_mode():  # autograd's bookkeeping takes a tenth of a step of small networks
        OPTIMISERS[job.optimiser](job, weights, inputs, labels, record)
    return record.dataset()


def begin(
    job: TrainJob,
    tasks: xr.Dataset,
    device: torch.device,
    restart: RestartFile | None = None,
    *,
    full_space: bool = False,
) -> tuple[list[Tensor], Tensor, Tensor, Recorder]:
    """Arguments of a function of ``OPTIMISERS``: weights, inputs, labels, and a recorder of the run.

    By default the first layer is trained in coordinates of the span of its inputs. All d coordinates are used if
    ``full_space`` is set; in float64, because the claims check the very identity that justifies the span; and when
    training to a stationary point, because the part outside the span must decay too.
    """
    samples = tasks.sizes["sample"]
    if job.batch_size is not None and job.batch_size > samples:
        raise UserError(f"batch_size: {job.batch_size} is above the {samples} samples of {job.task}")
    dtype = getattr(torch, job.dtype)
    seeds = tasks.seed.values.tolist()
    inputs = torch.from_numpy(tasks.inputs.values).to(device)
    labels = torch.from_numpy(tasks.labels.values).to(device, dtype)
    networks = [_initial_weights(job, seed, inputs.shape[-1]) for seed in seeds]
    first, *others = [torch.from_numpy(np.stack(layer)).to(device) for layer in zip(*networks, strict=True)]
    state = restart.state if restart is not None else None
    basis = None if state is None else torch.from_numpy(state["basis"]).to(device)
    full_space = full_space or job.dtype == "float64" or job.stationarity is not None
    span = InputSpan(inputs, first, full_space=full_space, basis=basis)
    weights = [weight.to(dtype) for weight in (span.coordinates, *others)]
    return weights, span.inputs.to(dtype), labels, Recorder(job, seeds, weights, span, restart)


def _initial_weights(job: TrainJob, seed: int, input_dim: int) -> list[np.ndarray]:
    """W_k of one seed. The networks of all tasks share a fixed outer layer (Corollary 1)."""
    weights = initialise(job.network, input_dim, generator(job.experiment, job.task, seed, "weights"))
    if job.network.fixed_outer_layer:
        shared = initialise(job.network, input_dim, generator(job.experiment, "", seed, "outer layer"))
        weights[-1] = shared[-1]
    return weights
