"""Trainings to be timed: the trainer's own time a step, and that of the loop that a user would write."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
import xarray as xr
from torch import nn

from comparison import seconds
from decaymerge import tasks, train
from decaymerge.config import Config
from decaymerge.config.experiment import Experiment
from decaymerge.workflow.jobs import TasksJob, TrainJob, seed_blocks

CPU = torch.device("cpu")


def experiment(
    hidden: list[int], seeds: int, tasks: dict[str, Any], training: dict[str, Any] | None = None
) -> Experiment:
    """ReLU networks of the given widths, all seeds in one block."""
    settings = {"optimiser": "gd", "step_size": 0.5, "steps": 1, "kept_steps": 2, "weight_decay": [1e-3]}
    return Experiment.model_validate(
        {
            "tasks": {"dataset": "gaussian"} | tasks,
            "network": {"activation": "relu", "hidden": hidden},
            "training": settings | (training or {}),
            "seeds": seeds,
            "seeds_per_job": seeds,
        }
    )


def tasks_job(settings: Experiment) -> TasksJob:
    """Data of the first task, all seeds."""
    block = seed_blocks(settings)[0]
    return TasksJob.of(Config(experiments={"benchmark": settings}), "benchmark", "a", block)


def train_job(settings: Experiment) -> TrainJob:
    """Training of the first task at λ = 1e-3."""
    block = seed_blocks(settings)[0]
    return TrainJob.of(Config(experiments={"benchmark": settings}), "benchmark", "a", "0.001", block)


def data_of(settings: Experiment, files: tuple[Any, ...] = ()) -> xr.Dataset:
    """Data of the first task."""
    return tasks.make(tasks_job(settings), files)


def step_of(
    made: Experiment, data: xr.Dataset, steps: int, device: torch.device = CPU, *, full_space: bool = False
) -> Callable[[], float]:
    """Seconds of one step of all seeds together, as stage ``train`` takes it, without what goes before the first.

    The first hundred steps are all looked at, and count. With ``full_space``, the first layer is trained in all d
    coordinates instead of its inputs' span.
    """
    job = train_job(made).model_copy(update={"steps": steps})

    def run() -> float:
        weights, inputs, labels, record = train.begin(job, data, device, full_space=full_space)
        optimise = train.OPTIMISERS[job.optimiser]
        with torch.inference_mode():
            taken = seconds(lambda: optimise(job, weights, inputs, labels, record))
        record.bar.close()
        return taken / steps

    return run


def plain_step_of(made: Experiment, data: xr.Dataset, steps: int) -> Callable[[], float]:
    """Seconds of one step of one network in PyTorch: ``nn.Sequential``, autograd, ``optim.SGD``."""
    inputs = torch.from_numpy(data.inputs.values[0]).float()
    labels = torch.from_numpy(data.labels.values[0]).float()
    dims = [inputs.shape[1], *made.network.hidden, 1]
    layers: list[nn.Module] = []
    for below, above in itertools.pairwise(dims):
        layers += [nn.Linear(below, above, bias=False), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    training = made.training
    optimiser = torch.optim.SGD(network.parameters(), training.step_size, weight_decay=1e-3)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimiser.zero_grad()
        nn.functional.softplus(-y * network(x).squeeze(-1)).mean().backward()
        optimiser.step()

    def run() -> None:
        if training.batch_size is None:
            for _ in range(steps):
                step(inputs, labels)
            return
        done = 0
        while done < steps:
            for batch in torch.randperm(len(inputs)).split(training.batch_size):
                step(inputs[batch], labels[batch])
                done += 1

    return lambda: seconds(run) / steps


def products_of(samples: int, dims: list[int], seeds: int, repeats: int, device: torch.device = CPU) -> float:
    """Seconds of the matrix products of one step of all seeds, samples innermost, and of nothing else.

    Without those of the last layer, which has one row: .7% of ``flops_of`` at the paper's size.
    """
    activations = [torch.randn(seeds, dim, samples, device=device) for dim in dims[:-1]]
    weights = [
        torch.randn(seeds, above, below, device=device) for below, above in itertools.pairwise(dims[:-1])
    ]
    gradients = [torch.empty_like(weight) for weight in weights]

    def products() -> None:
        for _ in range(repeats):
            for k, weight in enumerate(weights):
                torch.bmm(weight, activations[k], out=activations[k + 1])
            for k in range(len(weights) - 1, -1, -1):
                torch.bmm(activations[k + 1], activations[k].mT, out=gradients[k])
                if k > 0:
                    torch.bmm(weights[k].mT, activations[k + 1], out=activations[k])
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return seconds(products) / repeats


def flops_of(samples: int, dims: list[int]) -> float:
    """Of one step of one network: two products a layer and, beyond the first layer, a third."""
    sizes = [above * below for below, above in itertools.pairwise(dims)]
    return 2.0 * samples * (2 * sizes[0] + 3 * sum(sizes[1:]))
