"""Builders for tests: configurations, jobs, data and small networks.

Networks are trained once a session; each call returns a copy, so that a test may change it.
"""

import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
from torch import Tensor

from decaymerge import store, tasks
from decaymerge import train as stage
from decaymerge.config.datasets import GaussianTask
from decaymerge.config.experiment import Network
from decaymerge.network import initialise
from decaymerge.train.restart import RestartFile
from decaymerge.workflow.jobs import TasksJob, TrainJob

REPOSITORY = Path(__file__).parent.parent
CPU = torch.device("cpu")
torch.set_num_threads(
    1
)  # as the workflow's jobs have; several test processes would wait for each other's threads
RELU = {"activation": "relu", "hidden": [10, 8]}
BALANCED = {"activation": "linear", "hidden": [8, 8], "initialisation": "balanced"}
ACTIVATIONS = [("linear", 1.0), ("relu", 1.0), ("relu", 2.0), ("relu", 2.5)]
HIDDEN: list[list[int]] = [[], [7], [7, 5], [7, 5, 6], [7, 5, 6, 4]]
FORMS = [(activation, power, hidden) for activation, power in ACTIVATIONS for hidden in HIDDEN]
"""Activation, power and hidden widths of networks."""


def smoke_config() -> dict[str, Any]:
    """The smoke configuration, whose checkpoint is found from every folder."""
    config = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text())
    assert isinstance(config, dict)
    config["scan"]["models"]["tiny_bert"]["source"] = f"path:{REPOSITORY}/tests/data/tiny_bert"
    return config


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The configuration with the setting at ``a/b/c`` replaced, in place."""
    *parents, last = path.split("/")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def gaussian_job(index: int = 0, seeds: Sequence[int] = (0, 1), count: int = 2, **settings: Any) -> TasksJob:
    """Data of task ``index`` of ``count``: 50 samples in 12 dimensions."""
    task = GaussianTask.model_validate({"dataset": "gaussian", "dim": 12, "samples": 50} | settings)
    return TasksJob(
        experiment="x",
        task=string.ascii_lowercase[index],
        seeds=list(seeds),
        index=index,
        task_count=count,
        data=task,
    )


def gaussian_data(
    index: int = 0, seeds: Sequence[int] = (0, 1), count: int = 2, **settings: Any
) -> xr.Dataset:
    """Inputs and labels of ``gaussian_job``."""
    return tasks.make(gaussian_job(index, seeds, count, **settings), [])


def train_job(**settings: Any) -> TrainJob:
    """200 steps of gradient descent on a ReLU network of three layers."""
    base = {"experiment": "x", "task": "a", "weight_decay": 1e-3, "network": RELU}
    base |= {"step_size": 0.5, "steps": 200, "kept_steps": 6}
    return TrainJob.model_validate(base | settings)


def train(job: TrainJob, data: xr.Dataset, restart: RestartFile | None = None) -> xr.Dataset:
    """Networks with the first layer in one piece, as a reader gets them."""
    return store.with_whole_first_layer(stage.train(job, data, CPU, restart))


def trained(seeds: Sequence[int] = (0, 1), **settings: Any) -> xr.Dataset:
    """Networks of ``train_job`` on the data of ``gaussian_job``."""
    return trained_on(gaussian_job(seeds=seeds), train_job(**settings))


def trained_on(data: TasksJob, job: TrainJob) -> xr.Dataset:
    """Networks of a job on the data of another one."""
    return _trained(data.model_dump_json(), job.model_dump_json()).copy(deep=True)


@cache
def _trained(data: str, job: str) -> xr.Dataset:
    return train(TrainJob.parse(job), tasks.make(TasksJob.parse(data), []))


def data_and_networks(
    count: int = 2, seeds: Sequence[int] = (0, 1), data: dict[str, Any] | None = None, **training: Any
) -> tuple[list[xr.Dataset], list[xr.Dataset]]:
    """Data of ``count`` tasks, and the own network of each."""
    tasks_jobs = [gaussian_job(index, seeds, count, **(data or {})) for index in range(count)]
    networks = [trained_on(job, train_job(task=job.task, **training)) for job in tasks_jobs]
    return [tasks.make(job, []) for job in tasks_jobs], networks


def network_of(activation: str, power: float, hidden: list[int], **settings: Any) -> Network:
    """Settings of a network of one of ``FORMS``."""
    return Network.model_validate({"activation": activation, "power": power, "hidden": hidden} | settings)


def random_batch(
    network: Network, members: int = 3, samples: int = 11, dim: int = 6
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Initial weights (seed, d_k, d_{k-1}), random inputs (seed, sample, d) and labels (seed, sample), float64."""
    rng = np.random.default_rng(0)
    layers = zip(*(initialise(network, dim, rng) for _ in range(members)), strict=True)
    weights = [torch.from_numpy(np.stack(layer)) for layer in layers]
    inputs = torch.from_numpy(rng.standard_normal((members, samples, dim)))
    labels = torch.from_numpy(rng.choice([-1.0, 1.0], (members, samples)))
    return weights, inputs, labels


def reference_outputs(network: Network, weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """f(x) of one member, as the formula says it: weights (d_k, d_{k-1}), inputs (sample, d)."""
    hidden = inputs
    for weight in weights[:-1]:
        hidden = hidden @ weight.T
        if network.activation == "relu":
            hidden = torch.relu(hidden) ** network.power
    return (hidden @ weights[-1].T).squeeze(-1)
