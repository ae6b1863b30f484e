"""Which files of an experiment one job makes: as many as fill some minutes, so that starts do not outweigh work.

A file is known by its wildcards besides experiment and block. A part is what one job makes of them. Snakemake takes
the outputs of a rule from its text alone, so there is a rule for each part; experiments with the same tasks and λ
share it, and those whose files are made one by one share the one that is named like its stage.
"""

import itertools
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from decaymerge.config import Config
from decaymerge.config.experiment import Experiment
from decaymerge.config.merging import asks_for_inputs
from decaymerge.workflow import estimates, jobs, layout
from decaymerge.workflow.origins import Origins

T = TypeVar("T")
MOST = 32
"""Files of one job."""
LONGEST_COMMAND = 100_000
"""Characters of a job's command line. Linux allows 131 072 in one argument, and a shell gets the line as one."""
LEAST = 2
"""Seconds that a file takes at least."""
File = tuple[tuple[str, str], ...]
Part = tuple[File, ...]
Files = dict[str, list[Path]]


class Stage(NamedTuple):
    """A stage whose jobs can make several files of an experiment."""

    job: type[jobs.Job]
    place: str
    wildcards: Callable[[Experiment], dict[str, Iterable[str]]]
    """Wildcards of its files, besides experiment and block, with all of their values; none if it has no files."""
    estimate: Callable[..., estimates.Estimate]


def _of_task(experiment: Experiment) -> dict[str, Iterable[str]]:
    return {"task": experiment.named_tasks}


def _of_training(experiment: Experiment) -> dict[str, Iterable[str]]:
    return {"task": experiment.named_tasks, "weight_decay": jobs.weight_decays(experiment.training)}


def _of_merge_set(experiment: Experiment) -> dict[str, Iterable[str]]:
    return {"merge_set": experiment.merge_sets, "weight_decay": jobs.weight_decays(experiment.training)}


def _of_merge(experiment: Experiment) -> dict[str, Iterable[str]]:
    return _of_merge_set(experiment) if experiment.merges else {}


STAGES = {
    "tasks": Stage(jobs.TasksJob, layout.TASKS, _of_task, estimates.tasks),
    "train": Stage(jobs.TrainJob, layout.TRAINED, _of_training, estimates.train),
    "merge": Stage(jobs.MergeJob, layout.MERGED, _of_merge, estimates.merge),
    "evaluate": Stage(jobs.EvaluateJob, layout.EVALUATED, _of_merge_set, estimates.evaluate),
}


