"""Merging checkpoints: arithmetic, what transformers reads, shards, what is refused, and what a kill leaves."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from decaymerge.cli.checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from decaymerge.scan.checkpoint import Checkpoint
from test_cli import decaymerge

QUERY = "encoder.layer.0.attention.self.query.weight"
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
}


def bert(
    folder: Path, seed: int, dtype: torch.dtype = torch.float32, shard: str = "1GB", **changes: Any
) -> str:
    """A random BERT, saved by transformers."""
    torch.manual_seed(seed)
    network = BertModel(BertConfig(**(BERT | {"max_position_embeddings": 8} | changes)))
    network.to(dtype)  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if "LayerNorm" in name:
            torch.nn.init.normal_(parameter)
    network.save_pretrained(folder, max_shard_size=shard)
    return str(folder)


def gpt2(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    config = GPT2Config(n_embd=12, n_layer=2, n_head=2, vocab_size=20, n_positions=8)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def tensors_of(folder: Path | str) -> dict[str, Tensor]:
    checkpoint = Checkpoint(Path(folder))
    return {name: checkpoint.read([name])[0].clone() for name in checkpoint.tensors}


def merged(models: list[str], output: Path, *, predict: bool = False, **options: Any) -> dict[str, Tensor]:
    merge_checkpoints(models, output=output, predict=predict, **options)
    return tensors_of(output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("with_base", [True, False])
def test_methods_against_torch(dtype: torch.dtype, with_base: bool, tmp_path: Path) -> None:
    """Two and three models; summed in float32, or float64, and stored in the first one's type."""
    places = [bert(tmp_path / name, seed, dtype) for seed, name in enumerate(["base", "a", "b", "c"])]
    base, *stored = [tensors_of(place) for place in places]
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    for count in (2, 3):
        for method, coefficient in (("sum", 1.0), ("average", 1 / count), ("scaled", 0.7)):
            options: dict[str, Any] = {"coefficient": 0.7} if method == "scaled" else {}
            output = tmp_path / f"{method}{count}"
            chosen = places[1 : count + 1]
            found = merged(chosen, output, base=places[0] if with_base else None, method=method, **options)
            assert found.keys() == base.keys()
            for name, tensor in found.items():
                assert tensor.dtype is dtype
                start = base[name].to(wide) if with_base else torch.zeros((), dtype=wide)
                total = sum(model[name].to(wide) - start for model in stored[:count])
                expected = start + coefficient * total
                eps = torch.finfo(wide).eps
                exact = torch.allclose(
                    tensor.to(wide), expected.to(dtype).to(wide), rtol=4 * eps, atol=8 * eps
                )
                near = torch.finfo(dtype).eps  # a sum may be rounded the other way
                assert exact or torch.allclose(tensor.to(wide), expected, rtol=near, atol=8 * eps), name


def test_types_may_differ_and_the_first_decides(tmp_path: Path) -> None:
    a, b = bert(tmp_path / "a", 0, torch.float16), bert(tmp_path / "b", 1, torch.float32)
    found = merged([a, b], tmp_path / "ab")
    other = merged([b, a], tmp_path / "ba")
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert {tensor.dtype for tensor in other.values()} == {torch.float32}
    name = "encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(other[name], tensors_of(a)[name].float() + tensors_of(b)[name], rtol=0, atol=0)


