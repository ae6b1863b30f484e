"""Files of a model beside its weights, and checkpoints that are the same by another name."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from builders_checkpoints import bert, edit
from commands import decaymerge


def test_all_files_of_a_model_are_copied_and_no_other(tmp_path: Path) -> None:
    ours = [
        "modules.json",
        "1_Pooling/config.json",
        "spiece.model",
        "source.spm",
        "chat_template.jinja",
        "LICENSE",
    ]
    ours += [
        "preprocessor_config.json",
        "processor_config.json",
        "sentence_bert_config.json",
        "modeling_own.py",
    ]
    ours += [
        "config_sentence_transformers.json",
        "tokenizer_config.json",
        "additional_chat_templates/tool.jinja",
    ]
    not_ours = [
        "README.md",
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "checkpoint-5/config.json",
    ]
    not_ours += ["onnx/model.onnx", ".git/config", "runs/events.out.tfevents.1", "tf_model.h5", "merge.json"]
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        for file in [*ours, *not_ours]:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(name)
    answer = decaymerge(
        "merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output", tmp_path / "out"
    )
    assert answer.returncode == 0, answer.stderr
    written = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert written == {*ours, "config.json", "model.safetensors", "merge.json", "README.md"}
    assert (tmp_path / "out/merge.json").read_text() != "a"


def test_parts_with_weights_of_their_own_are_never_dropped(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
        (tmp_path / name / "2_Dense").mkdir()
        save_file({"linear.weight": torch.eye(4)}, tmp_path / name / "2_Dense/model.safetensors")
    command = ("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--no-predict", "--output")
    assert decaymerge(*command, tmp_path / "same").returncode == 0
    assert (tmp_path / "same/2_Dense/model.safetensors").is_file()
    save_file({"linear.weight": torch.ones(4, 4)}, tmp_path / "b/2_Dense/model.safetensors")
    answer = decaymerge(*command, tmp_path / "out")
    assert answer.returncode == 1 and "2_Dense/model.safetensors is a part of" in answer.stderr
    assert not (tmp_path / "out").exists()


def same(place: Path, how: str) -> None:
    """The checkpoint b is the checkpoint a by another name."""
    if how == "a link to the folder":
        (place / "b").symlink_to(place / "a")
    elif how == "a copy":
        shutil.copytree(place / "a", place / "b")
    elif how == "a copy in shards":
        hf.BertModel.from_pretrained(place / "a").save_pretrained(place / "b", max_shard_size="8kB")
    else:
        (place / "b").mkdir()
        for path in (place / "a").iterdir():
            (place / "b" / path.name).hardlink_to(path)


@pytest.mark.parametrize("how", ["a link to the folder", "a copy", "a copy in shards", "hard links"])
def test_equal_tensors_are_the_same_checkpoint(how: str, tmp_path: Path) -> None:
    bert(tmp_path / "a", 0)
    same(tmp_path, how)
    answer = decaymerge("merge-checkpoints", tmp_path / "a", tmp_path / "b")
    assert answer.returncode == 1 and "a and b are the same checkpoint" in answer.stderr
    bert(tmp_path / "c", 1)
    answer = decaymerge(
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "c",
        "--base",
        tmp_path / "b",
        "--no-predict",
        "--output",
        tmp_path / "out",
    )
    assert "warning: a is the base itself" in answer.stdout


def test_checkpoints_may_share_a_shard(tmp_path: Path) -> None:
    """As in the hub's cache, where equal files of two models are one."""
    for name in "ab":
        bert(tmp_path / name, 0, shard="8kB")
    last = sorted((tmp_path / "b").glob("model-*"))[-1].name
    edit(tmp_path / "b", lambda tensors: [x.add_(1) for x in tensors.values()], last)
    for path in sorted((tmp_path / "b").glob("model-*"))[:-1]:
        path.unlink()
        path.symlink_to(tmp_path / "a" / path.name)
    bert(tmp_path / "base", 2)
    answer = decaymerge(
        "merge-checkpoints",
        tmp_path / "a",
        tmp_path / "b",
        "--base",
        tmp_path / "base",
        "--no-predict",
        "--output",
        tmp_path / "out",
    )
    assert answer.returncode == 0 and "is the base itself" not in answer.stdout
