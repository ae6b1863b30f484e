"""Tiny bases with random weights, and LoRA adapters of them that PEFT saves."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
}
BASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (
        hf.LlamaForCausalLM,
        hf.LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=False),
        {"target_modules": ["q_proj", "v_proj", "down_proj", "embed_tokens"], "task_type": "CAUSAL_LM"},
    ),
    "gpt2": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4),
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True},
    ),
    "bert": (
        hf.BertForSequenceClassification,
        hf.BertConfig(**SMALL, num_hidden_layers=2),
        {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]},
    ),
    "resnet": (
        hf.ResNetForImageClassification,
        hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        {"target_modules": ["convolution"]},
    ),
}
"""Class, config, and where LoRA is put, of each kind of base."""


def base(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Path:
    """A base of this kind, with the same weights each time."""
    model_class, config, _ = BASES[kind]
    torch.manual_seed(0)
    model_class(config).to(dtype).save_pretrained(folder)
    return folder


def load(folder: Path, kind: str) -> Any:
    """A base, in the type in which it is stored."""
    return BASES[kind][0].from_pretrained(folder, dtype="auto").eval()


def saved_adapter(folder: Path, model: Any, seed: int, **settings: Any) -> Any:
    """An adapter of a model with random factors, saved, and the model that PEFT makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fan_in_fan_out, which PEFT corrects
        adapted: Any = get_peft_model(model, LoraConfig(**settings))
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        adapted.save_pretrained(folder)
    return adapted.eval()


def adapter(folder: Path, of: Path, kind: str, seed: int, **settings: Any) -> Any:
    """An adapter of one of the bases here."""
    return saved_adapter(folder, load(of, kind), seed, **{**BASES[kind][2], **settings})


def pair(
    folder: Path, kind: str, dtype: torch.dtype = torch.float32, **settings: Any
) -> tuple[list[Path], list[Any]]:
    """Adapters ``a`` and ``b`` of one base with other ranks, scales and patterns, and their models."""
    base(folder / "base", kind, dtype)
    first, second = BASES[kind][2]["target_modules"][:1] * 2
    each: list[dict[str, Any]] = [
        {"r": 4, "lora_alpha": 8},
        {
            "r": 3,
            "lora_alpha": 5,
            "use_rslora": True,
            "rank_pattern": {first: 5},
            "alpha_pattern": {second: 7},
        },
    ]
    paths = [folder / name for name in "ab"]
    models = [
        adapter(path, folder / "base", kind, seed, **own, **settings)
        for seed, (path, own) in enumerate(zip(paths, each, strict=True))
    ]
    return paths, models


def both_active(folder: Path, kind: str, paths: list[Path]) -> Any:
    """The base with both adapters active, not merged: each layer adds both changes."""
    model: Any = PeftModel.from_pretrained(load(folder, kind), paths[0], adapter_name="a")
    model.load_adapter(paths[1], adapter_name="b")
    model.base_model.set_adapter(["a", "b"])
    return model.eval()


def outputs(model: Any, kind: str) -> torch.Tensor:
    """Logits on fixed inputs."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        if kind == "resnet":
            pixels = torch.randn(2, 3, 32, 32, generator=generator).to(model.dtype)
            return model(pixel_values=pixels).logits
        return model(input_ids=torch.randint(0, 50, (2, 7), generator=generator)).logits


def edit_config(folder: Path, **changes: Any) -> None:
    """Change settings of a saved adapter."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a saved adapter."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
