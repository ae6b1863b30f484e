"""Results of which Snakemake has no record: were they made with the settings that the configuration has now?

Snakemake compares settings with those in ``.snakemake``. Where that folder is lost, or results come from elsewhere,
it takes any file that is there. The files have their settings, which are compared here, before any job starts.
"""

import base64
import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from decaymerge.config import Config
from decaymerge.errors import UserError
from decaymerge.workflow import layout
from decaymerge.workflow.jobs import (
    ClaimsJob,
    EvaluateJob,
    GatherJob,
    Job,
    MergeJob,
    ScanJob,
    TasksJob,
    TrainJob,
    seed_blocks,
    weight_decays,
)
from decaymerge.workflow.origins import Origins

METADATA = Path(".snakemake/metadata")
PLACES: dict[str, type[Job]] = {
    layout.TASKS: TasksJob,
    layout.TRAINED: TrainJob,
    layout.MERGED: MergeJob,
    layout.EVALUATED: EvaluateJob,
    layout.SUMMARY: GatherJob,
    layout.CLAIMS: ClaimsJob,
    layout.SCAN: ScanJob,
}
NAME_MAX = 255
"""Bytes of the name of a file."""


def check(origins: Origins) -> None:
    """Compare the settings of results below the working folder that Snakemake has no record of.

    Raises:
        UserError: a file was made with other settings.
    """
    stale = [
        (path, difference) for path, job in _unrecorded(origins) if (difference := _difference(path, job))
    ]
    if stale:
        path, difference = stale[0]
        others = f", and {len(stale) - 1} more files like it" if len(stale) > 1 else ""
        raise UserError(
            f"{path} was made with {difference}, and .snakemake has no record of it{others}: put .snakemake back,"
            " remove the folder results, or give these settings another --directory"
        )


def _unrecorded(origins: Origins) -> Iterator[tuple[Path, Job]]:
    """Files of this configuration without a record, each with its job as it would be now."""
    for place, kind in PLACES.items():
        for path, wildcards in layout.find(Path("results"), place):
            known = _known(origins.config, wildcards.get("experiment", ""))
            if all(value in known[name] for name, value in wildcards.items()) and not is_recorded(str(path)):
                yield path, origins.job(kind, **wildcards)


def _known(config: Config, name: str) -> dict[str, Container[str]]:
    """Values of the wildcards in the files of an experiment, and in those of scans."""
    known: dict[str, Container[str]] = {"experiment": config.experiments, "model": config.scan.models}
    if name in config.experiments:
        experiment = config.experiments[name]
        known |= {"task": experiment.named_tasks, "merge_set": experiment.merge_sets}
        known |= {"weight_decay": weight_decays(experiment.training), "block": seed_blocks(experiment)}
    return known


def is_recorded(path: str) -> bool:
    """Whether Snakemake has a record of a file, which is named by the file's path in base64."""
    name = base64.urlsafe_b64encode(path.encode()).decode()
    parts = [name[first : first + NAME_MAX - 1] for first in range(0, len(name), NAME_MAX - 1)]
    return METADATA.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1]).is_file()


def _difference(path: Path, job: Job) -> str:
    """The first setting that differs, with both values; an empty text if there is none."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            made_with = json.loads(file.settings)
    except OSError:
        return ""  # it is damaged, which the job that reads it will say
    except (AttributeError, ValueError):
        return "settings that cannot be read"
    was, now = dict(_flat(made_with)), dict(_flat(job.model_dump(mode="json")))
    key = next((key for key in [*now, *was] if was.get(key) != now.get(key)), None)
    if key == "made_from":
        return "inputs of other settings"
    return "" if key is None else f"{key} = {was.get(key)}, which is {now.get(key)} now"


def _flat(settings: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of nested settings, with the keys above them."""
    if not isinstance(settings, Mapping):
        yield before, settings
        return
    for key, value in settings.items():
        yield from _flat(value, f"{before}.{key}" if before else key)
