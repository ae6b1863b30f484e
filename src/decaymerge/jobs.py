"""What a job gets: the part of the configuration that its stage needs, and no more.

The workflow passes these as JSON through ``params:``, so a setting re-runs exactly the jobs that depend on it,
and each result carries them as an attribute.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError, model_validator

from decaymerge.config import Config, Drawing
from decaymerge.datasets import TaskSettings
from decaymerge.errors import UserError
from decaymerge.experiments import Experiment, MergeSettings, Method, Network, Training, experiment_pairs
from decaymerge.settings import Loss, PositiveNumber, Settings, Size, WeightDecay, refuse, shortest

Job = TypeVar("Job", bound=Settings)


class TasksJob(Settings):
    """Data of one task for a block of seeds."""

    experiment: str
    task: str
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    index: Annotated[int, Field(ge=0)]
    """Position of the task among the experiment's, from 0: it decides the task's coordinates."""
    tasks: Size
    """Number of tasks of the experiment."""
    settings: TaskSettings

    @model_validator(mode="after")
    def _consistent(self) -> "TasksJob":
        if self.index >= self.tasks:
            raise refuse(f"index: {self.index} is not below tasks: {self.tasks}")
        return self


class TrainJob(Method):
    """Training of one task at one λ."""

    experiment: str
    task: str
    weight_decay: WeightDecay
    network: Network


class MergeJob(Settings):
    """Merging of the networks of one pair."""

    methods: Annotated[list[MergeSettings], Field(min_length=1)]
    trained: Annotated[int, Field(ge=1)]
    """Layers that are merged, from the first; a fixed outer layer is the same in all networks and stays."""


class EvaluateJob(Settings):
    """Evaluation of the own and the merged networks of one pair."""

    pair: str
    tasks: Annotated[list[str], Field(min_length=1)]
    weight_decay: WeightDecay
    network: Network
    loss: Loss
    margin: float
    gap_by_layer: bool = False


class GatherJob(Settings):
    """All evaluations of one experiment, which lie at ``{pair}/weight_decay={λ}/seeds={block}.nc``."""

    pairs: Annotated[list[str], Field(min_length=1)]
    weight_decay: Annotated[list[str], Field(min_length=1)]
    blocks: Annotated[list[str], Field(min_length=1)]


class ClaimsJob(Settings):
    """Claims about the networks of one experiment."""

    experiment: str
    tasks: Annotated[list[str], Field(min_length=1)]
    data: list[TaskSettings]
    """Of each task."""
    network: Network
    training: Training
    blocks: Annotated[list[str], Field(min_length=1)]


class FigureJob(Settings):
    """One figure: how it is drawn, and the experiments that it shows."""

    settings: Drawing
    """As JSON these are the only ones of ``Figures``: naming an experiment for one figure draws no other anew."""
    names: list[str]
    experiments: list[Experiment]


class ScanJob(Settings):
    """Scan of one checkpoint."""

    source: list[str]
    path: str
    tolerance: PositiveNumber
    spectrum: bool


class CheckpointsJob(Settings):
    """Merging of checkpoints, and the prediction of their interference."""

    models: Annotated[list[str], Field(min_length=2)]
    """Sources, as they were given."""
    base: str | None
    method: MergeSettings


def format_weight_decay(weight_decay: float) -> str:
    """λ as it stands in file names."""
    return shortest(weight_decay)


def seed_blocks(experiment: Experiment) -> list[str]:
    """Names ``first-last`` of the blocks of seeds, each trained by one job."""
    size = experiment.seeds_per_job
    return [
        f"{first}-{min(first + size, experiment.seeds) - 1}" for first in range(0, experiment.seeds, size)
    ]


def seeds_of(block: str) -> list[int]:
    """Seeds of a block named by ``seed_blocks``."""
    first, last = map(int, block.split("-"))
    return list(range(first, last + 1))


def tasks_job(name: str, experiment: Experiment, task: str, block: str) -> TasksJob:
    """Settings of the job that makes one task's data."""
    return TasksJob(
        experiment=name,
        task=task,
        seeds=seeds_of(block),
        index=list(experiment.named_tasks).index(task),
        tasks=len(experiment.named_tasks),
        settings=experiment.named_tasks[task],
    )


