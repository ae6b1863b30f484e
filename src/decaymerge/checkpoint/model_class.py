"""What ``transformers`` makes of a config, and of the names and shapes of tensors.

The class of ``architectures[0]``, else the base model of ``model_type``, is built on PyTorch's ``meta`` device,
where it takes no memory, and ``from_pretrained`` loads tensors without numbers into it. So renamed and converted
tensors, prefixes, heads, tied tables and buffers are judged by the library that will load the model. No remote code
runs.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from decaymerge.checkpoint.form import Form, Part
from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError, printable


def ask(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Form:
    """Build the class without memory, and load tensors without numbers into it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_PRETRAINING_MAPPING_NAMES,
    )

    of_pretraining = {
        name
        for names in (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_PRETRAINING_MAPPING_NAMES)
        for name in names.values()
        if str(name).endswith(("ForMaskedLM", "ForPreTraining"))
    }
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return Form(reason=f"transformers {transformers.__version__} has no model_type {kind!r}")
    with _quiet(transformers):
        try:
            settings = settings_of(config)
            model_class = _class_of(config, settings)
            stored = {
                name: torch.empty(info.shape, dtype=info.dtype or torch.int64, device="meta")
                for name, info in tensors.items()
            }
            model, loading = _load(model_class, settings, stored)
            headless = base_name = ""
            if loading["missing_keys"]:
                # Encoders of sentences are published so: trained as base models, with the pretraining's config.
                base, base_loading = _load(_base_model(settings), settings, stored)
                if not any(
                    base_loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
                ):
                    base_name = type(base).__name__
                    if model_class.__name__ in of_pretraining:
                        headless, model, loading = model_class.__name__, base, base_loading
        except ImportError as error:  # a library that only this class needs
            text = printable(str(error).strip().split("\n")[0][:200])
            return Form(reason=f"its class needs more than transformers ({text})")
        except Exception as error:  # whatever a class does with a config that it does not understand
            text = printable(str(error).strip().split("\n")[0][:200])
            raise UserError(
                f"transformers refuses this checkpoint of {kind} ({type(error).__name__}: {text}); correct its"
                " config.json, or give --by-name to go on by the names of its tensors"
            ) from None
    expected = model.state_dict()
    names = _names_in(model, list(tensors), expected)
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    unknown = [name for name in tensors if names[name] not in expected]
    entries = {name: math.prod(info.shape) for name, info in tensors.items()}
    unexpected = [name for name in unknown if {name, names[name]} & loading["unexpected_keys"]]
    alike = [
        name
        for name in tensors
        if names[name] in expected and _has_shape_of(tensors[name], expected[names[name]])
    ]
    stored_names: dict[str, list[str]] = {}
    for name in alike:
        stored_names.setdefault(names[name], []).append(name)
    return Form(
        class_name=type(model).__name__,
        headless=headless,
        base_is_complete=base_name,
        settings=json.loads(settings.to_json_string(use_diff=False))
        | {"architectures": [type(model).__name__]},
        parameters=sum(tensor.numel() for name, tensor in expected.items() if name not in tied),
        missing={
            name: expected[name].numel() for name in sorted(loading["missing_keys"]) if name in expected
        },
        mismatched={
            name: (list(stored_shape), list(shape))
            for name, stored_shape, shape in sorted(loading["mismatched_keys"], key=str)
        },
        unexpected=unexpected,
        twice={name: found for name, found in stored_names.items() if len(found) > 1},
        other_types=[
            name
            for name in alike
            if tensors[name].dtype is None and expected[names[name]].is_floating_point()
        ],
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


def settings_of(config: Mapping[str, Any]) -> Any:
    """The config as its class reads it, without what it says of quantisation: tensors are read as their numbers."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    plain = PreTrainedConfig._decode_special_floats(without_quantisation(config))
    return CONFIG_MAPPING[plain["model_type"]].from_dict(plain)


def without_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which neither the whole model nor a part of it is quantised."""
    return {
        key: without_quantisation(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key != "quantization_config"
    }


def _has_shape_of(info: TensorInfo, expected: torch.Tensor) -> bool:
    return tuple(info.shape) == tuple(expected.shape)


def build(config: Mapping[str, Any]) -> Any:
    """The model of a config in evaluation mode: parameters on the meta device, buffers with their numbers.

    The config is one of which ``ask`` knows the class.
    """
    import transformers
    from accelerate import init_empty_weights

    with _quiet(transformers), init_empty_weights(include_buffers=False):
        settings = settings_of(config)
        for part in (settings, settings.get_text_config()):
            part.use_cache = False  # every pass is over whole inputs
        model = _class_of(config, settings)(settings)
        model.tie_weights()
    return model.eval()


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

    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        found = getattr(transformers, architectures[0], None)
        if (
            isinstance(found, type)
            and issubclass(found, transformers.PreTrainedModel)
            and found.config_class is type(settings)
            and not found.__name__.endswith("PreTrainedModel")  # has no layers
        ):
            return found
    return _base_model(settings)


def _base_model(settings: Any) -> Any:
    """Class of the base model of a config.

    Raises:
        LookupError: ``transformers`` has none.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if type(settings) not in MODEL_MAPPING:
        raise LookupError(f"there is no base model of {type(settings).__name__}")
    found = MODEL_MAPPING[type(settings)]
    return found[0] if isinstance(found, tuple) else found


def _load(model_class: Any, settings: Any, stored: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    """A model of tensors without numbers, and which of them were missing, unexpected or of another shape."""
    return model_class.from_pretrained(
        None,
        config=settings,
        state_dict=stored,
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )


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
