"""Checks of the disk before any job starts: files and folders that the configuration names must be there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from decaymerge.config import Config
from decaymerge.config.datasets import UserTask
from decaymerge.errors import UserError
from decaymerge.fetch.model import folder_of

BRACES = frozenset("{}")


def check_memory(jobs: Iterable[Any]) -> None:
    """Compare what each job asks for with the memory of this machine.

    Args:
        jobs: Those of Snakemake that are to run.

    Raises:
        UserError: one asks for more.
    """
    largest = max(jobs, key=lambda job: job.resources.get("mem_mb", 0), default=None)
    if largest is None:
        return
    asked, there = largest.resources.get("mem_mb", 0) * 1e6, psutil.virtual_memory().total
    if asked > there:
        place = ", ".join(f"{name} {value}" for name, value in largest.wildcards_dict.items())
        raise UserError(
            f"{largest.rule.name} ({place}) needs about {asked / 1e9:.1f} GB of memory, and this machine has"
            f" {there / 1e9:.1f} GB: make network.hidden, tasks.samples, seeds_per_job or kept_steps smaller, or"
            " take a larger machine (docs/how-to/cluster.md)"
        )


def check(config: Config, resources: Path) -> None:
    """Look for the users' data and checkpoints, relative to the working folder.

    Raises:
        UserError: one is missing, or its path has braces, which Snakemake would take for wildcards.
    """
    if resources.is_file() or str(resources).startswith("-"):
        raise UserError(f"DECAYMERGE_CACHE = {resources} is no folder; give the absolute path of one")
    if BRACES & set(str(resources)):
        raise UserError(f"DECAYMERGE_CACHE = {resources}: a path with braces would be taken for wildcards")
    for name, experiment in config.experiments.items():
        for task, settings in experiment.named_tasks.items():
            if isinstance(settings, UserTask) and not Path(settings.file).is_file():
                raise UserError(
                    f"experiments.{name}: task {task} needs {settings.file}, and there is no such file; a path"
                    " starts from the configuration that names it"
                )
    for name, model in config.scan.models.items():
        if not model.sources[0].startswith("path:"):
            continue
        folder = folder_of(model, resources)
        if not folder.exists() or BRACES & set(str(folder)):
            raise UserError(
                f"scan.models.{name}.source = {model.source}: {folder} does not exist, or has braces"
            )
