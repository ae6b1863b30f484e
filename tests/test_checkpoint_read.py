"""Checkpoints that are read: what is measured is what transformers would load."""

# mypy: disable-error-code="func-returns-value"
# Tables of small changes: a tuple does one after the other.

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders_checkpoints import QUERY, as_bin, bert, config_with, digests, edit, lora, sharded
from commands import decaymerge
from decaymerge import store
from decaymerge.checkpoint import Checkpoint, kinds
from decaymerge.checkpoint.judge import judge

READ: dict[str, Callable[[Path], Any]] = {
    "consolidated weights beside the model": lambda f: save_file(
        {name: torch.zeros_like(x) for name, x in load_file(f / "model.safetensors").items()},
        f / "consolidated.safetensors",
    ),
    "a stray adapter beside a .bin": lambda f: (
        as_bin(f),
        save_file(lora(f), f / "adapter_model.safetensors"),
    ),
    "a stray adapter's config that is torn": lambda f: (f / "adapter_config.json").write_text("{"),
    "a stale index beside a single file": lambda f: (
        save_file({QUERY: torch.zeros(16, 16)}, f / "model-00001-of-00001.safetensors"),
        (f / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {QUERY: "model-00001-of-00001.safetensors"}})
        ),
    ),
    "an old .bin beside safetensors": lambda f: torch.save(
        {QUERY: torch.zeros(16, 16)}, f / "pytorch_model.bin"
    ),
    "another precision beside the model": lambda f: save_file(
        {QUERY: torch.zeros(16, 16)}, f / "model.fp16.safetensors"
    ),
    "a trainer's state beside the model": lambda f: [
        torch.save({"w": torch.ones(3, 3)}, f / name)
        for name in ("optimizer.pt", "training_args.bin", "scheduler.pt")
    ],
    "the name that the config gives": lambda f: (
        (f / "model.safetensors").rename(f / "mine.safetensors"),
        save_file({QUERY: torch.zeros(16, 16)}, f / "other.safetensors"),
        config_with(f, transformers_weights="mine.safetensors"),
    ),
    "weights in a folder that the config names": lambda f: (
        (f / "sub").mkdir(),
        (f / "model.safetensors").rename(f / "sub/mine.safetensors"),
        save_file({QUERY: torch.zeros(16, 16)}, f / "model.safetensors"),
        config_with(f, transformers_weights="sub/mine.safetensors"),
    ),
    "a class without layers": lambda f: config_with(f, architectures=["BertPreTrainedModel"]),
    "a class of another type": lambda f: config_with(f, architectures=["GPT2Model"]),
    "shards": sharded,
    "a .bin": as_bin,
    "position_ids, which nobody needs any more": lambda f: edit(
        f, lambda tensors: tensors.update({"embeddings.position_ids": torch.arange(8)[None]})
    ),
    "names with the prefix of a model with a head": lambda f: edit(
        f,
        lambda tensors: [tensors.update({f"bert.{name}": tensors.pop(name)}) for name in list(tensors)],
    ),
    "tensors that the class does not have": lambda f: edit(
        f, lambda tensors: tensors.update({"cls.bias": torch.ones(4), "cls.weight": torch.ones(4, 16)})
    ),
    "an ema beside the state_dict": lambda f: as_bin(
        f, lambda tensors: {"state_dict": tensors, "ema": {QUERY: torch.zeros(16, 16)}}
    ),
    "no architectures in the config": lambda f: config_with(f, architectures=None),
    "the config of a pretraining whose head is not stored": lambda f: config_with(
        f, architectures=["BertForMaskedLM"]
    ),
    "a class that transformers does not have": lambda f: config_with(f, architectures=["MyOwnBert"]),
}


def query_of(folder: Path) -> Tensor:
    """The first layer's query as transformers loads it."""
    model: Any = hf.BertModel.from_pretrained(folder)
    query: Tensor = model.encoder.layer[0].attention.self.query.weight.detach()
    return query


LOADS_ALIKE = set(READ) - {"an ema beside the state_dict", "a stray adapter's config that is torn"}
"""Kinds that ``from_pretrained`` of BertModel reads as well; PEFT makes it read an adapter's config."""


@pytest.mark.parametrize("kind", READ)
def test_what_is_read_is_what_transformers_reads(kind: str, tmp_path: Path) -> None:
    expected = torch.linalg.matrix_norm(load_file(Path(bert(tmp_path / "a", 3)) / "model.safetensors")[QUERY])
    READ[kind](tmp_path / "a")
    if kind == "shards":
        expected = query_of(tmp_path / "a").norm()
    if kind in LOADS_ALIKE:
        torch.testing.assert_close(query_of(tmp_path / "a").norm(), expected)
    before = digests(tmp_path)
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--output", tmp_path / "scan.nc")
    assert answer.returncode == 0, answer.stderr
    measured = store.read(tmp_path / "scan.nc").frobenius_norm.sel(role="Q").isel(layer=0)
    assert float(measured) == pytest.approx(float(expected), rel=1e-6)
    (tmp_path / "scan.nc").unlink()
    assert digests(tmp_path) == before


