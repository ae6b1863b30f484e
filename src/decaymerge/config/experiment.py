"""Settings of one experiment: its tasks, network, training and merging (``experiments`` in the YAML)."""

import itertools
import string
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from decaymerge.config.base import Settings, refuse
from decaymerge.config.datasets import GaussianTask, NamedTasks, TaskSettings, tasks_form
from decaymerge.config.merging import MergeSettings, merge_name, named_coefficients
from decaymerge.config.numbers import Count, Loss, Number, PositiveNumber, Size, WeightDecay, Whole
from decaymerge.merge_methods import EVERYTHING

LBFGS_ITERATIONS = 20_000
"""Iterations of ``finish: lbfgs`` at most."""


class Network(Settings):
    """Homogeneous network without biases, scalar output: f(x) = W_K σ(W_{K-1} … σ(W_1 x))."""

    activation: Literal["relu", "linear"] = "relu"
    power: Annotated[Number, Field(ge=1, le=8)] = 1.0
    """p of ReLU^p; 1 is ReLU."""
    hidden: list[Size]
    """Widths of the hidden layers; an empty list is the linear predictor."""
    initialisation: Literal["gaussian", "balanced", "positive"] = "gaussian"
    """``gaussian``: variance 2/fan-in before a ReLU, 1/fan-in otherwise. ``balanced``, for linear networks:
    W_{k+1}ᵀW_{k+1} = W_kW_kᵀ with norms of 1 (Theorem 1). ``positive``: absolute values of ``gaussian``, each
    matrix scaled to norm 2, so that no unit starts inactive on inputs that are not negative."""
    initial_scale: Annotated[PositiveNumber, Field(le=100)] = 1.0
    """Factor of all initial weights."""
    fixed_outer_layer: bool = False
    """Keep the last layer at its initial value (Lemma 5)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Network":
        if self.initialisation == "balanced" and self.activation != "linear":
            raise refuse(f"initialisation: balanced belongs to activation: linear, not {self.activation}")
        if self.activation == "linear" and self.power != 1:
            raise refuse(f"power: {self.power:g} belongs to activation: relu; leave it out for linear")
        if self.fixed_outer_layer and not self.hidden:
            raise refuse("fixed_outer_layer: true leaves nothing to train when hidden: [] has no layer")
        return self

    @property
    def depth(self) -> int:
        """K, the number of weight matrices."""
        return len(self.hidden) + 1

    @property
    def smooth(self) -> bool:
        """Whether f is differentiable in its weights everywhere."""
        return not self.hidden or self.activation == "linear" or self.power > 1

    @property
    def trained_layers(self) -> int:
        """Number of layers that are trained, from the first."""
        return self.depth - self.fixed_outer_layer


class Optimisation(Settings):
    """How one network is trained at one λ."""

    renamed_keys: ClassVar = {"method": "optimiser", "checkpoints": "kept_steps"}

    loss: Loss = "logistic"
    """ℓ of the margin z: log(1 + e^-z), or ``exponential``: e^-z."""
    optimiser: Literal["gd", "sgd", "gf"] = "gd"
    """``gd``: full-batch gradient descent, W ← (1 - ηλ) W - η ∇L(W). ``sgd``: the same with the gradient of a
    minibatch. ``gf``: gradient flow dW/dt = -∇L(W) - λW (Eq. 1), kept at the times t = step · step_size."""
    step_size: PositiveNumber
    """η."""
    steps: Count
    """Number of updates; for ``gf`` the flow ends at t = steps · step_size."""
    kept_steps: Annotated[Whole, Field(ge=2, le=10_000)] = 40
    """Number of steps at which weights and metrics are kept: log-spaced, the first (0) and the last included."""
    batch_size: Size | None = None
    """``sgd``: samples of a minibatch. An epoch is a random order of all samples; those that fill no minibatch
    are left out of it."""
    solver_tolerance: Annotated[PositiveNumber, Field(ge=1e-13, le=1e-2)] | None = None
    """``gf``: tolerance of a solver's step; 1e-11 if left out, 1e-4 for ReLU networks, whose flow has kinks."""
    stationarity: Annotated[PositiveNumber, Field(ge=1e-14, lt=1)] | None = None
    """``gd``: the network of a seed stops where its residual ‖∇L + λθ‖ / (λ‖θ‖) falls below this value, and at the
    last step otherwise."""
    finish: Literal["lbfgs"] | None = None
    """``gd``: minimise L + λ‖θ‖²/2 from the last step on by L-BFGS, where GD is too slow to become stationary."""
    dtype: Literal["float32", "float64"] = "float32"
    """In ``float64`` the paper's claims are checked on the networks. The claims' pictures then replace a figure of
    the experiment; its summary is still made by the target ``results/{experiment}/summary.nc``."""

    @model_validator(mode="after")
    def _settings_of_optimiser(self) -> "Optimisation":
        for setting, optimiser in {
            "batch_size": "sgd",
            "solver_tolerance": "gf",
            "stationarity": "gd",
            "finish": "gd",
        }.items():
            if getattr(self, setting) is not None and self.optimiser != optimiser:
                raise refuse(
                    f"{setting}: {getattr(self, setting)} belongs to optimiser: {optimiser}, not {self.optimiser}"
                )
        if self.finish is not None and self.stationarity is None:
            raise refuse(f"finish: {self.finish} needs a stationarity to reach")
        if self.optimiser == "sgd" and self.batch_size is None:
            raise refuse("optimiser: sgd needs a batch_size")
        if self.optimiser == "gf" and self.dtype == "float32":
            raise refuse(
                "optimiser: gf is solved to a tolerance that dtype: float32 does not have; use float64"
            )
        return self


