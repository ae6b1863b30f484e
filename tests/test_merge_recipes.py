"""Coefficients of single models and roles, and what a merge says of itself: the recipe and the model card."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from builders_adapters import pair
from builders_checkpoints import berts, gpt2, tensors_of
from commands import decaymerge
from decaymerge.checkpoint import Checkpoint
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints.matrices import roles_of


def test_coefficients_of_models_and_roles(tmp_path: Path) -> None:
    base, *models = berts(tmp_path, ["base", "a", "b"], torch.float64)
    numbers = {"a": 0.7, "Q": 0.5, "all": 0.9}
    given = [f"{name}={number}" for name, number in numbers.items()]
    output = tmp_path / "out"
    merge_checkpoints(models, base=base, method="scaled", coefficient=given, output=output, predict=False)
    start, merged = tensors_of(base), tensors_of(output)
    changes = [{name: one - start[name] for name, one in tensors_of(model).items()} for model in models]
    for name, tensor in merged.items():
        role = 0.5 if "attention.self.query" in name else 1.0  # its bias as well
        expected = start[name] + 0.9 * role * (0.7 * changes[0][name] + changes[1][name])
        assert torch.allclose(tensor, expected, rtol=0, atol=1e-15), name


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_every_tensor_has_a_role(kind: str, tmp_path: Path) -> None:
    path = berts(tmp_path, ["a"])[0] if kind == "bert" else gpt2(tmp_path / "a", 0)
    roles = roles_of(Checkpoint(Path(path)))
    expected = {"Q", "K", "V", "O", "M1", "M2"} if kind == "bert" else {"QKV", "O", "M1", "M2"}
    assert set(roles.values()) == expected | {"embedding", "other"}
    layer_norms = [role for name, role in roles.items() if "LayerNorm" in name or ".ln_" in name]
    assert layer_norms and set(layer_norms) == {"other"}


BAD = {
    "two for everything": (["0.5", "0.6"], "is given once and alone"),
    "an unknown name": (["c=0.5"], "is no NAME=NUMBER with a model, a role"),
    "a role that is not there": (["QKV=0.5"], "no tensor here has this role; there are K, M1, M2, O, Q, V"),
    "the same twice": (["a=0.5", "a=0.6"], "is the second for a"),
    "no number": (["a=half"], "method.coefficient.a = 'half'"),
    "infinity": (["a=inf"], "method.coefficient.a = 'inf'"),
    "nothing after the sign": (["a="], "method.coefficient.a = ''"),
    "auto beside a number": (["auto", "a=0.5"], "is no NAME=NUMBER"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_coefficients(kind: str, tmp_path: Path) -> None:
    given, expected = BAD[kind]
    base, *models = berts(tmp_path, ["base", "a", "b"])
    options = [argument for text in given for argument in ("--coefficient", text)]
    answer = decaymerge("merge-checkpoints", *models, "--base", base, "--method", "scaled", *options)
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1 and expected in answer.stderr, (
        answer.stderr
    )


def test_model_named_like_a_role(tmp_path: Path) -> None:
    models = berts(tmp_path, ["Q", "b"])
    with pytest.raises(UserError, match="this is a model and a role"):
        merge_checkpoints(models, method="scaled", coefficient=["Q=0.5"])


def inputs_of(folder: Path, names: str) -> list[str]:
    generator = torch.Generator().manual_seed(3)
    given = []
    for name in names:
        np.savez(folder / f"{name}.npz", input_ids=torch.randint(0, 50, (6, 8), generator=generator).numpy())
        given.append(f"{name}={folder / f'{name}.npz'}")
    return given


MERGES: dict[str, dict[str, Any]] = {
    "a sum": {},
    "coefficients": {"method": "scaled", "coefficient": ["a=0.3", "V=0.5"]},
    "shards": {"method": "average", "max_shard_size": "40KB"},
    "an adapter": {"as_adapter": True, "rank": 3},
    "least squares": {"method": "least_squares", "inputs": True},
    "a chosen coefficient": {"method": "scaled", "coefficient": ["auto"], "inputs": True},
}


@pytest.mark.parametrize("kind", MERGES)
def test_recipe_repeats_the_bits(kind: str, tmp_path: Path) -> None:
    options = dict(MERGES[kind])
    paths, _ = pair(tmp_path, "llama")
    if options.pop("inputs", False):
        options["inputs"] = inputs_of(tmp_path, "ab")
    merge_checkpoints([str(path) for path in paths], output=tmp_path / "one", **options)
    merge_checkpoints(recipe=tmp_path / "one/merge.json", output=tmp_path / "two")
    files = sorted(path.name for path in (tmp_path / "one").glob("*.safetensors"))
    assert len(files) == (1 if kind != "shards" else len(files)) > 0
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert files == sorted(path.name for path in (tmp_path / "two").glob("*.safetensors"))


def test_recipe_of_changed_models_is_refused(tmp_path: Path) -> None:
    base, *models = berts(tmp_path, ["base", "a", "b"])
    merge_checkpoints(models, base=base, output=tmp_path / "one", predict=False)
    berts(tmp_path / "other", ["x", "y", "z", "a"])
    (tmp_path / "a/model.safetensors").write_bytes((tmp_path / "other/a/model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors has other bits than .*merge\.json says"):
        merge_checkpoints(recipe=tmp_path / "one/merge.json", output=tmp_path / "two", predict=False)
    assert not (tmp_path / "two").exists()


def test_bad_recipes(tmp_path: Path) -> None:
    models = berts(tmp_path, ["a", "b"])
    recipe = tmp_path / "merge.json"
    output = tmp_path / "out"
    with pytest.raises(UserError, match="there is no such file"):
        merge_checkpoints(recipe=recipe, output=output)
    for text, expected in (
        ("{}", r"no merge\.json of this version"),
        ("[1]", r"no merge\.json of this version"),
        ("{", "is no JSON"),
        (
            '{"settings": {"models": ["a", "a"], "base": null, "method": "sum"}, "sha256": {}}',
            "a model twice",
        ),
        (
            '{"settings": {"models": ["a", "b"], "base": null, "method": "corrected_sum"}, "sha256": {}}',
            "its inputs",
        ),
        ('{"settings": {"models": ["a"]}, "sha256": {}}', "models"),
        (
            '{"settings": {"models": ["a", "b"], "base": null, "method": "sum"}, "sha256": {}}',
            "names a, which is not in this folder",
        ),
        ('{"settings": {"models": ["a", "b"], "base": null, "method": "no"}, "sha256": {}}', "merge method"),
    ):
        recipe.write_text(text)
        with pytest.raises(UserError, match=expected):
            merge_checkpoints(recipe=recipe, output=output)
    given = ({"models": models}, {"base": models[0]}, {"method": "average"}, {"output": None}, {"rank": 2})
    for options in (
        *given,
        {"as_adapter": True},
        {"max_shard_size": "1MB"},
        {"partial": True},
        {"by_name": True},
    ):
        with pytest.raises(UserError, match="says all but where to write"):
            merge_checkpoints(**{"recipe": recipe, "output": output, **options})
    assert not output.exists()


def test_model_card(tmp_path: Path) -> None:
    """What, from what, how, what was measured, and the base's licence, as hubs read them."""
    paths, _ = pair(tmp_path, "llama")
    (tmp_path / "base/README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    merge_checkpoints(
        [str(path) for path in paths],
        output=tmp_path / "out",
        method="least_squares",
        inputs=inputs_of(tmp_path, "ab"),
    )
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert set(card.data.tags) == {"merge", "decaymerge"}
    effects = json.loads((tmp_path / "out/merge.json").read_text())["effects"]
    assert len(effects) == 2 and all(f"- {line}" in card.text for line in effects)
    assert all(f"- `{path}`" in card.text for path in paths) and "argmin_W" in card.text
    assert "W^(i) is a model minus the base, and the base is added" in card.text
    merge_checkpoints(
        [str(path) for path in paths], output=tmp_path / "adapter", as_adapter=True, predict=False
    )
    assert ModelCard.load(tmp_path / "adapter/README.md").data.library_name == "peft"
    for i, text in enumerate(
        ("---\nlicense: [\n---\n", "---\n1: x\n---\n", "---\n[" * 3000, "text", "---\nlicense: []\n---")
    ):
        (tmp_path / "base/README.md").write_text(text)
        merge_checkpoints([str(path) for path in paths], output=tmp_path / f"odd{i}", predict=False)
        assert "No licence is named" in (tmp_path / f"odd{i}/README.md").read_text()
    (tmp_path / "base/README.md").write_text("---\nlicense: other\nlicense_name: llama\n---\n")
    merge_checkpoints([str(path) for path in paths], output=tmp_path / "other", predict=False)
    assert ModelCard.load(tmp_path / "other/README.md").data.license_name == "llama"