def test_partial_and_by_name_are_said(tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    edit(tmp_path / "a", lambda tensors: tensors.pop(QUERY))
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--partial")
    assert answer.returncode == 0 and "incomplete: 1 tensors of BertModel are missing" in answer.stdout
    answer = decaymerge("scan", f"path:{tmp_path}/a", "--by-name")
    assert answer.returncode == 0 and "nothing vouches for completeness" in answer.stdout
    (tmp_path / "a/config.json").unlink()
    answer = decaymerge("scan", f"path:{tmp_path}/a")
    assert "class: unknown, as there is no config.json; names decide, and nothing vouches" in answer.stdout


def test_a_second_scan_does_not_import_transformers(tmp_path: Path) -> None:
    """The answer of the class is kept, by config, names and shapes; another width asks again."""
    script = (
        "import sys; from pathlib import Path; from decaymerge.checkpoint import Checkpoint;"
        "from decaymerge.checkpoint.judge import judge; judge(Checkpoint(Path(sys.argv[1])));"
        "print('transformers' in sys.modules)"
    )
    bert(tmp_path / "a", 0)
    bert(tmp_path / "b", 1, intermediate_size=64)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    imported = []
    for name in ("a", "a", "b"):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        imported.append(done.stdout.strip())
    assert imported == ["True", "False", "True"]


def fp8(folder: Path, block: int = 8) -> Tensor:
    """The query in fp8 with a scale for each block; the numbers that it stands for are returned."""
    weight = load_file(folder / "model.safetensors")[QUERY]
    blocks = weight.unflatten(0, (-1, block)).unflatten(2, (-1, block))
    scale = blocks.abs().amax((1, 3)) / 448
    spread = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)
    stored = (weight / spread).to(torch.float8_e4m3fn)
    edit(folder, lambda tensors: tensors.update({QUERY: stored, f"{QUERY}_scale_inv": scale}))
    config_with(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [block, block]})
    return stored.float() * spread


@pytest.mark.parametrize("in_bin", [False, True])
def test_fp8_is_read_as_its_numbers(in_bin: bool, tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    bert(tmp_path / "b", 1)
    numbers = fp8(tmp_path / "a")
    if in_bin:
        as_bin(tmp_path / "a")
    checkpoint = Checkpoint(tmp_path / "a")
    assert not judge(checkpoint).problems and f"{QUERY}_scale_inv" not in checkpoint.tensors
    torch.testing.assert_close(checkpoint.read([QUERY])[0], numbers, rtol=1e-6, atol=0)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    loaded: Any = hf.BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    info = loaded[1]
    assert not info["missing_keys"] and not info["unexpected_keys"]
    other = load_file(tmp_path / "b/model.safetensors")[QUERY]
    torch.testing.assert_close(query_of(tmp_path / "out"), numbers + other)


def test_scales_of_fp8_may_be_exponents_and_in_a_part_of_the_config() -> None:
    config = {"text_config": {"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2]}}}
    stored = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]).to(torch.float8_e4m3fn)
    exponents = torch.tensor([[127, 128]], dtype=torch.uint8)
    assert kinds.quantisation(config, []) == "fp8"
    numbers = kinds.from_float8(stored, exponents, kinds.block_of(config))
    assert numbers.tolist() == [[1, 2, 8], [8, 16, 64]]


def test_mxfp4_is_read_as_its_numbers(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_local_experts": 4,
        "num_hidden_layers": 2,
        "head_dim": 8,
    }
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    hf.GptOssForCausalLM(hf.GptOssConfig(**sizes)).save_pretrained(tmp_path)
    config_with(tmp_path, quantization_config={"quant_method": "mxfp4"})
    name = next(name for name in Checkpoint(tmp_path).tensors if name.endswith("experts.down_proj"))
    experts, into, out = Checkpoint(tmp_path).tensors[name].shape
    codes = torch.randint(0, 256, (experts, out, into // 32, 16), dtype=torch.uint8)
    scales = torch.randint(120, 130, (experts, out, into // 32), dtype=torch.uint8)
    edit(
        tmp_path,
        lambda tensors: (
            tensors.pop(name),
            tensors.update({f"{name}_blocks": codes, f"{name}_scales": scales}),
        ),
    )
    checkpoint = Checkpoint(tmp_path)
    assert not judge(checkpoint).problems
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    pairs = torch.stack([table[(codes & 15).long()], table[(codes >> 4).long()]], -1).flatten(-2)
    numbers = (pairs * 2.0 ** (scales.float() - 127)[..., None]).flatten(2).mT
    torch.testing.assert_close(checkpoint.read([name])[0], numbers)