def train_job(name: str, experiment: Experiment, task: str, weight_decay: str) -> TrainJob:
    """Settings of the job that trains one task's networks at one λ."""
    training = experiment.training.model_dump(exclude={"weight_decay"})
    return TrainJob(
        experiment=name, task=task, weight_decay=float(weight_decay), network=experiment.network, **training
    )


def merge_job(experiment: Experiment) -> MergeJob:
    """Settings of the jobs that merge an experiment's networks."""
    return MergeJob(methods=experiment.merging, trained=experiment.network.trained)


def evaluate_job(experiment: Experiment, pair: str, weight_decay: str) -> EvaluateJob:
    """Settings of the job that evaluates one pair at one λ."""
    return EvaluateJob(
        pair=pair,
        tasks=experiment_pairs(experiment)[pair],
        weight_decay=float(weight_decay),
        network=experiment.network,
        loss=experiment.training.loss,
        margin=experiment.margin,
        gap_by_layer=experiment.gap_by_layer,
    )


def gather_job(experiment: Experiment) -> GatherJob:
    """Settings of the job that gathers an experiment's evaluations."""
    return GatherJob(
        pairs=list(experiment_pairs(experiment)),
        weight_decay=weight_decays(experiment.training),
        blocks=seed_blocks(experiment),
    )


def claims_job(name: str, experiment: Experiment) -> ClaimsJob:
    """Settings of the job that checks the claims about one experiment."""
    return ClaimsJob(
        experiment=name,
        tasks=list(experiment.named_tasks),
        data=list(experiment.named_tasks.values()),
        network=experiment.network,
        training=experiment.training,
        blocks=seed_blocks(experiment),
    )


def figure_job(config: Config, names: list[str]) -> FigureJob:
    """Settings of the job that draws a figure of these experiments."""
    shown = [config.experiments[name] for name in names]
    return FigureJob(settings=config.figures, names=names, experiments=shown)


def weight_decays(training: Training) -> list[str]:
    """λ of a sweep, ascending, as they stand in file names."""
    return [format_weight_decay(value) for value in sorted(training.weight_decay)]


def parse(model: type[Job], text: str) -> Job:
    """Settings of a job from its JSON.

    Raises:
        UserError: the text does not fit the model.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(["--settings", *(str(part) for part in first["loc"])])
        raise UserError(f"{where}: {first['msg']}, got {first['input']!r}") from None


def describe_experiment(experiment: Experiment) -> str:
    """One line for a figure: network, training, n, d and seeds."""
    return _description(experiment, _widths(experiment))


def describe_sweep(experiments: Sequence[Experiment]) -> list[str]:
    """Lines for a figure of several experiments, one for those that differ in nothing but their widths."""
    widths_of: dict[str, list[str]] = {}
    for experiment in experiments:
        line = f"{_description(experiment, '{}')}; {experiment.training.steps} steps"
        widths_of.setdefault(line, []).append(_widths(experiment))
    return [line.format(" | ".join(dict.fromkeys(widths))) for line, widths in widths_of.items()]


def _widths(experiment: Experiment) -> str:
    return ", ".join(map(str, experiment.network.hidden)) or "none"


def _description(experiment: Experiment, widths: str) -> str:
    tasks = experiment.named_tasks
    samples = "/".join(str(value) for value in dict.fromkeys(task.samples for task in tasks.values()))
    dims = {task.input_dim(len(tasks)) for task in tasks.values()}
    network = experiment.network
    kind = {"relu": "ReLU", "linear": "linear"}[network.activation]
    power = "" if network.power == 1 else f"^{network.power:g}"
    return (
        f"{kind}{power} network, hidden widths {widths}; n = {samples} samples a task, d = {dims.pop()};"
        f" η = {experiment.training.step_size:g}; {experiment.seeds} seeds"
    )
