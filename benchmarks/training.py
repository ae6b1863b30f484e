"""Time one step of training: by the trainer, by a plain PyTorch loop, and of its matrix products alone."""

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
    """An experiment with ReLU networks of the given widths, and all seeds in one block.

    Args:
        hidden: Widths of the hidden layers.
        seeds: Number of seeds.
        tasks: Settings of the tasks; Gaussian ones by default.
        training: Settings of the training that replace the defaults.
    """
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
    """The job that draws the data of the first task, for all seeds."""
    block = seed_blocks(settings)[0]
    return TasksJob.of(Config(experiments={"benchmark": settings}), "benchmark", "a", block)


def train_job(settings: Experiment) -> TrainJob:
    """The job that trains the first task at λ = 1e-3, for all seeds."""
    block = seed_blocks(settings)[0]
    return TrainJob.of(Config(experiments={"benchmark": settings}), "benchmark", "a", "0.001", block)


def data_of(settings: Experiment, files: tuple[Any, ...] = ()) -> xr.Dataset:
    """Data of the first task, from the given files if the dataset needs some."""
    return tasks.make(tasks_job(settings), files)


def step_of(
    settings: Experiment,
    data: xr.Dataset,
    steps: int,
    device: torch.device = CPU,
    *,
    full_space: bool = False,
) -> Callable[[], float]:
    """A function that returns the seconds of one step of all seeds together, as stage ``train`` takes it.

    The preparations before the first step do not count. The checks of each of the first hundred steps do.

    Args:
        settings: The experiment.
        data: Data of its first task.
        steps: Number of steps over which the time is averaged.
        device: Device to train on.
        full_space: Train the first layer in all d coordinates instead of the span of its inputs.
    """
    job = train_job(settings).model_copy(update={"steps": steps})

    def run() -> float:
        weights, inputs, labels, record = train.begin(job, data, device, full_space=full_space)
        optimise = train.OPTIMISERS[job.optimiser]
        with torch.inference_mode():
            duration = seconds(lambda: optimise(job, weights, inputs, labels, record))
        record.bar.close()
        return duration / steps

    return run


def plain_step_of(settings: Experiment, data: xr.Dataset, steps: int) -> Callable[[], float]:
    """A function that returns the seconds of one step of one network in the PyTorch loop that a user would write.

    The loop uses ``nn.Sequential``, autograd and ``optim.SGD``. The time is averaged over ``steps`` steps.
    """
    inputs = torch.from_numpy(data.inputs.values[0]).float()
    labels = torch.from_numpy(data.labels.values[0]).float()
    dims = [inputs.shape[1], *settings.network.hidden, 1]
    layers: list[nn.Module] = []
    for below, above in itertools.pairwise(dims):
        layers += [nn.Linear(below, above, bias=False), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    training = settings.training
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
        step_count = 0
        while step_count < steps:
            for batch in torch.randperm(len(inputs)).split(training.batch_size):
                step(inputs[batch], labels[batch])
                step_count += 1

    return lambda: seconds(run) / steps


def products_of(samples: int, dims: list[int], seeds: int, repeats: int, device: torch.device = CPU) -> float:
    """Seconds of the matrix products of one step of all seeds, with samples as the last dimension.

    The products of the last layer, which has one row, are left out: .7% of ``flops_of`` at the paper's size.

    Args:
        samples: Number of samples n.
        dims: Dimensions of all layers, from the inputs to the output.
        seeds: Number of seeds.
        repeats: Number of steps over which the time is averaged.
        device: Device to compute on.
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
    """Floating-point operations of one step of one network.

    A layer takes two matrix products: its outputs and the gradient of its weights. Each layer after the first takes
    a third: the gradient of its inputs.
    """
    sizes = [above * below for below, above in itertools.pairwise(dims)]
    return 2.0 * samples * (2 * sizes[0] + 3 * sum(sizes[1:]))