class Training(Optimisation):
    """How the networks of one experiment are trained; each λ of ``weight_decay`` is a job of its own."""

    weight_decay: Annotated[list[WeightDecay], Field(min_length=1)]
    """λ, one or more."""

    @model_validator(mode="after")
    def _distinct(self) -> "Training":
        if len(set(self.weight_decay)) < len(self.weight_decay):
            raise refuse(f"weight_decay: {self.weight_decay} names a value twice")
        return self


class Experiment(Settings):
    """Tasks, a network trained on each of them, and the merged networks."""

    tasks: Annotated[
        Annotated[TaskSettings, Tag("alike")] | Annotated[NamedTasks, Tag("named")],
        Discriminator(tasks_form),
    ]
    """Either one mapping with ``dataset``, for tasks a, b, … that are alike; or a mapping from each task's name
    to its settings."""
    task_count: Annotated[Whole, Field(ge=1, le=100)] | None = None
    """Number of tasks that are alike, 2 if left out."""
    network: Network
    training: Training
    seeds: Size
    """Number of repeats."""
    first_seed: Annotated[Whole, Field(ge=0, le=10**6)] = 0
    """Repeats are numbered from here. Another number repeats an experiment with other random numbers."""
    seeds_per_job: Count = 10
    """Seeds trained together by one job. Add seeds in multiples of it: a last block that is not full is
    trained again when it grows."""
    merge: list[MergeSettings] | None = None
    """Merge methods; sum and average if left out, none for a single task."""
    merge_first: Annotated[list[Annotated[Whole, Field(ge=2)]], Field(min_length=1)] | None = None
    """Merge the first 2, 4, … tasks, as many as are listed here, instead of every pair and all of them."""
    gap_by_layer: bool = False
    """Also evaluate which layer's cross terms set the sum apart from each own network
    (see ``evaluate/gap_by_layer.py``)."""
    effective_dimension: bool = False
    """Also evaluate how many directions of each layer's inputs the own networks take up
    (see ``evaluate/effective_dimension.py``)."""
    margin: Number = 1.0
    """Threshold of the margin error, the share of samples with y f(x) below it."""

    @model_validator(mode="after")
    def _tasks_agree(self) -> "Experiment":
        if isinstance(self.tasks, dict) and self.task_count is not None:
            raise refuse(f"task_count: {self.task_count} goes with tasks that are alike, these are named")
        tasks = self.named_tasks
        dims = {name: task.input_dim(len(tasks)) for name, task in tasks.items()}
        if len(set(dims.values())) > 1:
            listed = ", ".join(f"{name}: {dim}" for name, dim in dims.items())
            raise refuse(
                f"tasks have different input dimensions ({listed}); networks merge only if they agree"
            )
        for name in ("all", "dataset"):
            if name in tasks:
                raise refuse(f"a task cannot be named {name!r}: the word has a meaning of its own")
        overlaps = {name: task.overlap for name, task in tasks.items() if isinstance(task, GaussianTask)}
        if len(set(overlaps.values())) > 1:
            raise refuse(f"tasks have different overlaps ({overlaps}); overlap is a property of all of them")
        return self

    @model_validator(mode="after")
    def _minibatch_fits(self) -> "Experiment":
        batch_size = self.training.batch_size
        smallest = min(task.samples for task in self.named_tasks.values())
        if batch_size is not None and batch_size > smallest:
            raise refuse(f"training.batch_size: {batch_size} is above the {smallest} samples of a task")
        return self

    @model_validator(mode="after")
    def _merges_fit(self) -> "Experiment":
        task_count = len(self.named_tasks)
        if task_count == 1 and self.merge:
            raise refuse(f"merge: {self.merge} needs two tasks or more; leave it out for a single one")
        names = [merge_name(merging) for merging in self.merges]
        if len(set(names)) < len(names):
            raise refuse(f"merge: {names} names a method twice")
        matrices = [f"W{k}" for k in range(1, self.network.trained_layers + 1)]
        known = [*self.named_tasks, *matrices, EVERYTHING]
        for name in (name for merging in self.merges for name in named_coefficients(merging)):
            if name not in known:
                raise refuse(f"merge: coefficient: {name} is none of {', '.join(known)}")
        counts = self.merge_first or []
        if len(set(counts)) < len(counts):
            raise refuse(f"merge_first: {counts} names a number twice")
        if counts and max(counts) > task_count:
            raise refuse(f"merge_first: {counts} goes beyond the {task_count} tasks of the experiment")
        if self.gap_by_layer and "sum" not in names:
            raise refuse(f"gap_by_layer: true is about the sum of networks, which merge: {names} lacks")
        return self

    @property
    def named_tasks(self) -> dict[str, TaskSettings]:
        """Settings of each task by its name; tasks that are alike are named a, …, z, aa, ab, …"""
        if isinstance(self.tasks, dict):
            return self.tasks
        letters = string.ascii_lowercase
        names = itertools.chain(letters, map("".join, itertools.product(letters, repeat=2)))
        return dict.fromkeys(itertools.islice(names, self.task_count or 2), self.tasks)

    @property
    def same_inputs(self) -> bool:
        """Whether all tasks have their inputs from one distribution."""
        tasks = self.named_tasks.values()
        return all(isinstance(task, GaussianTask) and task.overlap == "same" for task in tasks)

    @property
    def merges(self) -> list[MergeSettings]:
        """Merge methods, with the default filled in."""
        if self.merge is None:
            return ["sum", "average"] if len(self.named_tasks) > 1 else []
        return self.merge

    @property
    def merge_sets(self) -> dict[str, list[str]]:
        """Tasks of each merge set: ``a+b`` for two tasks, ``all`` for all of more than two, ``a`` for a single
        task.

        With ``merge_first``: the first two, ``a+b``, the first four, ``first_4``, … in ascending order.
        """
        names = list(self.named_tasks)
        if len(names) == 1:
            return {names[0]: names}
        if self.merge_first is not None:
            special = {len(names): "all", 2: "+".join(names[:2])}
            return {special.get(n, f"first_{n}"): names[:n] for n in sorted(self.merge_first)}
        pairs = {f"{a}+{b}": [a, b] for a, b in itertools.combinations(names, 2)}
        return pairs if len(names) == 2 else {**pairs, "all": names}
