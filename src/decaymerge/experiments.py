"""Settings of one experiment: its tasks, network, training and merging."""

import itertools
import string
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from decaymerge.datasets import GaussianTask, NamedTasks, TaskSettings, tasks_form
from decaymerge.settings import (
    Count,
    Loss,
    Number,
    PositiveNumber,
    Settings,
    Size,
    WeightDecay,
    Whole,
    refuse,
    shortest,
)


class Network(Settings):
    """Homogeneous network without biases, scalar output: f(x) = W_K σ(W_{K-1} … σ(W_1 x))."""

    activation: Literal["relu", "linear"] = "relu"
    power: Annotated[Number, Field(ge=1, le=8)] = 1.0
    """p of ReLU^p; 1 is ReLU."""
    hidden: list[Size]
    """Widths of the hidden layers; an empty list is the linear predictor."""
    initialisation: Literal["gaussian", "balanced"] = "gaussian"
    """``gaussian``: variance 2/fan-in before a ReLU, 1/fan-in otherwise. ``balanced``, for linear networks:
    W_{k+1}ᵀW_{k+1} = W_kW_kᵀ with norms of 1 (Theorem 1)."""
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
    def trained(self) -> int:
        """Number of layers that are trained, from the first."""
        return self.depth - self.fixed_outer_layer


class Method(Settings):
    """How one network is trained at one λ."""

    loss: Loss = "logistic"
    """ℓ of the margin z: log(1 + e^-z), or ``exponential``: e^-z."""
    method: Literal["gd", "sgd", "gf"] = "gd"
    """``gd``: full-batch gradient descent, W ← (1 - ηλ) W - η ∇L(W). ``sgd``: the same with the gradient of a
    minibatch. ``gf``: gradient flow dW/dt = -∇L(W) - λW (Eq. 1), kept at the times t = step · step_size."""
    step_size: PositiveNumber
    """η."""
    steps: Count
    checkpoints: Annotated[Whole, Field(ge=2, le=10_000)] = 40
    """Steps at which weights and metrics are kept: log-spaced, the first (0) and the last included."""
    batch_size: Size | None = None
    """``sgd``: samples of a minibatch. An epoch is a random order of all samples; those that fill no minibatch
    are left out of it."""
    solver_tolerance: Annotated[PositiveNumber, Field(ge=1e-13, le=1e-2)] | None = None
    """``gf``: tolerance of a solver's step; 1e-11 if left out, 1e-4 for ReLU networks, whose flow has kinks."""
    stationarity: Annotated[PositiveNumber, Field(ge=1e-14, lt=1)] | None = None
    """``gd``: a member stops where its residual ‖∇L + λθ‖ / (λ‖θ‖) is below this; where it is left out, and for a
    member that does not get there, at the last step."""
    finish: Literal["lbfgs"] | None = None
    """``gd``: minimise L + λ‖θ‖²/2 from the last step on by L-BFGS, where GD is too slow to become stationary."""
    dtype: Literal["float32", "float64"] = "float32"
    """In ``float64`` the paper's claims are checked on the networks, and drawn in the place of a figure of its own;
    the target ``results/{experiment}/summary.nc`` evaluates it all the same."""

    @model_validator(mode="after")
    def _settings_of_method(self) -> "Method":
        for setting, method in {
            "batch_size": "sgd",
            "solver_tolerance": "gf",
            "stationarity": "gd",
            "finish": "gd",
        }.items():
            if getattr(self, setting) is not None and self.method != method:
                raise refuse(
                    f"{setting}: {getattr(self, setting)} belongs to method: {method}, not {self.method}"
                )
        if self.finish is not None and self.stationarity is None:
            raise refuse(f"finish: {self.finish} needs a stationarity to reach")
        if self.method == "sgd" and self.batch_size is None:
            raise refuse("method: sgd needs a batch_size")
        if self.method == "gf" and self.dtype == "float32":
            raise refuse("method: gf is solved to a tolerance that dtype: float32 does not have; use float64")
        return self


class Training(Method):
    """How the networks of one experiment are trained; each λ of ``weight_decay`` is a job of its own."""

    weight_decay: Annotated[list[WeightDecay], Field(min_length=1)]
    """λ, one or more."""

    @model_validator(mode="after")
    def _consistent(self) -> "Training":
        if len(set(self.weight_decay)) < len(self.weight_decay):
            raise refuse(f"weight_decay: {self.weight_decay} names a value twice")
        return self


