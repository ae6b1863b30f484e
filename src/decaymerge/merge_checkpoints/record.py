"""What a merge says of itself: ``merge.json``, by which it can be repeated, and the model card ``README.md``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from pydantic import ValidationError
from yaml import YAMLError

from decaymerge.config.base import validate
from decaymerge.config.merging import merge_name
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_methods import MERGE_METHODS
from decaymerge.model_files import read_json, sha256
from decaymerge.provenance import provenance
from decaymerge.workflow.jobs import CheckpointsJob

RECORD = "merge.json"
"""File of the merged checkpoint that records its settings and the code that made it."""
CARD = "README.md"


def write(folder: Path, sources: Sources, job: CheckpointsJob, effects: Sequence[str]) -> None:
    """Write ``merge.json`` and the model card into the folder of a merged checkpoint.

    Args:
        folder: Holds the weights.
        sources: The checkpoints that were merged.
        job: Everything that decides the merge.
        effects: Lines about what was measured on inputs.
    """
    weights = sorted(folder.glob("*.safetensors"))
    record = {
        "settings": job.model_dump(),
        "effects": list(effects),
        "sha256": {path.name: sha256(path) for path in weights},
        **provenance(),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / CARD).write_text(card(sources, job, effects, record))


def read(path: Path) -> tuple[CheckpointsJob, dict[str, str]]:
    """The merge that a ``merge.json`` records, and the checksums of its weights by file.

    Raises:
        UserError: the file is not there, or no record of a merge.
    """
    if not path.is_file():
        raise UserError(f"--recipe {path}: there is no such file; give the merge.json of a merged checkpoint")
    record = read_json(path)
    if not isinstance(record.get("settings"), dict) or not isinstance(record.get("sha256"), dict):
        raise UserError(
            f"--recipe {path} is no merge.json of this version; give one, or the arguments themselves"
        )
    return validate(CheckpointsJob, record["settings"]), record["sha256"]


def check(folder: Path, recipe: Path, checksums: dict[str, str]) -> None:
    """Refuse a repeated merge whose weights are not those of the recipe.

    Raises:
        UserError: a file has other bits.
    """
    made = {path.name: sha256(path) for path in folder.glob("*.safetensors")}
    if made != checksums:
        differing = sorted(name for name in made.keys() | checksums if made.get(name) != checksums.get(name))
        raise UserError(
            f"{folder} is written, but {', '.join(differing)} has other bits than {recipe} says: a model, an input"
            " or a version has changed since"
        )


def card(sources: Sources, job: CheckpointsJob, effects: Sequence[str], record: dict[str, Any]) -> str:
    """The model card, with the metadata that hubs read."""
    ids = [text.removeprefix("hub:") for text in (*job.models, job.base or "") if text.startswith("hub:")]
    licence = _licence(sources)
    data = ModelCardData(
        base_model=ids or None,
        library_name="peft" if job.as_adapter else "transformers",
        license=licence,
        tags=["merge", "decaymerge"],
    )
    name, _, parameters = merge_name(job.method).partition("=")
    settings = job.method if isinstance(job.method, str) else job.method.model_dump()
    of_base = "their changes of the base, added to it" if job.base else "their weights"
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        "# Merged model",
        "",
        f"Made by decaymerge {record['decaymerge']} from",
        "",
        *(f"- `{text}`" for text in job.models),
        *([f"- base: `{job.base}`"] if job.base else []),
        "",
        f"by `{name}` of {of_base}: {MERGE_METHODS[name].description}",
        *(["", f"Parameters: `{json.dumps(settings)}`."] if parameters else []),
        *(
            ["", f"Inputs: {', '.join(f'`{path}` of {model}' for model, path in job.inputs.items())}."]
            if job.inputs
            else []
        ),
        "",
        "## Measured",
        "",
        *([f"- {line}" for line in effects] or ["Nothing was measured: no inputs were given."]),
        "",
        "## Licence",
        "",
        f"The base's model card names `{licence}`."
        if licence
        else "No licence is named in the base's model card.",
        "Those of the merged models hold as well.",
        "",
        f"`{RECORD}` has all settings and versions, and `decaymerge merge-checkpoints --recipe {RECORD} --output"
        " FOLDER` repeats the merge.",
        "",
    ]
    return "\n".join(lines)


def _licence(sources: Sources) -> str | None:
    """Licence in the model card of the base, or of the first model."""
    first = sources.first if sources.base is None else sources.base
    path = first.folder / CARD
    try:
        return ModelCard.load(path).data.license if path.is_file() else None
    except (OSError, ValueError, YAMLError, HfHubHTTPError, ValidationError):
        return None