def parts(stage: str, origins: Origins, resources: Path) -> dict[Part, list[str]]:
    """The parts of a stage, each with the experiments that have it.

    Args:
        stage: One of ``STAGES``.
        origins: The jobs of a configuration. One of several files takes about ``minutes_per_job``, by the estimate
            for a slow core.
        resources: The folder for fetched files.
    """
    found: dict[Part, list[str]] = {}
    for name, experiment in origins.config.experiments.items():
        wildcards = STAGES[stage].wildcards(experiment)
        if not wildcards:
            continue
        first, *others = ([(key, value) for value in values] for key, values in wildcards.items())
        seconds = max(LEAST, STAGES[stage].estimate(experiment).seconds)
        most = min(MOST, int(60 * origins.config.minutes_per_job / seconds))
        if most > 1:
            most = min(most, LONGEST_COMMAND // _length(stage, origins, name, resources))
        if most < 2 or math.prod(map(len, [first, *others])) < 2:
            of_experiment = [[tuple((key, f"{{{key}}}") for key in wildcards)]]
        else:
            rows = list(itertools.product(*others))
            of_experiment = [
                [(one, *other) for one, other in itertools.product(some, part)]
                for some in _even(first, most // len(rows))
                for part in _even(rows, most)
            ]
        for part in of_experiment:
            found.setdefault(tuple(part), []).append(name)
    return found


def _length(stage: str, origins: Origins, name: str, resources: Path) -> int:
    """Characters of the longest command that makes one file of an experiment, quoted twice."""
    experiment = origins.config.experiments[name]
    values = {key: list(some)[-1] for key, some in STAGES[stage].wildcards(experiment).items()}
    if "merge_set" in values:
        values["merge_set"] = max(experiment.merge_sets, key=lambda one: len(experiment.merge_sets[one]))
    file = {"experiment": name, "block": jobs.seed_blocks(experiment)[-1], **values}
    return len(shlex.quote(shlex.join(arguments(stage, origins, file, Path("results"), resources))))


def _even(values: Sequence[T], most: int) -> list[Sequence[T]]:
    """Slices of about the same length, which is at most ``most`` where that is at least 1."""
    size = math.ceil(len(values) / math.ceil(len(values) / max(most, 1)))
    return [values[first : first + size] for first in range(0, len(values), size)]


def rule_names(stage: str, all_parts: Iterable[Part]) -> dict[Part, str]:
    """Names of the rules: the stage's where files are made one by one, else such as ``train_a_to_b_0_to_0.01``."""
    names: dict[Part, str] = {}
    for part in all_parts:
        columns = [] if is_open(part) else zip(*([value for _, value in file] for file in part), strict=True)
        ends = [dict.fromkeys((column[0], column[-1])) for column in columns]
        name = "_".join([stage, *("_to_".join(end) for end in ends)])
        again = (f"{name}_{i}" for i in itertools.count(2))  # others between the same ends
        names[part] = (
            name if name not in names.values() else next(n for n in again if n not in names.values())
        )
    return names


def is_open(part: Part) -> bool:
    """Whether a part is any one file, and Snakemake fills in its wildcards."""
    return "{" in part[0][0][1]


def place(stage: str, file: File) -> str:
    """The place of a file; the wildcards experiment and block stay, and those of an open part."""
    anything = {"experiment": "{experiment}", "block": "{block}"}
    return STAGES[stage].place.format_map({**anything, **dict(file)})


def described(part: Part) -> str:
    """The files of a part, such as ``a … b at λ = 0 … 0.01``, for a message."""
    if is_open(part):
        return " ".join(f"{{wildcards.{key}}}" for key, _ in part[0])
    columns = zip(*([value for _, value in file] for file in part), strict=True)
    return " at λ = ".join(" … ".join(dict.fromkeys((column[0], column[-1]))) for column in columns)


def files_of(part: Part, wildcards: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Wildcards of each file of a part, for the experiment and the block in ``wildcards``."""
    for file in part:
        own = {key: value.format_map(wildcards) for key, value in file}
        yield {"experiment": wildcards["experiment"], "block": wildcards["block"], **own}


def inputs(stage: str, config: Config, wildcards: Mapping[str, str], results: Path, resources: Path) -> Files:
    """Files that are read for one file of a stage, by the name of the option."""
    experiment = config.experiments[wildcards["experiment"]]
    if stage == "tasks":
        return {"data": [Path(file) for file in experiment.named_tasks[wildcards["task"]].files(resources)]}

    def of_tasks(place: str) -> list[Path]:
        return [layout.path(results, place, **{**wildcards, "task": task}) for task in tasks]

    if stage == "train":
        return {"tasks": [layout.path(results, layout.TASKS, **wildcards)]}
    tasks = experiment.merge_sets[wildcards["merge_set"]]
    own = of_tasks(layout.TRAINED)
    if stage == "merge":
        return {"own": own, "tasks": of_tasks(layout.TASKS) if asks_for_inputs(experiment.merges) else []}
    merged = [layout.path(results, layout.MERGED, **wildcards)] if experiment.merges else []
    return {"tasks": of_tasks(layout.TASKS), "own": own, "merged": merged}


def arguments(
    stage: str, origins: Origins, wildcards: Mapping[str, str], results: Path, resources: Path
) -> list[str]:
    """The command that makes one file of a stage, without the program's name."""
    files = inputs(stage, origins.config, wildcards, results, resources)
    output = layout.path(results, STAGES[stage].place, **wildcards)
    settings = ["--settings", origins.settings(STAGES[stage].job, **wildcards)]
    plain = {"tasks": ["data"], "train": ["tasks"], "merge": ["own"], "evaluate": []}[stage]
    paths = [path for kind in plain for path in files.pop(kind)]
    options = [f"--{kind}={path}" for kind, some in files.items() for path in some]
    before, after = ([*paths, output], []) if stage == "train" else ([output], paths)
    return [stage, *settings, *options, "--", *map(str, [*before, *after])]
