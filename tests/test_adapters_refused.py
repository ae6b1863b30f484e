"""Adapters, and options of adapters, that are refused in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from builders_adapters import adapter, base, edit_config, edit_tensors
from commands import decaymerge
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from refusals import assert_refused


def rename_base(folder: Path, name: str) -> None:
    for path in (folder / "a", folder / "b"):
        edit_config(path, base_model_name_or_path=name)


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "DoRA": (lambda f: edit_config(f, use_dora=True), "LoRA with use_dora, which is more than a sum"),
    "LoHa": (lambda f: edit_config(f, peft_type="LOHA"), "is an adapter (LOHA) and no LoRA"),
    "VeRA": (lambda f: edit_config(f, peft_type="VERA"), "is an adapter (VERA) and no LoRA"),
    "PiSSA": (lambda f: edit_config(f, init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "rows of a table": (
        lambda f: edit_config(f, trainable_token_indices=[1, 2]),
        "LoRA with trainable_token_indices",
    ),
    "factors of several tasks": (
        lambda f: edit_config(f, alora_invocation_tokens=[3]),
        "alora_invocation_tokens",
    ),
    "a variant of tomorrow": (lambda f: edit_config(f, use_tomorrow=True), "LoRA with use_tomorrow"),
    "experts": (lambda f: edit_config(f, target_parameters=["experts.up"]), "LoRA with target_parameters"),
    "magnitudes": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{QUERY}.lora_magnitude_vector": torch.ones(32)})),
        "lora_magnitude_vector",
    ),
    "one factor": (
        lambda f: edit_tensors(f, lambda t: t.pop(f"{QUERY}.lora_B.weight")),
        "has only one of lora_A and lora_B",
    ),
    "another rank": (lambda f: edit_config(f, r=6), "says rank 6 for"),
    "no rank": (lambda f: edit_config(f, r="eight"), "r = 'eight'"),
    "NaN": (
        lambda f: edit_tensors(f, lambda t: t[f"{QUERY}.lora_A.weight"].fill_(torch.nan)),
        "has an infinite or NaN entry",
    ),
    "another shape": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(4, 31)})),
        "with the shape (32, 31), which is (32, 32) in",
    ),
    "another model's modules": (
        lambda f: edit_tensors(
            f, lambda t: t.update({f"base_model.model.x.lora_{k}.weight": torch.ones(4, 4) for k in "AB"})
        ),
        "changes x.weight, which is not in",
    ),
    "names of another program": (
        lambda f: edit_tensors(f, lambda t: t.update({"lora_te_x.alpha": torch.ones(1)})),
        "does not begin with base_model.model.",
    ),
    "ranks that do not fit": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{QUERY}.lora_B.weight": torch.ones(32, 3)})),
        "which do not fit together",
    ),
    "a factor without columns": (
        lambda f: edit_tensors(f, lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(4)})),
        "which do not fit together",
    ),
    "factors of 8 bits": (
        lambda f: edit_tensors(
            f,
            lambda t: t.update(
                {f"{QUERY}.lora_A.weight": t[f"{QUERY}.lora_A.weight"].to(torch.float8_e4m3fn)}
            ),
        ),
        "are no floating-point numbers of 16 bits or more",
    ),
    "a bad pattern": (lambda f: edit_config(f, alpha_pattern={"q(": 7}), "q( is no regular expression"),
    "patterns as a list": (lambda f: edit_config(f, rank_pattern=["query"]), "rank_pattern"),
    "an endless scale": (lambda f: edit_config(f, lora_alpha=float("inf")), "lora_alpha"),
    "a huge scale": (lambda f: edit_config(f, lora_alpha=10**400), "lora_alpha"),
    "no scale": (lambda f: edit_config(f, lora_alpha=None), "lora_alpha"),
    "names of training": (
        lambda f: edit_tensors(
            f, lambda t: t.update({f"{QUERY}.lora_A.default.weight": t.pop(f"{QUERY}.lora_A.weight")})
        ),
        "is a name in training",
    ),
    "a base that is gone": (
        lambda f: rename_base(f.parent, "/gone/base"),
        "name /gone/base as their base, and there is no such folder",
    ),
    "another base": (lambda f: edit_config(f, base_model_name_or_path="org/other"), "name different bases"),
    "no base": (lambda f: edit_config(f, base_model_name_or_path=None), "name different bases"),
    "a config that is no JSON": (
        lambda f: (f / "adapter_config.json").write_text("{"),
        "adapter_config.json",
    ),
    "damaged": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 100), "not readable"),
}


@pytest.fixture(scope="module")
def bert_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    base(folder / "base", "bert")
    for name in "ab":
        adapter(folder / name, folder / "base", "bert", ord(name), r=4)
    return folder


@pytest.mark.inputs
@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, bert_pair: Path, tmp_path: Path) -> None:
    break_it, expected = REFUSED[kind]
    for name in "ab":
        shutil.copytree(bert_pair / name, tmp_path / name)
    break_it(tmp_path / "b")
    arguments = ("merge-checkpoints", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    assert_refused(lambda: decaymerge(*arguments), tmp_path, expected)


def test_options_of_adapters_are_checked(bert_pair: Path, tmp_path: Path) -> None:
    paths = [str(bert_pair / name) for name in "ab"]
    with pytest.raises(UserError, match="give what is missing"):
        merge_checkpoints(paths, as_adapter=True)
    with pytest.raises(UserError, match="give what is missing"):
        merge_checkpoints(paths, output=tmp_path / "out", rank=2)
    with pytest.raises(UserError, match="base is a whole model"):
        merge_checkpoints([paths[0], str(bert_pair / "base")], output=tmp_path / "out", as_adapter=True)


def test_where_an_adapter_belongs(bert_pair: Path, tmp_path: Path) -> None:
    a, b = (str(bert_pair / name) for name in "ab")
    with pytest.raises(UserError, match="is an adapter itself; give the model that it was trained on"):
        merge_checkpoints([a, b], base=a)
    with pytest.raises(UserError, match=r"is an adapter \(LORA, for .* and no model, .*: give its folder"):
        merge_checkpoints([f"{a}/adapter_model.safetensors", b])


def test_an_adapter_beside_a_whole_model_is_said_not_to_be_read(bert_pair: Path, tmp_path: Path) -> None:
    shutil.copytree(bert_pair / "base", tmp_path / "both")
    for path in (bert_pair / "a").glob("adapter_*"):
        shutil.copy(path, tmp_path / "both")
    answer = decaymerge("merge-checkpoints", tmp_path / "both", bert_pair / "b")
    assert (
        "both: not read: adapter_model.safetensors, as transformers reads model.safetensors" in answer.stdout
    )
    assert "warning: both is the base itself" in answer.stdout
