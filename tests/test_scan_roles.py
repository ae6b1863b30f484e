"""Stacks, experts and gates of whole models, from the checkpoint to the scan."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from builders_tiny_models import tiny
from commands import decaymerge
from decaymerge import store


def scan_of(folder: Path, place: Path) -> Any:
    answer = decaymerge("scan", f"path:{folder}", "--output", place / "scan.nc", "--plot", place / "scan.pdf")
    assert answer.returncode == 0, answer.stderr
    return store.read(place / "scan.nc"), answer.stdout


def test_encoder_and_decoder_are_two_series(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 30,
    }
    pair: Any = hf.EncoderDecoderModel(
        encoder=hf.BertModel(hf.BertConfig(**small)),
        decoder=hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=30, add_cross_attention=True)
        ),
    )
    pair.save_pretrained(tmp_path / "a")
    scan, printed = scan_of(tmp_path / "a", tmp_path)
    stacks = scan["stack"].values.tolist()
    assert [stacks.count("encoder.encoder.layer"), stacks.count("decoder.transformer.h")] == [2, 3]
    assert scan.frobenius_norm.sel(role=["Q", "K", "V", "O", "QKV", "M1", "M2"]).notnull().all()
    key = pair.encoder.encoder.layer[1].attention.self.key.weight
    measured = scan.frobenius_norm.sel(role="K").isel(layer=stacks.index("encoder.encoder.layer") + 1)
    assert float(measured) == pytest.approx(float(key.detach().norm()), rel=1e-6)
    assert "% of all entries" in printed


def test_experts_are_shown_by_their_median_and_range(tmp_path: Path) -> None:
    model = tiny("mixtral")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    experts = model.model.layers[1].mlp.experts.down_proj.detach()  # (experts, out, in)
    norms = torch.linalg.matrix_norm(experts)
    layer = scan.isel(layer=1).sel(role="E2")
    assert float(layer.frobenius_norm) == pytest.approx(float(norms.quantile(0.5)), rel=1e-5)
    assert float(layer.smallest_frobenius_norm) == pytest.approx(float(norms.min()), rel=1e-5)
    assert float(layer.largest_frobenius_norm) == pytest.approx(float(norms.max()), rel=1e-5)


def test_packed_experts_are_taken_apart(tmp_path: Path) -> None:
    model = tiny("granitemoe")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    norms = torch.linalg.matrix_norm(model.model.layers[0].block_sparse_moe.experts.gate_up_proj.detach())
    assert float(scan.largest_frobenius_norm.sel(role="E1")[0]) == pytest.approx(float(norms.max()), rel=1e-5)


def test_the_gate_is_no_part_of_the_query(tmp_path: Path) -> None:
    model = tiny("qwen3_next")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    attention = model.model.layers[3].self_attn
    heads = attention.q_proj.weight.detach().unflatten(0, (model.config.num_attention_heads, 2, -1))
    measured = scan.frobenius_norm.sel(role="Q").dropna("layer")
    assert float(measured[-1]) == pytest.approx(float(heads[:, 0].norm()), rel=1e-6)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "diffllama"])
def test_a_type_that_is_not_verified_is_scanned_by_name(model_type: str, tmp_path: Path) -> None:
    """DeepSeek has no single Q. DiffLlama has all of Llama's names, but does something else with V."""
    model = tiny(model_type)
    model.save_pretrained(tmp_path / "a")
    scan, printed = scan_of(tmp_path / "a", tmp_path)
    assert scan.role.values.tolist() == ["matrix"]
    assert "unknown; every matrix is scanned by its name" in printed


def test_a_vision_tower_and_a_language_model_are_two_series(tmp_path: Path) -> None:
    vision = hf.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    text = hf.LlamaConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, vocab_size=30
    )
    model: Any = hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=vision, text_config=text))
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    stacks = scan["stack"].values.tolist()
    (tower,) = {stack for stack in stacks if "vision" in stack}
    (language,) = set(stacks) - {tower, ""}  # the projector between them is scanned by name
    assert (stacks.count(tower), stacks.count(language)) == (3, 2)
    layers = scan.isel(layer=scan["stack"].values != "")
    assert layers.frobenius_norm.sel(role=["Q", "K", "V", "O", "QKV", "M1", "M2"]).notnull().all()
    by_name = scan.isel(layer=scan["stack"].values == "").frobenius_norm.sel(role="matrix")
    assert by_name.sizes["layer"] and by_name.notnull().all()
    weight = model.model.language_model.layers[1].mlp.down_proj.weight.detach()
    measured = scan.frobenius_norm.sel(role="M2").isel(layer=stacks.index(language) + 1)
    assert float(measured) == pytest.approx(float(weight.norm()), rel=1e-6)


def test_one_dense_layer_among_experts(tmp_path: Path) -> None:
    model = tiny("glm4_moe")
    model.save_pretrained(tmp_path / "a")
    scan, _ = scan_of(tmp_path / "a", tmp_path)
    first, others = scan.frobenius_norm.isel(layer=0), scan.frobenius_norm.isel(layer=slice(1, None))
    assert first.sel(role=["M1", "M2"]).notnull().all() and first.sel(role=["E1", "E2"]).isnull().all()
    assert others.sel(role=["M1", "M2"]).isnull().all() and others.sel(role=["E1", "E2"]).notnull().all()
    weight = model.model.layers[0].mlp.down_proj.weight.detach()
    assert float(first.sel(role="M2")) == pytest.approx(float(weight.norm()), rel=1e-6)
