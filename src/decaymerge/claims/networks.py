"""The networks of one experiment at one λ, and the quantities that several claims need."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import measure, store
from decaymerge.gradient import SLOPES, Gradient, relative_residual
from decaymerge.network import activations
from decaymerge.workflow import layout
from decaymerge.workflow.jobs import ClaimsJob, format_weight_decay, weight_decays


class TaskNetworks:
    """The networks of one task, of all seeds, in float64.

    Attributes:
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        weights: W_k of shape (seed, step, d_k, d_{k-1}).
        steps: Number T of training steps before each kept state, (seed, step). It stays the same once the network
            of a seed is stationary.
        stationary: Whether the networks of all seeds became stationary.
        coefficients: Coefficients A of the first layer, (seed, sample, d_1), or none where they were not kept.
    """

    def __init__(self, job: ClaimsJob, weight_decay: float, task: xr.Dataset, network: xr.Dataset) -> None:
        self.job, self.weight_decay = job, weight_decay
        self.inputs = torch.from_numpy(task.inputs.values).double()
        self.labels = torch.from_numpy(task.labels.values).double()
        self.weights = [torch.from_numpy(weight).double() for weight in store.weights_of(network)]
        self.steps = np.minimum(network.step.values, network.last_step.values[:, None])
        self.stationary = bool(network.stationary.all())
        self.coefficients = network.coefficients.values if "coefficients" in network else None

    @property
    def trained_weights(self) -> list[Tensor]:
        """W_k of the layers that are trained, (seed, step, d_k, d_{k-1})."""
        return self.weights[: self.job.network.trained_layers]

    def last(self) -> list[Tensor]:
        """W_k at the last step, (seed, d_k, d_{k-1})."""
        return [weight[:, -1] for weight in self.weights]

    @cached_property
    def _margins_and_gradients(self) -> tuple[Tensor, list[Tensor]]:
        """z_i (seed, step, sample), and ∇_k L (seed, step, d_k, d_{k-1}) of all layers."""
        state = [torch.empty_like(weight[:, 0]) for weight in self.weights]
        gradient = Gradient(self.job.network, state, self.inputs, self.labels, self.job.training.loss)
        margins, gradients = [], []
        for step in range(self.steps.shape[1]):
            for layer, weight in zip(state, self.weights, strict=True):
                layer.copy_(weight[:, step])
            gradients.append([layer.clone() for layer in gradient()])
            margins.append(gradient.margins.clone())
        return torch.stack(margins, 1), [torch.stack(layer, 1) for layer in zip(*gradients, strict=True)]

    @property
    def margins(self) -> Tensor:
        """z_i, (seed, step, sample)."""
        return self._margins_and_gradients[0]

    @property
    def gradients(self) -> list[Tensor]:
        """∇_k L of the trained layers, (seed, step, d_k, d_{k-1})."""
        return self._margins_and_gradients[1][: self.job.network.trained_layers]

    @cached_property
    def slopes(self) -> Tensor:
        """-ℓ'(z_i), (seed, step, sample)."""
        return SLOPES[self.job.training.loss](-self.margins)

    @cached_property
    def residual(self) -> np.ndarray:
        """‖∇L + λθ‖ / (λ‖θ‖), (seed, step)."""
        return relative_residual(self.trained_weights, self.gradients, self.weight_decay).numpy()

    @cached_property
    def squared_gradient(self) -> np.ndarray:
        """‖∇L_λ(θ)‖² over the trained layers, (seed, step)."""
        squares = [
            (gradient + self.weight_decay * weight).square().sum((-2, -1))
            for gradient, weight in zip(self.gradients, self.trained_weights, strict=True)
        ]
        return torch.stack(squares).sum(0).numpy()

    @cached_property
    def squared_norms(self) -> np.ndarray:
        """‖W_k‖_F², (seed, step, layer)."""
        return torch.stack([weight.square().sum((-2, -1)) for weight in self.weights], -1).numpy()

    @cached_property
    def squared_bound(self) -> np.ndarray:
        """B² = mean_i(-ℓ'(z_i) z_i) / λ of Lemma 3, (seed, step)."""
        return ((self.slopes * self.margins).mean(-1) / self.weight_decay).numpy()

    @cached_property
    def regularised_loss(self) -> np.ndarray:
        """L_λ = L + (λ/2) ‖θ‖² over the trained layers, (seed, step)."""
        loss = measure.loss(self.margins, self.job.training.loss).numpy()
        trained = self.squared_norms[..., : self.job.network.trained_layers].sum(-1)
        return loss + self.weight_decay / 2 * trained

    def hidden(self, weights: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
        """h_k of the hidden layers, (seed, step, sample, d_k).

        Args:
            weights: W_k of shape (seed, step, d_k, d_{k-1}).
            inputs: Shape (seed, sample, d).
        """
        return activations(self.job.network, weights, inputs.unsqueeze(1))


class Run:
    """The networks of all tasks and seeds of an experiment at one λ.

    Attributes:
        name: The experiment's name.
        seeds: Its seeds.
        kept: Kept steps, (step).
        tasks: The networks of each task.
    """

    def __init__(
        self, job: ClaimsJob, weight_decay: float, tasks: Sequence[xr.Dataset], networks: Sequence[xr.Dataset]
    ) -> None:
        self.name, self.job, self.weight_decay = job.experiment, job, weight_decay
        self.seeds = [int(seed) for seed in networks[0].seed.values]
        self.kept = networks[0].step.values
        self.tasks = [
            TaskNetworks(job, weight_decay, task, network)
            for task, network in zip(tasks, networks, strict=True)
        ]

    @property
    def times(self) -> np.ndarray:
        """Time t of a gradient flow at the kept steps, (step)."""
        return self.kept * self.job.training.step_size

    @property
    def pairs(self) -> list[tuple[TaskNetworks, TaskNetworks]]:
        """(own, other) for the first two tasks, in both orders."""
        first, second = self.tasks[:2]
        return [(first, second), (second, first)]

    @cached_property
    def overlap(self) -> np.ndarray:
        """ε = max |⟨x_i, x'_j⟩| of the first two tasks, (seed)."""
        first, second = self.tasks[:2]
        return (first.inputs @ second.inputs.mT).abs().amax((-2, -1)).numpy()


def read_runs(job: ClaimsJob, results: Path) -> Iterator[Run]:
    """Yield a run for each λ, ascending, from a folder of results; one at a time is in memory.

    Raises:
        UserError: a file of the experiment is missing or damaged.
    """

    def paths(place: str, **wildcards: str) -> list[Path]:
        common = {"experiment": job.experiment, **wildcards}
        return [layout.path(results, place, block=block, **common) for block in job.blocks]

    def all_seeds(place: str, **wildcards: str) -> xr.Dataset:
        files = [store.read(path) for path in paths(place, **wildcards)]
        return xr.concat(files, "seed", data_vars="all", combine_attrs="drop")

    places = [{"place": layout.TASKS, "task": task} for task in job.task_names]
    places += [
        {"place": layout.TRAINED, "task": task, "weight_decay": decay}
        for decay, task in product(weight_decays(job.training), job.task_names)
    ]
    store.refuse_others(job.made_from, [path for place in places for path in paths(**place)])
    tasks = [all_seeds(layout.TASKS, task=task) for task in job.task_names]
    for weight_decay in sorted(job.training.weight_decay):
        decay = format_weight_decay(weight_decay)
        networks = [all_seeds(layout.TRAINED, task=task, weight_decay=decay) for task in job.task_names]
        yield Run(job, weight_decay, tasks, networks)
