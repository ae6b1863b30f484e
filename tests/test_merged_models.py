"""Merged models load whole, and checkpoints that must not be merged are told apart by all that they are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from builders_checkpoints import bert, config_with, edit, gpt2
from builders_tiny_models import tiny
from commands import decaymerge
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.judge import judge


def test_a_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        gpt2(tmp_path / name, seed)
    edit(
        tmp_path / "a",
        lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()}),
    )
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert (
        "left out, copies of a tied table: lm_head.weight (tied to transformer.wte.weight)" in answer.stdout
    )
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    assert_merged_in_memory(tmp_path, hf.GPT2LMHeadModel)


def test_a_tied_head_may_be_the_only_copy(tmp_path: Path) -> None:
    gpt2(tmp_path / "a", 0)
    edit(
        tmp_path / "a",
        lambda tensors: tensors.update({"lm_head.weight": tensors.pop("transformer.wte.weight")}),
    )
    loaded: Any = hf.GPT2LMHeadModel.from_pretrained(tmp_path / "a", output_loading_info=True)
    info = loaded[1]
    checkpoint = Checkpoint(tmp_path / "a")
    form = judge(checkpoint, partial=True)
    assert bool(form.problems) == bool(info["missing_keys"]) and "lm_head.weight" in checkpoint.tensors


def test_names_that_look_quantised_are_weights(tmp_path: Path) -> None:
    """A model of one's own may have blocks and scales."""
    tensors = {"x_blocks": torch.ones(2, 2), "x_scales": torch.ones(2), "y": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert set(Checkpoint(tmp_path).tensors) == set(tensors)


def assert_merged_in_memory(place: Path, model_class: Any) -> None:
    """The merged model loads whole, and its outputs are those of the merge done in memory."""
    merged, info = model_class.from_pretrained(place / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    a, b = (model_class.from_pretrained(place / name) for name in "ab")
    summed = {
        name: x + b.state_dict()[name] if x.is_floating_point() else x for name, x in a.state_dict().items()
    }
    a.load_state_dict(summed)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    inputs = {"decoder_input_ids": ids} if a.config.is_encoder_decoder else {}
    with torch.no_grad():
        outputs = [model.eval()(input_ids=ids, **inputs)[0] for model in (merged, a)]
    torch.testing.assert_close(*outputs)


KINDS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "BERT with a head": (
        hf.BertForSequenceClassification,
        lambda: hf.BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=30
        ),
    ),
    "T5": (
        hf.T5ForConditionalGeneration,
        lambda: hf.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=30),
    ),
    "BART": (
        hf.BartForConditionalGeneration,
        lambda: hf.BartConfig(
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            vocab_size=60,
            max_position_embeddings=16,
            pad_token_id=1,
        ),
    ),
    "Mixtral": (
        hf.MixtralForCausalLM,
        lambda: hf.MixtralConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            vocab_size=30,
            num_local_experts=3,
        ),
    ),
    "Llama, tied": (
        hf.LlamaForCausalLM,
        lambda: hf.LlamaConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=30,
            tie_word_embeddings=True,
        ),
    ),
    "ALBERT": (
        hf.AlbertForMaskedLM,
        lambda: hf.AlbertConfig(
            hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=32, vocab_size=30
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_models_load_whole_and_give_the_outputs_of_a_merge_in_memory(
    kind: str, tmp_path: Path
) -> None:
    model_class, config = KINDS[kind]
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model_class(config()).save_pretrained(tmp_path / name)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    assert_merged_in_memory(tmp_path, model_class)


DIFFERENT: dict[str, tuple[str, Any, Any, str]] = {
    "heads in a nested part": (
        "gemma3",
        {"text_config": {"query_pre_attn_scalar": 7}},
        {},
        "text_config.query_pre_attn_scalar",
    ),
    "rotary scaling in one of them": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {},
        "rope_parameters",
    ),
    "rotary scaling by its old name": (
        "llama",
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {},
        "rope_",
    ),
    "another activation": ("llama", {"hidden_act": "relu"}, {}, "hidden_act is relu in a and silu in b"),
    "another epsilon than the default": ("llama", {"rms_norm_eps": 1e-3}, {}, "rms_norm_eps"),
    "another number of experts per token": ("mixtral", {"num_experts_per_tok": 1}, {}, "num_experts_per_tok"),
    "a window of attention": ("mistral", {"sliding_window": 7}, {}, "sliding_window"),
    "a multiplier": ("granite", {"residual_multiplier": 0.5}, {}, "residual_multiplier"),
    "a soft cap": ("gemma2", {"attn_logit_softcapping": 9.0}, {}, "attn_logit_softcapping"),
    "the type of positions": ("bert", {"layer_norm_eps": 1e-3}, {}, "layer_norm_eps"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_configs_are_compared_whole(kind: str, tmp_path: Path) -> None:
    model_type, change, _, expected = DIFFERENT[kind]
    for name in "ab":
        model = tiny(model_type)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(ord(name) % 7)
        model.save_pretrained(tmp_path / name)
    config = json.loads((tmp_path / "a/config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(config.get(key), dict) else value
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    assert answer.returncode == 1 and f"config.json: {expected}" in answer.stderr, (
        answer.stderr + answer.stdout
    )


@pytest.mark.parametrize(
    "values", [(None, {"rope_type": "linear", "factor": 2.0}), ({"factor": 2}, {"factor": 3})]
)
def test_configs_are_compared_where_no_class_is_known(values: tuple[Any, Any], tmp_path: Path) -> None:
    for seed, (name, value) in enumerate(zip("ab", values, strict=True)):
        bert(tmp_path / name, seed)
        config_with(tmp_path / name, model_type="mine", rope_scaling=value, only_here=name, **{name: 1})
    command = (
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "b",
        "--no-predict",
        "--output",
        tmp_path / "out",
    )
    answer = decaymerge(*command)
    assert answer.returncode == 1 and "config.json: only_here is a in a and b in b" in answer.stderr
    for name in "ab":
        config_with(tmp_path / name, only_here=0)
    answer = decaymerge(*command)
    assert answer.returncode == 1 and "config.json: rope_scaling" in answer.stderr
    config_with(tmp_path / "a", rope_scaling=values[1])
    assert decaymerge(*command).returncode == 0, "a key that only one of them has does not count"


def test_other_names_of_labels_and_another_padding_are_told(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
    config_with(tmp_path / "a", id2label={"0": "good", "1": "bad"}, pad_token_id=0)
    config_with(tmp_path / "b", id2label={"0": "bad", "1": "good"}, pad_token_id=1)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "o"
    )
    assert answer.returncode == 0, answer.stderr
    for key in ("id2label", "pad_token_id"):
        assert f"warning: config.json: {key} is " in answer.stdout


def test_another_tokenizer_is_told(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        vocabulary = {"x": 0, "y": 1} if name == "a" else {"y": 0, "x": 1}
        content = {"model": {"vocab": vocabulary}, "added_tokens": [], "truncation": name}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(content))
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b")
    assert "warning: tokenizer.json of b gives tokens other numbers than that of a" in answer.stdout
    shutil.copy(tmp_path / "a/tokenizer.json", tmp_path / "b/tokenizer.json")
    assert "other numbers" not in decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b").stdout
