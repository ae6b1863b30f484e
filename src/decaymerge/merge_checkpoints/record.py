"""What a merge says of itself: ``merge.json``, by which it can be repeated, and the model card ``README.md``."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCardData

from decaymerge.config.base import validate
from decaymerge.config.merging import merge_name, method_of
from decaymerge.errors import UserError, listed
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_methods import INPUTS, MERGE_METHODS
from decaymerge.model_files import sha256
from decaymerge.provenance import provenance
from decaymerge.reading import text_of
from decaymerge.workflow.jobs import CheckpointsJob

RECORD = "merge.json"
"""File of the merged checkpoint that records its settings and the code that made it."""
CARD = "README.md"


class Expected(NamedTuple):
    """What a recipe says of the weights that it makes."""

    recipe: Path
    checksums: dict[str, str]
    """By file."""


def write(
    folder: Path,
    sources: Sources,
    job: CheckpointsJob,
    effects: Sequence[str],
    expected: Expected | None = None,
) -> None:
    """Write ``merge.json`` and the model card into the folder of a merged checkpoint.

    Args:
        folder: Holds the weights.
        sources: The checkpoints that were merged.
        job: Everything that decides the merge.
        effects: Lines about what was measured on inputs.
        expected: The recipe whose bits are expected, or none.

    Raises:
        UserError: the weights have other bits than the recipe says.
    """
    made = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    if expected is not None and made != expected.checksums:
        names = made.keys() | expected.checksums.keys()
        differing = sorted(name for name in names if made.get(name) != expected.checksums.get(name))
        raise UserError(
            f"{listed(differing)} has other bits than {expected.recipe} says: a model, an input or a version has"
            " changed since; nothing is written"
        )
    record = {"settings": job.model_dump(), "effects": list(effects), "sha256": made, **provenance()}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / CARD).write_text(card(sources, job, effects, record))


def read(path: Path) -> tuple[CheckpointsJob, Expected]:
    """The merge that a ``merge.json`` records, and the checksums of its weights.

    Args:
        path: The file, or the folder of the merged checkpoint.

    Raises:
        UserError: the file is not there, is no record of a merge, or was changed into one that cannot be made.
    """
    file = path / RECORD if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"--recipe {path}: there is no such file; give the merge.json of a merged checkpoint")
    try:
        record = json.loads(text_of(file))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"--recipe {path} is no JSON; give the merge.json of a merged checkpoint") from None
    keys = ("settings", "sha256")
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in keys):
        raise UserError(
            f"--recipe {path} is no merge.json of this version; give one, or the arguments themselves"
        )
    job = validate(CheckpointsJob, record["settings"])
    needs = MERGE_METHODS[method_of(job.method)[0]].needs
    if len(set(job.models)) < len(job.models) or "layer" in needs or (needs & INPUTS and not job.inputs):
        raise UserError(f"--recipe {path} names a model twice, or a method without its inputs; correct it")
    named = [*job.models, *([job.base] if job.base else []), *job.inputs.values()]
    for text in (text for text in named if not text.startswith(("hub:", "pypi:"))):
        if not Path(text.removeprefix("path:")).exists():
            raise UserError(
                f"--recipe {path} names {text}, which is not in this folder; repeat the merge in the folder in"
                " which it was made, or correct the path"
            )
    return job, Expected(path, record["sha256"])


def card(sources: Sources, job: CheckpointsJob, effects: Sequence[str], record: dict[str, Any]) -> str:
    """The model card, with the metadata that hubs read."""
    ids = [text.removeprefix("hub:") for text in (*job.models, job.base or "") if text.startswith("hub:")]
    about = _licence(sources)
    licence = about.get("license_name") or about.get("license")
    data = ModelCardData(
        base_model=ids or None,
        library_name="peft" if job.as_adapter else "transformers",
        tags=["merge", "decaymerge"],
        **about,
    )
    name, _, parameters = merge_name(job.method).partition("=")
    settings = job.method if isinstance(job.method, str) else job.method.model_dump()
    of_base = " W^(i) is a model minus the base, and the base is added." if job.base else ""
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
        f"by `{name}`: {MERGE_METHODS[name].description}{of_base}",
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


def _licence(sources: Sources) -> dict[str, Any]:
    """Keys about the licence in the model card of the base, or of the first model."""
    first = sources.first if sources.base is None else sources.base
    path = first.folder / CARD
    try:
        found = re.match(r"---\s*\n(.*?)\n---", text_of(path), re.DOTALL)
        data = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    keys = ("license", "license_name", "license_link")
    return {key: data[key] for key in keys if isinstance(data, dict) and isinstance(data.get(key), str)}
