"""Whether checkpoints have the same form by their configs, and the same tokenizer by its content."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decaymerge.errors import UserError
from decaymerge.reading import text_of

MAY_DIFFER = re.compile(
    r"_name_or_path|name_or_path|(\w*_)?version|torch_dtype|dtype|use_cache|_commit_hash|_?attn_implementation\w*"
    r"|gradient_checkpointing|output_(attentions|hidden_states)|return_dict\w*|torchscript|\w*initializer_\w+|init_\w+"
    r"|\w*dropout\w*|\w*_pdrop|layerdrop|\w*_layerdrop|finetuning_task|task_specific_params|problem_type|auto_map"
    r"|tokenizer_class|\w+_token_id|id2label|label2id|_?num_labels|transformers_weights|quantization_config"
    r"|do_sample|temperature|top_[kp]|num_beams|(max|min)_length|(no_repeat|repetition)_\w+|prefix|chunk_size_feed_forward"
    r"|use_bfloat16|tf_legacy_loss|decoder_start_token_id|model_max_length"
    r"|summary_\w+|architectures"
)
"""Keys of a config that may differ between checkpoints that are merged: paths, versions, types, training,
generation, and names of labels. ``architectures`` is compared by itself."""
TOKENIZER_CONTENT = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
)
"""Files that say which token has which number."""


def compare_configs(
    first: str, reference: Mapping[str, Any], name: str, other: Mapping[str, Any], *, with_defaults: bool
) -> None:
    """Refuse two configs of different forms; all keys are compared, nested ones as well.

    Args:
        first: Name of the first checkpoint.
        reference: Its config.
        name: Name of the other checkpoint.
        other: Its config.
        with_defaults: Whether the configs have the defaults of their class. Otherwise a key that one of them does
            not have is not compared.

    Raises:
        UserError: a key has different values.
    """
    architectures = [config.get("architectures") for config in (reference, other)]
    if None not in architectures and architectures[0] != architectures[1]:
        expected = _plain(architectures[0])
        raise UserError(
            f"config.json: architectures is {expected} in {first} and {_plain(architectures[1])} in {name}; only"
            f" networks of the same form can be merged: load the other as {expected} with transformers, and save it"
            " again"
        )
    for key, value, other_value in _differences(reference, other, with_defaults):
        raise UserError(
            f"config.json: {key} is {_plain(value)} in {first} and {_plain(other_value)} in {name}; only networks"
            " of the same form can be merged: write the same in both, if it changes no output"
        )


def _differences(
    one: Mapping[str, Any], two: Mapping[str, Any], with_defaults: bool, before: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Keys, with dots for nested ones, whose values differ and may not, and both values."""
    for key in sorted(one.keys() | two.keys() if with_defaults else one.keys() & two.keys()):
        values = one.get(key), two.get(key)
        if MAY_DIFFER.fullmatch(key) or values[0] == values[1]:
            continue
        if isinstance(values[0], Mapping) and isinstance(values[1], Mapping):
            yield from _differences(values[0], values[1], with_defaults, f"{before}{key}.")
        else:
            yield f"{before}{key}", *values


def different_meanings(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each config that names outputs in another way, or pads with another token, than the first one."""
    first, *others = configs
    return [
        f"config.json: {key} is {_plain(configs[first][key])} in {first} and {_plain(configs[name][key])} in"
        f" {name}; the merged model has the one of {first}"
        for name in others
        for key in ("id2label", "pad_token_id")
        if key in configs[first] and key in configs[name] and configs[first][key] != configs[name][key]
    ]


def _plain(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 100 else f"{text[:100]}…"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder says which token has which number. Without, ``transformers`` may make up a tokenizer."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZER_CONTENT)


def different_tokenizers(folders: Mapping[str, Path]) -> list[str]:
    """A line for each checkpoint whose tokenizer gives other numbers than that of the first one that has one."""
    lines: list[str] = []
    reference: dict[str, tuple[str, Any]] = {}
    for name, folder in folders.items():
        for pattern in TOKENIZER_CONTENT:
            for path in sorted(folder.glob(pattern)):
                content = _numbering(path)
                first, expected = reference.setdefault(path.name, (name, content))
                if content != expected:
                    lines.append(
                        f"{path.name} of {name} gives tokens other numbers than that of {first}: rows of the"
                        " embeddings stand for different tokens"
                    )
    return lines


def _numbering(path: Path) -> Any:
    """What a tokenizer's file says of the numbers of tokens. How texts are cut and padded does not count."""
    if path.suffix != ".json":
        return path.read_bytes()
    try:
        content = json.loads(text_of(path))
    except (OSError, ValueError, RecursionError):
        return path.read_bytes()
    if path.name == "tokenizer.json" and isinstance(content, dict):
        return {key: content.get(key) for key in ("model", "added_tokens")}
    return content
