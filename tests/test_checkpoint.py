"""Reading a checkpoint: formats that agree, nothing unpickled, files that are damaged or are none."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from builders_checkpoints import TINY, scanned, tensors_of
from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import UserError


def test_formats_agree(tmp_path: Path) -> None:
    """One safetensors file, shards with an index, a .bin, sharded .bin, and fairseq's nesting in a legacy file."""
    tensors = tensors_of(TINY)
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    shards = {f"model-0000{i + 1}-of-00002.safetensors": half for i, half in enumerate(halves)}
    folders = {name: tmp_path / name for name in ("sharded", "bin", "sharded_bin", "legacy")}
    for folder in folders.values():
        folder.mkdir()
    for name, half in shards.items():
        save_file(half, folders["sharded"] / name)
        torch.save(half, folders["sharded_bin"] / name.replace("safetensors", "bin"))
    index = {tensor: name for name, half in shards.items() for tensor in half}
    (folders["sharded"] / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    torch.save(tensors, folders["bin"] / "pytorch_model.bin")
    nested = {"args": None, "model": tensors}
    torch.save(nested, folders["legacy"] / "checkpoint.pt", _use_new_zipfile_serialization=False)
    expected = scanned(TINY)
    for folder in folders.values():
        scan = scanned(folder)
        for name in ("frobenius_norm", "spectral_norm", "stable_rank"):
            np.testing.assert_allclose(scan[name], expected[name], rtol=1e-6)
    (folders["sharded"] / "model-00002-of-00002.safetensors").unlink()
    assert Checkpoint(folders["sharded"]).problems[0] == "model-00002-of-00002.safetensors is missing"


class Malicious:
    """Would create a file when unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(os.environ["MALICIOUS_TARGET"]),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_unpickled(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALICIOUS_TARGET", str(tmp_path / "touched"))
    content = {"encoder.layer.0.output.dense.weight": torch.ones(2, 2), "x": Malicious()}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="not readable as a file of tensors alone"):
        Checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError, match="not readable as a file of tensors alone"):
        Checkpoint(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_one_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("a-1-of-2", "a-2-of-2"):
        save_file({"w": torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
    assert list(Checkpoint(tmp_path).tensors) == ["w"]
    save_file({"w": torch.eye(2)}, tmp_path / "a-2-of-2.safetensors")
    with pytest.raises(
        UserError, match=r"w is in a-1-of-2.safetensors and in a-2-of-2.safetensors, with other"
    ):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "index", [{"weight_map": {"a": "../x.safetensors"}}, {}, [], {"weight_map": {}}, {"weight_map": [1]}]
)
def test_index_that_is_none(index: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"has no weight_map from tensors to files in its folder|holds a list, not a mapping"
    ):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello world", b".", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_files_that_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"not readable as a file of tensors alone|is a Git LFS pointer"):
        Checkpoint(tmp_path)


def test_parameters_nested_and_sparse_tensors(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(6, 4))
    torch.save({"model_state_dict": {"w": weight}, "epoch": 3}, tmp_path / "ckpt.pt")
    assert float(scanned(tmp_path).frobenius_norm[0, 0]) == pytest.approx(weight.norm().item(), rel=1e-6)
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="w is sparse, quantised, or has no data"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_truncated_safetensors(part: float, tmp_path: Path) -> None:
    content = (TINY / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match="is not readable as safetensors") as refusal:
        Checkpoint(tmp_path)
    assert "\n" not in str(refusal.value)
