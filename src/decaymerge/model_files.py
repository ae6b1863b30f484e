"""Which files of a folder make up a model, by the rule of ``transformers``, for folders and for the hub.

The rule, in its order: the file that ``config.json`` names as ``transformers_weights``, ``model.safetensors``,
its index of shards, ``pytorch_model.bin``, its index. Where none of them is there, the folder may hold one other
file of weights, or all shards of one.
"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from decaymerge.errors import UserError, reason
from decaymerge.reading import text_of

MAIN_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
READABLE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Endings of weights that can be read."""
OTHER_FORMATS = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite", ".npz", ".mlmodel")
STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*|.*_optim_states)\.(bin|pt|pth)")
"""Names of a trainer's state."""
ADAPTER = re.compile(r"(adapter_model|pytorch_adapter|adapter)\.(safetensors|bin)")
"""Names of an adapter's weights."""
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<ending>\.\w+)")
NOT_OF_THE_MODEL = (
    *("README*", "*.md", ".*", "*.index.json", "trainer_state.json", "events.out.tfevents*", "manifest.json"),
    *(
        "adapter_config.json",
        "merge.json",
        "*.log",
        "*.py[co]",
        "__init__.py",
        "eval_results*",
        "all_results.json",
        "train_results.json",
    ),
)
"""Files that say something of one training or of one copy, and not of a merged model."""
FOLDERS_NOT_OF_THE_MODEL = (
    *(".*", "checkpoint-*", "global_step*", "runs", "onnx", "openvino", "coreml", "logs", "wandb"),
    *("__pycache__", "original"),
)
TOKENIZER_FILES = (
    *(
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab*",
        "merges.txt",
        "*.model",
        "*.spm",
    ),
    "*.tiktoken",
)


class Choice(NamedTuple):
    """The files of weights that are read, or the index that names them, and the shards that are missing."""

    files: list[str]
    missing: list[str]


def choose(names: Collection[str], config: dict[str, Any]) -> Choice | None:
    """The weights among the names of a folder's files, or none if it holds no weights, or several kinds of them.

    Args:
        names: Names of the files in the folder itself.
        config: Its ``config.json``.
    """
    explicit = config.get("transformers_weights")
    if isinstance(explicit, str):  # transformers reads this one or none
        return Choice([explicit], []) if explicit in names else Choice([], [explicit])
    for name in MAIN_FILES:
        if name in names:
            return Choice([name], [])
    candidates = [name for name in sorted(names) if is_weights(name) and not ADAPTER.fullmatch(name)]
    by_ending = (
        [
            name
            for name in candidates
            if name.endswith(".safetensors") and not name.startswith("consolidated")
        ],
        [name for name in candidates if name.endswith(".safetensors")],
        [name for name in candidates if not name.endswith(".safetensors")],
    )
    for group in filter(None, by_ending):
        if shards := _shards(group):
            return shards
        if len(group) == 1:
            return Choice(group, [])
        return None
    return None


def is_weights(name: str) -> bool:
    """Whether a file has the name of weights that can be read. The state of a trainer is none."""
    return name.endswith(READABLE) and not STATE.fullmatch(name)


def _shards(names: Sequence[str]) -> Choice | None:
    """All shards of one model, with those that are missing, or none if the files are not shards of one model."""
    matches = [SHARD.fullmatch(name) for name in names]
    if not all(matches):
        return None
    parts = [match for match in matches if match]
    if len({(match["stem"], match["count"], match["ending"]) for match in parts}) > 1:
        return None
    return Choice(list(names), missing_shards(names))


def missing_shards(names: Sequence[str]) -> list[str]:
    """Names of the shards that belong to some of these files, and that are not among them."""
    missing = []
    for match in filter(None, map(SHARD.fullmatch, names)):
        for number in range(1, min(int(match["count"]), 10_000) + 1):
            digits = str(number).zfill(len(match["number"]))
            shard = f"{match['stem']}-{digits}-of-{match['count']}{match['ending']}"
            if shard not in names and shard not in missing:
                missing.append(shard)
    return missing


def not_read(names: Collection[str], read: Collection[str]) -> list[str]:
    """Other weights that lie beside those that are read."""
    formats = (*READABLE, *OTHER_FORMATS)
    return sorted(
        name for name in names if name.endswith(formats) and name not in read and not STATE.fullmatch(name)
    )


def belongs(path: str) -> bool:
    """Whether a file belongs to a model beside its weights: a config, a tokenizer, a processor, code, a licence.

    Args:
        path: Its path inside the model's folder, with ``/``.
    """
    *folders, name = PurePosixPath(path).parts
    if any(fnmatch.fnmatch(folder, pattern) for folder in folders for pattern in FOLDERS_NOT_OF_THE_MODEL):
        return False
    if name.endswith((*READABLE, *OTHER_FORMATS)):
        return False
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_OF_THE_MODEL)


def has_weights_of_its_own(path: str) -> bool:
    """Whether a file in a sub-folder is weights of a part of the model, such as ``2_Dense/model.safetensors``."""
    *folders, name = PurePosixPath(path).parts
    return bool(folders) and is_weights(name) and belongs(str(PurePosixPath(*folders, "config.json")))


def is_tokenizer(path: str) -> bool:
    """Whether a file is one of a tokenizer, in the folder itself."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in TOKENIZER_FILES)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if the file is missing.

    Raises:
        UserError: the file is not readable as JSON, or holds something else.
    """
    try:
        document = json.loads(text_of(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not readable as JSON ({reason(error)}); fetch the checkpoint again"
        ) from None
    if not isinstance(document, dict):
        raise UserError(
            f"{path} holds a {type(document).__name__}, not a mapping; fetch the checkpoint again"
        )
    return document


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