class ScaledMerge(Settings):
    """``coefficient`` times the sum of the networks."""

    method: Literal["scaled"]
    coefficient: Annotated[Number, Field(ge=-1e6, le=1e6)]


MergeSettings = Literal["sum", "average"] | ScaledMerge


class Experiment(Settings):
    """Tasks, a network trained on each of them, and the merged networks."""

    tasks: Annotated[
        Annotated[TaskSettings, Tag("alike")] | Annotated[NamedTasks, Tag("named")],
        Discriminator(tasks_form),
    ]
    """Either one mapping with ``dataset``, for tasks a, b, … that are alike; or a mapping from each task's name
    to its settings."""
    task_count: Annotated[Whole, Field(ge=1, le=26)] | None = None
    """Number of tasks that are alike, 2 if left out."""
    network: Network
    training: Training
    seeds: Size
    """Number of repeats: seeds 0, 1, …"""
    seeds_per_job: Count = 10
    """Seeds trained together by one job. Add seeds in multiples of it: a last block that is not full is
    trained anew when it grows."""
    merge: list[MergeSettings] | None = None
    """Merging methods; sum and average if left out, none for a single task."""
    merge_first: Annotated[list[Annotated[Whole, Field(ge=2)]], Field(min_length=1)] | None = None
    """Merge the first 2, 4, … tasks, as many as are listed here, in the place of every pair and of all of them."""
    gap_by_layer: bool = False
    """Evaluate as well which layer's cross terms set the sum apart from each own network (see ``gap.py``)."""
    margin: Number = 1.0
    """Threshold of the margin error, the share of samples with y f(x) below it."""

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
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
        batch_size = self.training.batch_size
        smallest = min(task.samples for task in tasks.values())
        if batch_size is not None and batch_size > smallest:
            raise refuse(f"training.batch_size: {batch_size} is above the {smallest} samples of a task")
        if len(tasks) == 1 and self.merge:
            raise refuse(f"merge: {self.merge} needs two tasks or more; leave it out for a single one")
        names = [merge_name(method) for method in self.merging]
        if len(set(names)) < len(names):
            raise refuse(f"merge: {names} names a method twice")
        counts = self.merge_first or []
        if len(set(counts)) < len(counts):
            raise refuse(f"merge_first: {counts} names a number twice")
        if counts and max(counts) > len(tasks):
            raise refuse(f"merge_first: {counts} goes beyond the {len(tasks)} tasks of the experiment")
        if self.gap_by_layer and "sum" not in names:
            raise refuse(f"gap_by_layer: true is about the sum of networks, which merge: {names} lacks")
        return self

    @property
    def named_tasks(self) -> dict[str, TaskSettings]:
        """Settings of each task by its name; tasks that are alike are named a, b, …"""
        if isinstance(self.tasks, dict):
            return self.tasks
        return dict.fromkeys(string.ascii_lowercase[: self.task_count or 2], self.tasks)

    @property
    def merging(self) -> list[MergeSettings]:
        """Merging methods, with the default filled in."""
        if self.merge is None:
            return ["sum", "average"] if len(self.named_tasks) > 1 else []
        return self.merge


def merge_name(method: MergeSettings) -> str:
    """Name of a merged network on the ``model`` dimension."""
    return method if isinstance(method, str) else f"{method.method}={shortest(method.coefficient)}"


def experiment_pairs(experiment: Experiment) -> dict[str, list[str]]:
    """Tasks of each merge: ``a+b`` for every pair, ``all`` for the sum of more than two, ``a`` for a single.

    With ``merge_first``: the first two, ``a+b``, the first four, ``first_4``, … in ascending order.
    """
    names = list(experiment.named_tasks)
    if len(names) == 1:
        return {names[0]: names}
    if experiment.merge_first is not None:
        special = {len(names): "all", 2: "+".join(names[:2])}
        counts = sorted(experiment.merge_first)
        return {special.get(count, f"first_{count}"): names[:count] for count in counts}
    pairs = {f"{a}+{b}": [a, b] for a, b in itertools.combinations(names, 2)}
    return pairs if len(names) == 2 else {**pairs, "all": names}
