"""Builders of small transformers of every architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import nn

from decaymerge.checkpoint import Checkpoint

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
TEXT: dict[str, Any] = SMALL | {"vocab_size": 50, "max_position_embeddings": 32}
GROUPED: dict[str, Any] = TEXT | {"num_key_value_heads": 2, "pad_token_id": 0}
GPT: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 48,
    "vocab_size": 50,
    "n_positions": 32,
}
MODELS: dict[str, Callable[[], Any]] = {
    "BERT": lambda: hf.BertModel(hf.BertConfig(**TEXT)),
    "BERT with a head": lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)),
    "RoBERTa": lambda: hf.RobertaModel(hf.RobertaConfig(**TEXT)),
    "DistilBERT": (
        lambda: hf.DistilBertModel(
            hf.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50)
        )
    ),
    "MPNet": lambda: hf.MPNetModel(hf.MPNetConfig(**TEXT)),
    "GPT-2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT)),
    "GPT-J": lambda: hf.GPTJForCausalLM(hf.GPTJConfig(**GPT, rotary_dim=4)),
    "GPT-NeoX": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TEXT)),
    "Phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**TEXT)),
    "Phi-3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED)),
    "OPT": (
        lambda: hf.OPTForCausalLM(
            hf.OPTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                ffn_dim=48,
                vocab_size=50,
                word_embed_proj_dim=32,
            )
        )
    ),
    "Llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "Mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED)),
    "Qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)),
    "Gemma": (lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GROUPED, head_dim=16))),
    "ViT": lambda: hf.ViTModel(hf.ViTConfig(**SMALL, image_size=16, patch_size=8)),
    "T5": (
        lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=50)
        )
    ),
    "T5 gated": (
        lambda: hf.T5EncoderModel(
            hf.T5Config(
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                vocab_size=50,
                feed_forward_proj="gated-gelu",
            )
        )
    ),
}


def saved(name: str, folder: Path) -> tuple[Any, Checkpoint]:
    """A model of random weights, and its checkpoint."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # biases start at zero, and would not show
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model, Checkpoint(folder)
