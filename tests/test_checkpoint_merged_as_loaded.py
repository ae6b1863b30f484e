"""Merges of checkpoints whose parts the class reads in its own way: the output is what the class would merge."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from builders_checkpoints import as_bin, bert, config_with, edit
from commands import decaymerge


def gpt2_with_a_head_of_its_own(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=8)
    ).save_pretrained(folder)
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": torch.randn(20, 16)}))


def gemma3_with_a_quantised_part(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    text |= {"intermediate_size": 32, "vocab_size": 30, "head_dim": 8}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(text_config=text, vision_config=vision)
    ).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [8, 8]}
    (folder / "config.json").write_text(json.dumps(config))


def mamba2(folder: Path, seed: int) -> None:
    """Its config holds an infinity, which ``save_pretrained`` writes as a mapping."""
    torch.manual_seed(seed)
    hf.Mamba2ForCausalLM(
        hf.Mamba2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_heads=4,
            head_dim=8,
            state_size=8,
            vocab_size=30,
            n_groups=1,
        )
    ).save_pretrained(folder)
    assert "__float__" in (folder / "config.json").read_text()


def under_another_name(folder: Path, seed: int) -> None:
    bert(folder, seed)
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    config_with(folder, transformers_weights="mine.safetensors")


def with_two_layers_too_many(folder: Path, seed: int) -> None:
    bert(folder, seed, num_hidden_layers=4)
    config_with(folder, num_hidden_layers=2)


def with_a_table_of_integers(folder: Path, seed: int) -> None:
    bert(folder, seed)
    as_bin(folder, lambda tensors: tensors | {"x.table": torch.arange(12).reshape(3, 4).T})


MODELS: dict[str, tuple[Callable[[Path, int], Any], Any]] = {
    "a head that is tied by the config and differs": (gpt2_with_a_head_of_its_own, hf.GPT2LMHeadModel),
    "a part that its own config calls quantised": (
        gemma3_with_a_quantised_part,
        hf.Gemma3ForConditionalGeneration,
    ),
    "an infinity in the config": (mamba2, hf.Mamba2ForCausalLM),
    "weights under another name": (under_another_name, hf.BertModel),
    "more layers than the config has": (with_two_layers_too_many, hf.BertModel),
    "a table of whole numbers that is stored transposed": (with_a_table_of_integers, hf.BertModel),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_the_merge_of_what_the_class_loads(name: str, tmp_path: Path) -> None:
    make, model_class = MODELS[name]
    for seed, folder in enumerate("ab"):
        make(tmp_path / folder, seed)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    merged, info = model_class.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for folder in "ab":
        config = json.loads((tmp_path / folder / "config.json").read_text())
        config.get("text_config", {}).pop("quantization_config", None)
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    models = [model_class.from_pretrained(tmp_path / folder).state_dict() for folder in "ab"]
    for key, value in merged.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, models[0][key] + models[1][key])


def test_tensors_that_the_class_does_not_have_are_no_layers(tmp_path: Path) -> None:
    with_two_layers_too_many(tmp_path / "a", 0)
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert answer.returncode == 0 and "encoder.layer.1 " in answer.stdout
    assert "left out, not in BertModel: encoder.layer.2" in answer.stdout
    assert "encoder.layer.3 " not in answer.stdout


def test_a_missing_matrix_is_seen_beside_an_infinity_in_the_config(tmp_path: Path) -> None:
    mamba2(tmp_path / "a", 0)
    edit(tmp_path / "a", lambda tensors: tensors.pop("backbone.layers.0.mixer.out_proj.weight"))
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert answer.returncode == 1 and "1 tensors of Mamba2ForCausalLM are missing" in answer.stderr


def test_parts_behind_links_are_copied_or_refused(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        part = tmp_path / f"part-{name}"
        part.mkdir()
        (part / "config.json").write_text("{}")
        (tmp_path / name / "1_Pooling").symlink_to(part)
        (part / "loop").symlink_to(tmp_path / name)
    arguments = ["merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output"]
    assert decaymerge(*arguments, tmp_path / "out").returncode == 0
    assert (tmp_path / "out/1_Pooling/config.json").read_text() == "{}"
    for name in "ab":
        save_file({"w": torch.full((2, 2), float(ord(name)))}, tmp_path / f"part-{name}/model.safetensors")
    answer = decaymerge(*arguments, tmp_path / "other")
    assert answer.returncode == 1 and "1_Pooling/model.safetensors is a part of" in answer.stderr


def test_an_output_is_outside_of_the_models_and_their_reports_are_no_part_of_them(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
    models = [tmp_path / "a", tmp_path / "b"]
    answer = decaymerge("merge-checkpoints", *models, "--no-predict", "--output", tmp_path / "a/merged")
    assert answer.returncode == 1 and "is inside" in answer.stderr
    scan = decaymerge(
        "scan", f"path:{models[0]}", "--output", models[0] / "scan.nc", "--plot", models[0] / "x.pdf"
    )
    assert scan.returncode == 0, scan.stderr
    assert (
        decaymerge("merge-checkpoints", *models, "--no-predict", "--output", tmp_path / "out").returncode == 0
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "config.json", "merge.json", "model.safetensors"}


@pytest.mark.parametrize("kind", ["device", "pipe", "link to nothing"])
def test_devices_and_pipes_are_not_replaced(kind: str, tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    output = tmp_path / "output.nc"
    if kind == "device":
        try:
            os.mknod(output, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            output.symlink_to("/dev/null")
    elif kind == "pipe":
        os.mkfifo(output)
    else:
        output.symlink_to(tmp_path / "nowhere")
    before = output.lstat()
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--output", output)
    assert answer.returncode == 1 and "is a device, a pipe or a link to nothing" in answer.stderr
    assert output.lstat().st_mode == before.st_mode and output.lstat().st_ino == before.st_ino


def test_names_cannot_move_the_cursor(tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    edit(tmp_path / "a", lambda tensors: tensors.update({"x\x1b[2J\nerror: y": torch.ones(2, 2)}))
    (tmp_path / "a" / os.fsdecode(b"w\xff.bin")).write_bytes(b"")
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert answer.returncode == 0, answer.stderr
    assert "\x1b" not in answer.stdout and "\nerror: y" not in answer.stdout
    assert r"x\x1b[2J\nerror: y" in answer.stdout


def test_counters_of_batch_norm_are_no_weights(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = hf.ResNetModel(
            hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_channels=3)
        )
        for key, buffer in model.named_buffers():
            if key.endswith("num_batches_tracked"):
                buffer.fill_(seed)
        model.save_pretrained(tmp_path / name)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
