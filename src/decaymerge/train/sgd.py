"""Minibatch stochastic gradient descent with weight decay."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from decaymerge.gradient import Gradient, descend
from decaymerge.seeding import generator
from decaymerge.train.recorder import Recorder
from decaymerge.workflow.jobs import TrainJob


def stochastic_gradient_descent(
    job: TrainJob, weights: list[Tensor], inputs: Tensor, labels: Tensor, record: Recorder
) -> None:
    """W_k ← (1 - ηλ) W_k - η ∇_k L_batch(W); arguments as for ``gradient_descent``."""
    assert job.batch_size is not None
    members, samples, dim = inputs.shape
    batch_inputs = inputs.new_empty(members, job.batch_size, dim)
    batch_labels = labels.new_empty(members, job.batch_size)
    flat_inputs, flat_labels = inputs.reshape(-1, dim), labels.reshape(-1)
    offsets = torch.arange(0, members * samples, samples, device=inputs.device).unsqueeze(-1)
    all_samples = Gradient(job.network, weights, inputs, labels, job.loss)
    change = Gradient(
        job.network, weights, batch_inputs, batch_labels, job.loss, scale=-job.step_size
    )  # -η ∇L
    first = record.resume(*weights)
    batches = islice(minibatches(job, record.seeds, samples), first, None)
    shrink = 1 - job.step_size * job.weight_decay
    for step in range(first, job.steps):
        record.save(step, *weights)
        if record.is_recorded(step):
            record(step, weights, all_samples.forward())
        batch = torch.from_numpy(next(batches)).to(inputs.device)
        rows = batch.add(offsets).flatten()
        torch.index_select(flat_labels, 0, rows, out=batch_labels.view(-1))
        torch.index_select(flat_inputs, 0, rows, out=batch_inputs.view(-1, dim))
        descend(weights[: job.network.trained_layers], change(), shrink)
    record(job.steps, weights, all_samples.forward())


def minibatches(job: TrainJob, seeds: Sequence[int], samples: int) -> Iterator[np.ndarray]:
    """Endless indices (seed, batch): each epoch is a random order, from the stream of the seed."""
    assert job.batch_size is not None
    streams = [generator(job.experiment, job.task, seed, "minibatches") for seed in seeds]
    while True:
        orders = np.stack([stream.permutation(samples) for stream in streams])
        for first in range(0, samples - job.batch_size + 1, job.batch_size):
            yield orders[:, first : first + job.batch_size]