def test_sharded_in_and_out_is_the_same(tmp_path: Path) -> None:
    whole = [bert(tmp_path / name, seed) for seed, name in enumerate(["a", "b"])]
    parts = [bert(tmp_path / f"{name}_sharded", seed, shard="8KB") for seed, name in enumerate(["a", "b"])]
    assert len(Checkpoint(Path(parts[0])).files) > 2
    expected = merged(whole, tmp_path / "whole")
    found = merged(parts, tmp_path / "sharded", max_shard_size="10kB")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2 and all(path.stat().st_size < 14_000 for path in shards)
    index = json.loads((tmp_path / "sharded/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(found)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    for folder in ("whole", "sharded"):
        network, report = AutoModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        loaded = network.state_dict()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
        assert network(torch.arange(5)[None]).last_hidden_state.isfinite().all()
    assert [path.name for path in (tmp_path / "whole").glob("*.safetensors*")] == ["model.safetensors"]
    with safe_open(tmp_path / "whole/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    base, a, b = (gpt2(tmp_path / name, seed) for seed, name in enumerate(["base", "a", "b"]))
    found = merged([a, b], tmp_path / "sum", base=base)
    assert not any("lm_head" in name for name in found)
    network = GPT2LMHeadModel.from_pretrained(tmp_path / "sum")
    assert network.lm_head.weight is network.transformer.wte.weight
    name = "transformer.wte.weight"
    expected = tensors_of(a)[name] + tensors_of(b)[name] - tensors_of(base)[name]
    torch.testing.assert_close(network.lm_head.weight.detach(), expected, rtol=1e-6, atol=1e-7)


def test_files_beside_the_weights(tmp_path: Path) -> None:
    base, a, b = (bert(tmp_path / name, seed) for seed, name in enumerate(["base", "a", "b"]))
    for place in (base, a):
        (Path(place) / "tokenizer.json").write_text(place)
    (Path(base) / "vocab.txt").write_text("the base's")
    (Path(a) / "README.md").write_text("about a, not about the sum")
    merged([a, b], tmp_path / "sum", base=base)
    names = {path.name for path in (tmp_path / "sum").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "merge.json"}
    assert (tmp_path / "sum/tokenizer.json").read_text() == a
    assert not (tmp_path / "sum/vocab.txt").exists()  # a tokenizer is one network's, and not a mixture
    (Path(a) / "tokenizer.json").unlink()
    merged([a, b], tmp_path / "without", base=base)
    assert (tmp_path / "without/tokenizer.json").read_text() == base and (
        tmp_path / "without/vocab.txt"
    ).exists()
    record = json.loads((tmp_path / "sum/merge.json").read_text())
    assert record["settings"] == {"models": [a, b], "base": base, "method": "sum"} and record["torch"]


def test_whole_numbers_are_copied_or_refused(tmp_path: Path) -> None:
    for name, ids in (("a", [0, 1]), ("b", [0, 1]), ("c", [0, 2])):
        (tmp_path / name).mkdir()
        tensors = {"w": torch.ones(2, 2), "position_ids": torch.tensor(ids)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert merged([a, b], tmp_path / "sum")["position_ids"].tolist() == [0, 1]
    with pytest.raises(
        UserError, match=r"position_ids is int64, which is not summed, and differs between a and c"
    ):
        merged([a, c], tmp_path / "other")


def test_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, base = (bert(tmp_path / name, seed) for seed, name in enumerate(["a", "b", "base"]))
    merged([a, b], tmp_path / "sum")
    shown = capsys.readouterr().out
    assert "warning: without --base, biases, LayerNorm and embeddings are summed" in shown
    merged([a, b], tmp_path / "average", method="average")
    merged([a, b], tmp_path / "with_base", base=base)
    assert "warning:" not in capsys.readouterr().out
    found = merged([a, b], tmp_path / "from_a", base=a)
    assert "warning: a is the base itself: its task vector is zero" in capsys.readouterr().out
    torch.testing.assert_close(found[QUERY], tensors_of(b)[QUERY], rtol=1e-5, atol=1e-7)


KILLED = """
import os, signal, sys
from pathlib import Path
from decaymerge.checkpoints import merge
from decaymerge.cli.checkpoints import merge_checkpoints

save, saved = merge._save, []

def save_then_die(*arguments):
    save(*arguments)
    saved.append(arguments)
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

merge._save = save_then_die
merge_checkpoints(sys.argv[1:3], output=Path(sys.argv[3]), predict=False, max_shard_size="8kB")
"""


def test_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    a, b = (bert(tmp_path / name, seed) for seed, name in enumerate("ab"))
    done = subprocess.run([sys.executable, "-c", KILLED, a, b, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.glob(".out.*.tmp")
    assert len(list(left.iterdir())) == 2
    merged([a, b], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the system refuses to write on."""
    a, b = (bert(tmp_path / name, seed) for seed, name in enumerate("ab"))
    command = [str(Path(sys.executable).parent / "decaymerge"), "merge-checkpoints", a, b, "--no-predict"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/out cannot be written: ") and "make room if it is full" in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_command(tmp_path: Path) -> None:
    base, a, b = (bert(tmp_path / name, seed) for seed, name in enumerate(["base", "a", "b"]))
    out, report, plot = (tmp_path / name for name in ("out", "report.nc", "plot.pdf"))
    command = ["merge-checkpoints", a, b, "--base", base, "--method", "scaled", "--coefficient", "0.5"]
    done = decaymerge(*command, "--output", out, "--report", report, "--plot", plot)
    assert done.returncode == 0, done.stderr
    for part in (
        "predicted interference; in each column: a, b",
        QUERY,
        "matrices collide",
        f"merged into {out}",
    ):
        assert part in done.stdout
    assert "predicting" in done.stderr and "merging" in done.stderr
    assert plot.stat().st_size > 5000 and plot.with_suffix(".png").exists()
    assert AutoModel.from_pretrained(out).config.hidden_size == 16
    assert "coefficient: 0.5" in decaymerge("inspect", report).stdout
