"""Merging checkpoints: arithmetic, what transformers reads, shards, what is refused, and what a kill leaves."""

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, GPT2LMHeadModel

from builders_checkpoints import QUERY, bert, berts, gpt2, tensors_of
from commands import decaymerge
from decaymerge.checkpoint import Checkpoint
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints import Sources, merge
from decaymerge.merge_methods import MERGE_METHODS, merge_method
from decaymerge.workflow.jobs import CheckpointsJob


def merged(models: list[str], output: Path, *, predict: bool = False, **options: Any) -> dict[str, Tensor]:
    merge_checkpoints(models, output=output, predict=predict, **options)
    return tensors_of(output)


def reference_merge(
    models: list[dict[str, Tensor]], base: dict[str, Tensor] | None, coefficient: float, wide: torch.dtype
) -> dict[str, Tensor]:
    """Base + coefficient · Σ (W_i - base) of every tensor, in a wide type."""
    merged = {}
    for name, tensor in models[0].items():
        start = torch.zeros_like(tensor, dtype=wide) if base is None else base[name].to(wide)
        merged[name] = start + coefficient * sum(model[name].to(wide) - start for model in models)
    return merged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("with_base", [True, False])
def test_methods_against_torch(dtype: torch.dtype, with_base: bool, tmp_path: Path) -> None:
    """Two and three models; summed in float32, or float64, and stored in the first one's type."""
    base, *models = berts(tmp_path, ["base", "a", "b", "c"], dtype)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    for count in (2, 3):
        for method, coefficient in (("sum", 1.0), ("average", 1 / count), ("scaled", 0.7)):
            options: dict[str, Any] = {"coefficient": 0.7} if method == "scaled" else {}
            options["base"] = base if with_base else None
            output = tmp_path / f"{method}{count}"
            tensors = merged(models[:count], output, method=method, **options)
            reference = reference_merge(
                [tensors_of(model) for model in models[:count]],
                tensors_of(base) if with_base else None,
                coefficient,
                wide,
            )
            assert tensors.keys() == reference.keys()
            for name, tensor in tensors.items():
                assert tensor.dtype is dtype
                eps, near = torch.finfo(wide).eps, torch.finfo(dtype).eps
                stored, rounded = tensor.to(wide), reference[name].to(dtype).to(wide)
                exact = torch.allclose(stored, rounded, rtol=4 * eps, atol=8 * eps)
                # A sum may be rounded the other way.
                assert exact or torch.allclose(stored, reference[name], rtol=near, atol=8 * eps), name


def test_a_method_that_asks_for_the_base_gets_it(tmp_path: Path) -> None:
    base, a, b = berts(tmp_path, ["base", "a", "b"])
    with mock.patch.dict(MERGE_METHODS):

        @merge_method("signs_of_base")
        def signs_of_base(changes: Sequence[Tensor], *, base: Tensor) -> Tensor:
            """The summed changes, with the base's signs."""
            return sum(changes[1:], start=changes[0]) * base.sign()

        sources = Sources({"a": Checkpoint(Path(a)), "b": Checkpoint(Path(b))}, Checkpoint(Path(base)))
        job = CheckpointsJob.model_construct(models=[a, b], base=base, method="signs_of_base")
        tensor = merge.merged_tensor(sources, job, QUERY)
        start, first, second = (tensors_of(place)[QUERY] for place in (base, a, b))
        expected = start + (first + second - 2 * start) * start.sign()
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
        without = Sources({"a": Checkpoint(Path(a)), "b": Checkpoint(Path(b))})
        with pytest.raises(UserError, match="merge method signs_of_base needs base"):
            merge.merged_tensor(without, job, QUERY)


def test_types_may_differ_and_the_first_decides(tmp_path: Path) -> None:
    a, b = bert(tmp_path / "a", 0, torch.float16), bert(tmp_path / "b", 1, torch.float32)
    half = merged([a, b], tmp_path / "ab")
    single = merged([b, a], tmp_path / "ba")
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert {tensor.dtype for tensor in single.values()} == {torch.float32}
    name = "encoder.layer.0.output.dense.weight"
    expected = tensors_of(a)[name].float() + tensors_of(b)[name]
    torch.testing.assert_close(single[name], expected, rtol=0, atol=0)


