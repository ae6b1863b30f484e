"""Tiny models of every ``model_type`` of ``transformers``, with random weights, and their forward passes."""

from contextlib import suppress
from typing import Any

import torch
import transformers as hf
from torch import nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

MAPPINGS = (
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
SIZES = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "width"), 32)
    | dict.fromkeys(("embedding_size", "word_embed_proj_dim", "hidden_size_per_layer_input"), 32)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), 4)
    | dict.fromkeys(("decoder_layers", "num_encoder_layers", "num_decoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4)
    | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    | dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_topk"), 2)
    | dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"), 48)
    | dict.fromkeys(("n_inner", "d_ff", "ffn_hidden_size", "dense_intermediate_size"), 48)
    | dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24
    )
    | dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "entity_vocab_size"), 64)
    | dict.fromkeys(("vocab_size_per_layer_input", "pronunciation_vocab_size", "shape_vocab_size"), 64)
    | {
        "head_dim": 8,
        "image_size": 32,
        "patch_size": 8,
        "entity_emb_size": 32,
        "n_group": 1,
        "topk_group": 1,
        "rotary_dim": 4,
    }
    | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    | {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
)
"""Sizes of tiny models, by the keys of their configs."""
TOKENS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
)
BY_OUTPUTS = {"mpnet", "t5"}
"""Types whose attention cannot be watched. What their modules apply is compared with the table in another test."""
LARGEST = 20_000_000
"""Parameters of the largest model that is built."""


def model_types() -> list[str]:
    """Every ``model_type`` that is mapped to causal, masked or image classification models."""
    return sorted(set().union(*MAPPINGS))


def tiny(model_type: str) -> Any:
    """A random tiny model of a type.

    Raises:
        Exception: whatever its class raises at this size.
    """
    names = next(mapping[model_type] for mapping in MAPPINGS if model_type in mapping)
    model_class = getattr(hf, names if isinstance(names, str) else names[0])
    config_class = model_class.config_class or CONFIG_MAPPING[model_type]
    config = config_class()
    _shrink(config)
    content = _without_layer_types(config.to_dict())
    for attempt in (lambda: config_class.from_dict(content), lambda: config):
        try:
            settings = attempt()
            _shrink(settings)
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in model_class(settings).parameters())
        except Exception as error:
            last = error
            continue
        if count > LARGEST:
            raise MemoryError(f"{count / 1e6:.0f} M parameters at the smallest size that was tried")
        torch.manual_seed(0)
        model = model_class(settings).eval().float()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        return model
    raise last


def _without_layer_types(content: dict[str, Any]) -> dict[str, Any]:
    """A config, in which lists with entries for layers take their defaults again."""
    return {
        key: _without_layer_types(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if not str(key).endswith(
            ("layer_types", "no_rope_layers", "stage_names", "out_features", "out_indices")
        )
    }


def _shrink(config: Any) -> None:
    for key, size in SIZES.items():
        with suppress(AttributeError):  # some are properties
            if type(getattr(config, key, None)) is int:
                setattr(config, key, size)
    if getattr(config, "use_cache", False):
        config.use_cache = False
    for key in TOKENS:
        if type(getattr(config, key, None)) is int:
            setattr(config, key, 1)
    for part in list(vars(config).values()):
        if isinstance(part, hf.PreTrainedConfig):
            _shrink(part)


def run(model: Any) -> None:
    """A forward pass on random inputs of the model's kind."""
    torch.manual_seed(1)
    ids = torch.randint(3, 60, (1, 24))
    if model.main_input_name == "pixel_values":
        size = getattr(model.config, "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        model(pixel_values=torch.randn(1, getattr(model.config, "num_channels", 3), size, size))
    elif model.config.is_encoder_decoder and "decoder_input_ids" in model.forward.__code__.co_varnames:
        model(input_ids=ids, decoder_input_ids=ids)
    else:
        model(input_ids=ids)
