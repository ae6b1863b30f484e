"""With which settings the files that a job reads must have been made, so that no foreign or stale one is taken.

Every file has the settings of its job as an attribute. A job gets the digests of those of its inputs, in their
order; of many files, one digest of all. As the settings of the inputs have such digests too, one digest stands for
all that led to a file. ``store.refuse_others`` compares them.
"""

from itertools import product
from typing import Any

from decaymerge.config import Config
from decaymerge.config.figures import FIGURES
from decaymerge.config.merging import asks_for_inputs
from decaymerge.digests import combined, digest
from decaymerge.workflow.jobs import (
    ClaimsJob,
    EvaluateJob,
    FigureJob,
    GatherJob,
    HypothesesJob,
    Job,
    MergeJob,
    TasksJob,
    TrainJob,
    seed_blocks,
    weight_decays,
)


class Origins:
    """The jobs of a configuration, each with the digests of its inputs' settings.

    Args:
        config: The whole configuration.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._settings: dict[tuple[object, ...], str] = {}

    def job(self, kind: type[Job], **wildcards: str) -> Job:
        """A job with these wildcards."""
        maker: Any = kind
        job: Job = maker.of(self.config, **wildcards)
        return job.model_copy(update={"made_from": self._made_from(kind, wildcards)})

    def settings(self, kind: type[Job], **wildcards: str) -> str:
        """The settings of a job as JSON; kept, as Snakemake asks for them in each pass of its scheduler."""
        key = (kind, *sorted(wildcards.items()))
        if key not in self._settings:
            self._settings[key] = self.job(kind, **wildcards).model_dump_json()
        return self._settings[key]

    def digest(self, kind: type[Job], **wildcards: str) -> str:
        """Digest of the settings of a job."""
        return digest(self.settings(kind, **wildcards))

    def _made_from(self, kind: type[Job], wildcards: dict[str, str]) -> list[str]:
        if kind is TrainJob:
            place = {key: wildcards[key] for key in ("experiment", "task", "block")}
            return [self.digest(TasksJob, **place)]
        if kind in (MergeJob, EvaluateJob):
            return self._of_merge_set(kind, wildcards)
        if kind in (GatherJob, ClaimsJob):
            return [combined(self._of_experiment(kind, wildcards["experiment"]))]
        if kind is HypothesesJob:
            return [self.digest(GatherJob, experiment=name) for name in self.config.summed]
        if kind is FigureJob:
            return self._of_figure(wildcards["figure"])
        return []

    def _of_merge_set(self, kind: type[Job], wildcards: dict[str, str]) -> list[str]:
        experiment = self.config.experiments[wildcards["experiment"]]
        place = {key: wildcards[key] for key in ("experiment", "block")}
        decay = wildcards["weight_decay"]
        names = experiment.merge_sets[wildcards["merge_set"]]
        tasks = [self.digest(TasksJob, task=name, **place) for name in names]
        own = [self.digest(TrainJob, task=name, weight_decay=decay, **place) for name in names]
        if kind is MergeJob:
            return [*own, *(tasks if asks_for_inputs(experiment.merges) else [])]
        return [*tasks, *own, *([self.digest(MergeJob, **wildcards)] if experiment.merges else [])]

    def _of_experiment(self, kind: type[Job], name: str) -> list[str]:
        experiment = self.config.experiments[name]
        decays, blocks = weight_decays(experiment.training), seed_blocks(experiment)
        if kind is GatherJob:
            return [
                self.digest(EvaluateJob, experiment=name, merge_set=one, weight_decay=decay, block=block)
                for one, decay, block in product(experiment.merge_sets, decays, blocks)
            ]
        tasks = [
            self.digest(TasksJob, experiment=name, task=task, block=block)
            for task, block in product(experiment.named_tasks, blocks)
        ]
        return tasks + [
            self.digest(TrainJob, experiment=name, task=task, weight_decay=decay, block=block)
            for decay, task, block in product(decays, experiment.named_tasks, blocks)
        ]

    def _of_figure(self, figure: str) -> list[str]:
        if figure == "claims":
            return [self.digest(ClaimsJob, experiment=name) for name in self.config.claimed]
        if figure not in self.config.pictures:  # Table 1, of scans
            return []
        kind, names = self.config.pictures[figure]
        sources: dict[str, type[Job]] = {"summary": GatherJob, "claims": ClaimsJob}
        source = sources.get(FIGURES[kind].reads)
        return [] if source is None else [self.digest(source, experiment=name) for name in names]
