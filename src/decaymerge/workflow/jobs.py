"""What a job gets: the part of the configuration that its stage needs, and no more.

The workflow passes these as JSON through ``params:``, so a setting re-runs exactly the jobs that depend on it,
and each result carries them as an attribute.
"""

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from decaymerge.config import Config
from decaymerge.config.base import Settings, refuse
from decaymerge.config.datasets import GaussianTask, TaskSettings
from decaymerge.config.drawing import Drawing
from decaymerge.config.experiment import Experiment, Network, Optimisation, Training
from decaymerge.config.merging import MergeSettings, named_coefficients
from decaymerge.config.numbers import Loss, PositiveNumber, Size, WeightDecay, shortest
from decaymerge.errors import UserError

MOST_SEEDS = 100_000
"""Of one job."""
Names = Annotated[list[str], Field(min_length=1)]


class Job(Settings):
    """Settings of one job. ``of(config, **wildcards)`` takes them from the configuration."""

    made_from: list[str] = Field(default_factory=list)
    """Digests of the settings of the files that are read; nothing is compared where there are none."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The job from its JSON.

        Raises:
            UserError: the text does not fit the model.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = " ".join(["--settings", *(str(part) for part in first["loc"])])
            raise UserError(f"{where}: {first['msg']}, got {first['input']!r}") from None


class TasksJob(Job):
    """Data of one task for a block of seeds."""

    experiment: str
    task: str
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    index: Annotated[int, Field(ge=0)]
    """Position of the task among the experiment's, from 0: it decides the task's coordinates."""
    task_count: Size
    """Number of tasks of the experiment."""
    data: TaskSettings
    """What the data are."""

    @model_validator(mode="after")
    def _index_is_below_count(self) -> Self:
        if self.index >= self.task_count:
            raise refuse(f"index: {self.index} is not below task_count: {self.task_count}")
        return self

    @classmethod
    def of(cls, config: Config, experiment: str, task: str, block: str) -> Self:
        """One task and block."""
        tasks = config.experiments[experiment].named_tasks
        return cls(
            experiment=experiment,
            task=task,
            seeds=seeds_of(block),
            index=list(tasks).index(task),
            task_count=len(tasks),
            data=tasks[task],
        )


class TrainJob(Optimisation, Job):
    """Training of one task at one λ."""

    experiment: str
    task: str
    weight_decay: WeightDecay
    network: Network

    @classmethod
    def of(cls, config: Config, experiment: str, task: str, weight_decay: str, block: str) -> Self:
        """One task and λ; all blocks of seeds are trained alike."""
        settings = config.experiments[experiment]
        return cls(
            experiment=experiment,
            task=task,
            weight_decay=float(weight_decay),
            network=settings.network,
            **settings.training.model_dump(exclude={"weight_decay"}),
        )


class MergeJob(Job):
    """Merging of the networks of one merge set."""

    methods: Annotated[list[MergeSettings], Field(min_length=1)]
    network: Network
    task_names: list[str] = Field(default_factory=list)
    """Tasks of the merge set, where a coefficient names one."""

    @classmethod
    def of(cls, config: Config, experiment: str, merge_set: str, weight_decay: str, block: str) -> Self:
        """All networks of an experiment are merged alike."""
        settings = config.experiments[experiment]
        by_name = any(named_coefficients(merging) for merging in settings.merges)
        names = settings.merge_sets[merge_set] if by_name else []
        return cls(methods=settings.merges, network=settings.network, task_names=names)


class EvaluateJob(Job):
    """Evaluation of the own and the merged networks of one merge set."""

    merge_set: str
    task_names: Names
    weight_decay: WeightDecay
    network: Network
    loss: Loss
    margin: float
    gap_by_layer: bool = False
    effective_dimension: bool = False

    @classmethod
    def of(cls, config: Config, experiment: str, merge_set: str, weight_decay: str, block: str) -> Self:
        """One merge set at one λ."""
        settings = config.experiments[experiment]
        return cls(
            merge_set=merge_set,
            task_names=settings.merge_sets[merge_set],
            weight_decay=float(weight_decay),
            network=settings.network,
            loss=settings.training.loss,
            margin=settings.margin,
            gap_by_layer=settings.gap_by_layer,
            effective_dimension=settings.effective_dimension,
        )


class GatherJob(Job):
    """All evaluations of one experiment."""

    experiment: str
    merge_sets: Names
    weight_decay: Names
    blocks: Names

    @classmethod
    def of(cls, config: Config, experiment: str) -> Self:
        """The whole experiment."""
        settings = config.experiments[experiment]
        return cls(
            experiment=experiment,
            merge_sets=list(settings.merge_sets),
            weight_decay=weight_decays(settings.training),
            blocks=seed_blocks(settings),
        )


class ClaimsJob(Job):
    """Claims about the networks of one experiment."""

    experiment: str
    task_names: Names
    data: list[TaskSettings]
    """What each task's data are."""
    network: Network
    training: Training
    blocks: Names

    @classmethod
    def of(cls, config: Config, experiment: str) -> Self:
        """The whole experiment."""
        settings = config.experiments[experiment]
        return cls(
            experiment=experiment,
            task_names=list(settings.named_tasks),
            data=list(settings.named_tasks.values()),
            network=settings.network,
            training=settings.training,
            blocks=seed_blocks(settings),
        )

    @property
    def orthogonal_inputs(self) -> bool:
        """Whether the inputs of two tasks or more are orthogonal by the settings of their data."""
        return len(self.data) > 1 and all(
            isinstance(data, GaussianTask) and data.overlap in ("orthogonal", 0) for data in self.data
        )


