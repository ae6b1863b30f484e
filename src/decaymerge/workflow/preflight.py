"""Checks of the disk before any job starts: files and folders that the configuration names must be there."""

from pathlib import Path

from decaymerge.config import Config
from decaymerge.config.datasets import UserTask
from decaymerge.errors import UserError
from decaymerge.fetch.model import folder_of

BRACES = frozenset("{}")


def check(config: Config, resources: Path) -> None:
    """Look for the users' data and checkpoints, relative to the working folder.

    Raises:
        UserError: one is missing, or its path has braces, which Snakemake would take for wildcards.
    """
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
