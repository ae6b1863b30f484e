"""Builders of tiny checkpoints for tests."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from builders import REPOSITORY
from decaymerge.checkpoint import Checkpoint
from decaymerge.scan import matrices_by_role, scan
from decaymerge.scan.plan import make_plan
from decaymerge.workflow.jobs import ScanJob

TINY = REPOSITORY / "tests/data/tiny_bert"
QUERY = "encoder.layer.0.attention.self.query.weight"
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 8,
}


def bert(
    folder: Path, seed: int, dtype: torch.dtype = torch.float32, shard: str = "1GB", **changes: Any
) -> str:
    """A random BERT, saved by transformers."""
    torch.manual_seed(seed)
    network = BertModel(BertConfig(**(BERT | changes)))
    network.to(dtype)  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if "LayerNorm" in name:
            torch.nn.init.normal_(parameter)
    network.save_pretrained(folder, max_shard_size=shard)
    return str(folder)


def with_words(folder: Path, count: int = 30) -> None:
    """A tokenizer of ``count`` tokens, whose words are w0, w1, …"""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *(f"w{i}" for i in range(count - len(special)))]))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def berts(folder: Path, names: str | list[str], dtype: torch.dtype = torch.float32) -> list[str]:
    """Random BERTs of these names, all different."""
    return [bert(folder / name, seed, dtype) for seed, name in enumerate(names)]


def gpt2(folder: Path, seed: int) -> str:
    """A random GPT-2, whose embeddings are tied."""
    torch.manual_seed(seed)
    config = GPT2Config(n_embd=12, n_layer=2, n_head=2, vocab_size=20, n_positions=8)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def tensors_of(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, copied from its files."""
    checkpoint = Checkpoint(Path(folder))
    names = list(checkpoint.tensors)
    return {name: tensor.clone() for name, tensor in zip(names, checkpoint.read(names), strict=True)}


def scanned(folder: Path, threads: int = 1, **changes: Any) -> xr.Dataset:
    """The scan of a checkpoint."""
    base = {"source": ["x"], "path": "", "tolerance": 1e-6, "spectrum": False}
    checkpoint = Checkpoint(folder)
    plan = make_plan(checkpoint)
    plan.use(threads, 10**12)
    return scan(ScanJob.model_validate(base | changes), checkpoint, plan)


def matrices_of(checkpoint: Checkpoint) -> dict[tuple[str, str], Tensor]:
    """(layer, role) to the matrix (out, in) that the scan measures."""
    plan = make_plan(checkpoint)
    matrices: dict[tuple[str, str], Tensor] = {}
    for group in plan.groups:
        names = [name for part in group.parts.values() for name in part]
        tensors = checkpoint.read(names)
        for role, (blocks, *_) in matrices_by_role(group, tensors).items():
            matrices[group.layer, role] = torch.cat(list(blocks))
    return matrices


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def config_with(folder: Path, **changes: Any) -> None:
    """Change keys of a config."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any], name: str = "model.safetensors") -> None:
    """Change the tensors of a file."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


def as_bin(folder: Path, content: Callable[[dict[str, Tensor]], Any] = dict) -> None:
    """Turn safetensors into a file of PyTorch with this content."""
    torch.save(content(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder: Path) -> None:
    """A random BERT in shards takes the place of a checkpoint."""
    shutil.rmtree(folder)
    bert(folder, 0, shard="8kB")


def lora(folder: Path) -> dict[str, Tensor]:
    """Tensors of an adapter of PEFT."""
    return {
        f"base_model.model.encoder.layer.{layer}.attention.self.query.lora_{side}.weight": torch.randn(shape)
        for layer in range(2)
        for side, shape in (("A", (4, 16)), ("B", (16, 4)))
    }