class FigureJob(Job):
    """One picture: which figure it is, how it is drawn, and the experiments or models that it shows."""

    figure: str
    names: list[str]
    experiments: list[Experiment] = Field(default_factory=list)
    """Settings of the experiments; none where models are shown."""
    drawing: Drawing = Drawing()

    @classmethod
    def of(cls, config: Config, figure: str) -> Self:
        """One file of ``results/figures``, or ``claims`` for the pictures of all claims."""
        if figure == "claims":
            kind, names = figure, config.claimed
        elif figure == "table1":
            kind, names = figure, list(config.scan.models)
        else:
            kind, names = config.pictures[figure]
        experiments = [config.experiments[name] for name in names if name in config.experiments]
        drawing = config.figures.drawing
        return cls(figure=kind, names=names, experiments=experiments, drawing=drawing)


class HypothesesJob(Job):
    """The hypotheses about sums, on all experiments that merge by summing and are shown by their summaries."""

    same_inputs: dict[str, bool]
    """Whether the tasks of each experiment have the same inputs."""
    weight_decay: WeightDecay
    """λ at which they are judged; the nearest of an experiment's own is taken."""

    @classmethod
    def of(cls, config: Config) -> Self:
        """The whole run."""
        same_inputs = {name: config.experiments[name].same_inputs for name in config.summed}
        return cls(same_inputs=same_inputs, weight_decay=config.figures.weight_decay)


class ScanJob(Job):
    """Scan of one checkpoint."""

    source: list[str]
    path: str
    tolerance: PositiveNumber
    spectrum: bool

    @classmethod
    def of(cls, config: Config, model: str) -> Self:
        """One model."""
        scanned, scan = config.scan.models[model], config.scan
        return cls(
            source=scanned.sources, path=scanned.path, tolerance=scan.tolerance, spectrum=scan.spectrum
        )


class AdapterScanJob(Job):
    """Scan of a LoRA adapter beside its base."""

    source: list[str]
    base: str
    """The base, as it was given or as the adapter names it."""
    tolerance: PositiveNumber


class CheckpointsJob(Job):
    """Merging of checkpoints, and the prediction of their interference."""

    models: Annotated[list[str], Field(min_length=2)]
    """Sources, as they were given."""
    base: str | None
    method: MergeSettings
    inputs: dict[str, str] = Field(default_factory=dict)
    """File of each model's inputs, by the model's name."""
    as_adapter: bool = False
    """Write one adapter instead of a model."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Largest rank of an adapter, or none for the exact one."""
    max_shard_size: str = "2GB"
    partial: bool = False
    by_name: bool = False


def format_weight_decay(weight_decay: float) -> str:
    """λ as it is written in file names."""
    return shortest(weight_decay)


def weight_decays(training: Training) -> list[str]:
    """λ of a sweep, ascending, as they are written in file names."""
    return [format_weight_decay(value) for value in sorted(training.weight_decay)]


def seed_blocks(experiment: Experiment) -> list[str]:
    """Names ``first-last`` of the blocks of seeds, each trained by one job."""
    size, end = experiment.seeds_per_job, experiment.first_seed + experiment.seeds
    return [f"{first}-{min(first + size, end) - 1}" for first in range(experiment.first_seed, end, size)]


def seeds_of(block: str) -> list[int]:
    """Seeds of a block named by ``seed_blocks``."""
    first, last = map(int, block.split("-"))
    if last - first >= MOST_SEEDS:
        raise UserError(f"the block of seeds {block} has more than {MOST_SEEDS}; give smaller ones")
    return list(range(first, last + 1))
