"""The form of a model: what ``transformers`` makes of a config, and of the names and shapes of the tensors.

The class of ``architectures[0]``, else the base model of ``model_type``, is built on PyTorch's ``meta`` device,
where it takes no memory, and ``from_pretrained`` loads tensors without numbers into it. So renamed and converted
tensors, prefixes, heads, tied tables and buffers are judged by the library that will load the model. No remote code
runs. The answer depends on config, names and shapes alone. It is kept in the user's cache, as the import takes
seconds.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from pydantic import BaseModel, ValidationError

from decaymerge.atomic import atomic_file
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError, listed

LAYER_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers?|experts)|depth")
"""Keys of a config that say how many layers or experts there are."""


class Part(BaseModel):
    """A part of a model with a config of its own, such as the tower of a vision model."""

    model_type: str = ""
    heads: int | None = None
    key_value_heads: int | None = None


class Form(BaseModel):
    """What a complete checkpoint is, and what this one lacks. Names without ``stored`` are those of the class."""

    class_name: str = ""
    """Class of ``transformers``, or empty if it is unknown."""
    reason: str = ""
    """Why the class is unknown."""
    parameters: int = 0
    """Number of parameters of the class; those of a tied table count once."""
    missing: dict[str, int] = {}
    """Entries of each tensor that the class needs and that is not stored: random numbers would fill it."""
    mismatched: dict[str, tuple[list[int], list[int]]] = {}
    """Stored shape and shape in the class, where they differ."""
    unexpected: list[str] = []
    """Stored tensors that the class does not have."""
    unexpected_share: float = 0.0
    """Their share of all stored entries."""
    ignored: list[str] = []
    """Stored tensors that the class knows and needs no more, such as ``position_ids``."""
    tied: dict[str, str] = {}
    """Stored tensors that the class replaces by another one, to which they are tied: copies of a table."""
    names: dict[str, str] = {}
    """Name in the class of each stored tensor. Several stored tensors may be parts of one."""
    settings: dict[str, Any] = {}
    """The config with the defaults of its class."""
    parts: dict[str, Part] = {}
    """The parts of the model, by the beginning of their names; the whole model has an empty one."""

    @property
    def problems(self) -> list[str]:
        """What is missing or of another shape, each in one line with its share of all parameters."""
        lines = []
        if self.missing:
            share = sum(self.missing.values()) / max(1, self.parameters)
            lines.append(
                f"{len(self.missing)} tensors of {self.class_name} are missing ({share:.2%} of its parameters):"
                f" {listed(self.missing)}"
            )
        if self.mismatched:
            name, (stored, expected) = next(iter(self.mismatched.items()))
            share = sum(math.prod(shape) for _, shape in self.mismatched.values()) / max(1, self.parameters)
            lines.append(
                f"{len(self.mismatched)} tensors have another shape than in {self.class_name} ({share:.2%} of its"
                f" parameters), such as {name} with {stored} for {expected}"
            )
        return lines

    def lines(self) -> list[str]:
        """What the class says of the checkpoint."""
        if not self.class_name:
            return [f"class: unknown, as {self.reason}; names decide, and nothing vouches for completeness"]
        state = "incomplete" if self.problems else "complete"
        lines = [
            f"class: {self.class_name} of transformers, {self.parameters / 1e6:.4g} M parameters, {state}"
        ]
        if self.unexpected:
            lines.append(
                f"unexpected: {len(self.unexpected)} tensors that it does not have"
                f" ({self.unexpected_share:.2%} of what is stored): {listed(self.unexpected)}"
            )
        return lines

    def part_of(self, stored: str) -> str:
        """Beginning of the names of the innermost part that a stored tensor is in."""
        name = self.names.get(stored, stored)
        inside = [part for part in self.parts if not part or name.startswith(f"{part}.")]
        return max(inside, key=len, default="")


def judge(checkpoint: Checkpoint, *, partial: bool = False, by_name: bool = False) -> Form:
    """The form of a checkpoint that is complete. Tied copies and buffers that nobody needs are left out of it.

    Args:
        checkpoint: The checkpoint, whose ``tensors`` and ``notes`` change.
        partial: Go on with a checkpoint that is incomplete.
        by_name: Do not ask ``transformers``.

    Raises:
        UserError: the checkpoint is incomplete, and ``partial`` is false.
    """
    form = Form(reason="--by-name was given") if by_name else form_of(checkpoint)
    problems = checkpoint.problems + form.problems
    if problems and not partial:
        raise UserError(
            f"{checkpoint.place} is incomplete: {'; '.join(problems)}. Fetch what is missing, or give --partial to"
            " go on without it"
        )
    if form.tied:
        copies = [f"{name} (tied to {table})" for name, table in form.tied.items()]
        checkpoint.notes.append(f"left out, copies of a tied table: {listed(copies)}")
    for name in [*form.tied, *form.ignored]:
        del checkpoint.tensors[name]
    checkpoint.notes += [f"incomplete: {problem}" for problem in problems]
    return form


def form_of(checkpoint: Checkpoint) -> Form:
    """The form of a checkpoint, from the cache or from ``transformers``.

    Args:
        checkpoint: The checkpoint, of which config, names and shapes are used.

    Raises:
        UserError: the config has far more layers than there are tensors.
    """
    config = checkpoint.config
    if not config:
        return Form(reason="there is no config.json")
    for key, value in config.items():
        if (
            LAYER_COUNTS.fullmatch(key)
            and isinstance(value, int)
            and value > max(1000, 10 * len(checkpoint.tensors))
        ):
            raise UserError(
                f"{checkpoint.folder / 'config.json'}: {key} is {value}, but only {len(checkpoint.tensors)} tensors"
                " are stored; give the config.json of these weights"
            )
    shapes = {name: [list(info.shape), str(info.dtype)] for name, info in sorted(checkpoint.tensors.items())}
    code = Path(__file__).read_text()
    key = json.dumps([version("transformers"), code, config, shapes], sort_keys=True)
    file = user_cache_path("decaymerge") / "forms" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return Form.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        pass
    form = _ask(config, checkpoint.tensors)
    try:
        with atomic_file(file, ours=True) as temporary:
            temporary.write_text(form.model_dump_json())
    except UserError:
        pass  # a cache that cannot be written costs time, and nothing else
    return form


def _ask(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Form:
    """Build the class without memory, and load tensors without numbers into it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return Form(reason=f"transformers {transformers.__version__} has no model_type {kind!r}")
    with _quiet(transformers):
        try:
            settings = CONFIG_MAPPING[kind].from_dict(
                {key: value for key, value in config.items() if key != "quantization_config"}
            )
            model_class = _class_of(config, settings)
            stored = {
                name: torch.empty(info.shape, dtype=info.dtype or torch.int64, device="meta")
                for name, info in tensors.items()
            }
            model, loading = model_class.from_pretrained(
                None,
                config=settings,
                state_dict=stored,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # whatever a class does with a config that it does not understand
            text = str(error).strip().split("\n")[0][:200]
            return Form(reason=f"transformers cannot build it ({type(error).__name__}: {text})")
    expected = model.state_dict()
    names = _names_in(model, list(tensors), expected)
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    unknown = [name for name in tensors if names[name] not in expected]
    entries = {name: math.prod(info.shape) for name, info in tensors.items()}
    unexpected = [name for name in unknown if {name, names[name]} & loading["unexpected_keys"]]
    return Form(
        class_name=model_class.__name__,
        settings=json.loads(settings.to_json_string(use_diff=False)),
        parameters=sum(tensor.numel() for name, tensor in expected.items() if name not in tied),
        missing={
            name: expected[name].numel() for name in sorted(loading["missing_keys"]) if name in expected
        },
        mismatched={
            name: (list(stored_shape), list(shape))
            for name, stored_shape, shape in sorted(loading["mismatched_keys"], key=str)
        },
        unexpected=unexpected,
        unexpected_share=sum(entries[name] for name in unexpected) / max(1, sum(entries.values())),
        ignored=[name for name in unknown if name not in unexpected],
        tied={
            name: tied[target]
            for name, target in names.items()
            if target in tied and tied[target] in names.values()
        },
        names={name: target for name, target in names.items() if target != name},
        parts={
            name: Part(
                model_type=str(module.config.model_type),
                heads=_count(module.config, "num_attention_heads"),
                key_value_heads=_count(module.config, "num_key_value_heads"),
            )
            for name, module in model.named_modules()
            if isinstance(module, transformers.PreTrainedModel)
        },
    )


def _count(settings: Any, key: str) -> int | None:
    """A whole number of a config; none where layers have different ones, or the config has no such key."""
    try:
        value = getattr(settings, key, None)
    except Exception:
        return None
    return value if type(value) is int else None


def _class_of(config: Mapping[str, Any], settings: Any) -> Any:
    """Class of ``architectures[0]``, else the base model of this config.

    Raises:
        LookupError: ``transformers`` has neither.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        found = getattr(transformers, architectures[0], None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if type(settings) not in MODEL_MAPPING:
        raise LookupError(f"there is no base model of {type(settings).__name__}")
    found = MODEL_MAPPING[type(settings)]
    return found[0] if isinstance(found, tuple) else found


def _names_in(model: Any, stored: list[str], expected: Mapping[str, Any]) -> dict[str, str]:
    """Name in the class of each stored tensor: by the class's conversions, and its prefix added or left out."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    conversions = getattr(model, "_weight_conversions", None) or []
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    names = {}
    for name in stored:
        renamed, _ = rename_source_key(name, renamings, converters, model.base_model_prefix, dict(expected))
        if renamed not in expected and name in expected:
            renamed = name
        names[name] = renamed
    return names


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's own reports and bars, which are about loading."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(100)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