def test_sharded_in_and_out_is_the_same(tmp_path: Path) -> None:
    whole = berts(tmp_path, "ab")
    parts = [bert(tmp_path / f"{name}_sharded", seed, shard="8KB") for seed, name in enumerate(["a", "b"])]
    assert len(Checkpoint(Path(parts[0])).files) > 2
    expected = merged(whole, tmp_path / "whole")
    tensors = merged(parts, tmp_path / "sharded", max_shard_size="10kB")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2 and all(path.stat().st_size < 14_000 for path in shards)
    index = json.loads((tmp_path / "sharded/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
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
    assert not any("lm_head" in name for name in merged([a, b], tmp_path / "sum", base=base))
    network = GPT2LMHeadModel.from_pretrained(tmp_path / "sum")
    assert network.lm_head.weight is network.transformer.wte.weight
    name = "transformer.wte.weight"
    expected = tensors_of(a)[name] + tensors_of(b)[name] - tensors_of(base)[name]
    torch.testing.assert_close(network.lm_head.weight.detach(), expected, rtol=1e-6, atol=1e-7)


def test_files_beside_the_weights(tmp_path: Path) -> None:
    base, a, b = berts(tmp_path, ["base", "a", "b"])
    for place in (base, a):
        (Path(place) / "tokenizer.json").write_text(place)
    (Path(base) / "vocab.txt").write_text("the base's")
    (Path(a) / "README.md").write_text("about a, not about the sum")
    merged([a, b], tmp_path / "sum", base=base)
    names = {path.name for path in (tmp_path / "sum").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "merge.json", "README.md"}
    assert (tmp_path / "sum/tokenizer.json").read_text() == a
    assert not (tmp_path / "sum/vocab.txt").exists()  # a tokenizer is one network's, and not a mixture
    (Path(a) / "tokenizer.json").unlink()
    merged([a, b], tmp_path / "without", base=base)
    assert (tmp_path / "without/tokenizer.json").read_text() == base and (
        tmp_path / "without/vocab.txt"
    ).exists()
    record = json.loads((tmp_path / "sum/merge.json").read_text())
    assert (
        record["settings"] == CheckpointsJob(models=[a, b], base=base, method="sum").model_dump()
        and record["torch"]
    )


def test_whole_numbers_are_copied_or_refused(tmp_path: Path) -> None:
    for name, ids in (("a", [0, 1]), ("b", [0, 1]), ("c", [0, 2])):
        (tmp_path / name).mkdir()
        tensors = {"w": torch.full((2, 2), float(ord(name))), "position_ids": torch.tensor(ids)}
        save_file(tensors, tmp_path / name / "model.safetensors")
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert merged([a, b], tmp_path / "sum")["position_ids"].tolist() == [0, 1]
    with pytest.raises(
        UserError, match=r"position_ids is int64, which is not summed, and differs between a and c"
    ):
        merged([a, c], tmp_path / "other")


def test_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, base = berts(tmp_path, ["a", "b", "base"])
    merged([a, b], tmp_path / "sum")
    expected = "warning: without --base, biases, LayerNorm and embeddings are summed"
    assert expected in capsys.readouterr().out
    merged([a, b], tmp_path / "average", method="average")
    merged([a, b], tmp_path / "with_base", base=base)
    assert "warning:" not in capsys.readouterr().out
    tensors = merged([a, b], tmp_path / "from_a", base=a)
    assert "warning: a is the base itself: its task vector is zero" in capsys.readouterr().out
    torch.testing.assert_close(tensors[QUERY], tensors_of(b)[QUERY], rtol=1e-5, atol=1e-7)


KILLED = """
import os, signal, sys
from pathlib import Path
from decaymerge.merge_checkpoints import merge
from decaymerge.cli.merge_checkpoints import merge_checkpoints

save, saved = merge.save_tensors, []

def save_then_die(*arguments):
    save(*arguments)
    saved.append(arguments)
    if len(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

merge.save_tensors = save_then_die
merge_checkpoints(sys.argv[1:3], output=Path(sys.argv[3]), predict=False, max_shard_size="8kB")
"""


@pytest.mark.slow
def test_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    a, b = berts(tmp_path, "ab")
    answer = subprocess.run([sys.executable, "-c", KILLED, a, b, str(tmp_path / "out")], check=False)
    assert answer.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (leftover,) = tmp_path.glob(".out.*.tmp")
    assert len(list(leftover.iterdir())) == 2
    merged([a, b], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the system refuses to write on."""
    a, b = berts(tmp_path, "ab")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        answer = decaymerge("merge-checkpoints", a, b, "--no-predict", "--output", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    last = answer.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/out cannot be written: ") and "make room there" in last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_command(tmp_path: Path) -> None:
    base, a, b = berts(tmp_path, ["base", "a", "b"])
    out, report, plot = (tmp_path / name for name in ("out", "report.nc", "plot.pdf"))
    command = ["merge-checkpoints", a, b, "--base", base, "--method", "scaled", "--coefficient", "0.5"]
    answer = decaymerge(*command, "--output", out, "--report", report, "--plot", plot)
    assert answer.returncode == 0, answer.stderr
    for part in (
        "medians over matrices; in each column: a, b",
        "largest changes by the other models",
        f"merged into {out}",
    ):
        assert part in answer.stdout
    assert "predicting" in answer.stderr and "merging" in answer.stderr
    assert plot.stat().st_size > 5000 and plot.with_suffix(".png").exists()
    assert AutoModel.from_pretrained(out).config.hidden_size == 16
    assert "coefficient: 0.5" in decaymerge("inspect", report).stdout
