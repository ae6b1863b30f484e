"""LoRA adapters: merges against PEFT's own, in factors and in whole."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from builders_adapters import (
    BASES,
    SMALL,
    adapter,
    base,
    both_active,
    edit_config,
    edit_tensors,
    load,
    outputs,
    pair,
    saved_adapter,
)
from builders_checkpoints import tensors_of
from commands import decaymerge
from decaymerge import store
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError

KINDS = list(BASES)


def merged(models: list[Path], output: Path, **options: Any) -> dict[str, Tensor]:
    options = {"predict": False} | options
    merge_checkpoints([str(model) for model in models], output=output, **options)
    return tensors_of(output) if not options.get("as_adapter") else {}


def merged_by_peft(folder: Path, models: list[Any]) -> dict[str, Tensor]:
    """Base + Σ (merge_and_unload - base) of every tensor, in float64."""
    start = {name: tensor.double() for name, tensor in tensors_of(folder / "base").items()}
    states = [model.merge_and_unload().state_dict() for model in models]
    return {
        name: value + sum(state[name].double() - value for state in states) for name, value in start.items()
    }


def largest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_is_that_of_whole_models(kind: str, tmp_path: Path) -> None:
    """In float64; ranks, scales, patterns and rsLoRA differ between the two, and the base is found."""
    paths, models = pair(tmp_path, kind, torch.float64)
    result = merged(paths, tmp_path / "sum")
    assert largest(result, merged_by_peft(tmp_path, models)) < 1e-15
    average = merged(paths, tmp_path / "average", method="average")
    start = tensors_of(tmp_path / "base")
    halves = {
        name: (tensor + start[name]) / 2 for name, tensor in result.items() if tensor.is_floating_point()
    }
    assert largest({name: average[name] for name in halves}, halves) < 1e-15


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_sum_in_bfloat16_is_rounded_once(kind: str, tmp_path: Path) -> None:
    """To the nearest of what float64 gives; PEFT rounds each change, and the base with each."""
    paths, rounded = pair(tmp_path, kind, torch.bfloat16)
    wide = load(tmp_path / "base", kind).double()
    exact = merged_by_peft(
        tmp_path, [PeftModel.from_pretrained(copy.deepcopy(wide), path).double() for path in paths]
    )
    result = merged(paths, tmp_path / "sum")
    for name, tensor in result.items():
        half_a_step = torch.finfo(torch.bfloat16).eps / 2 * exact[name].abs()
        assert ((tensor.double() - exact[name]).abs() <= half_a_step + 1e-8).all(), name
    name = next(name for name in result if name.endswith(("q_proj.weight", "c_attn.weight")))
    twice = merged_by_peft(tmp_path, rounded)[name].bfloat16()
    errors = [float((tensor.double() - exact[name]).abs().mean()) for tensor in (result[name], twice)]
    assert errors[1] > 1.3 * errors[0]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("llama", {}), ("gpt2", {}), ("gpt2", {"lora_bias": True}), ("gpt2", {"bias": "all"})],
)
def test_outputs_are_those_of_both_adapters_at_work(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    paths, _ = pair(tmp_path, kind, torch.float64, **settings)
    merged(paths, tmp_path / "sum")
    if "bias" not in settings:  # PEFT has the biases of one adapter alone
        expected = outputs(both_active(tmp_path / "base", kind, paths), kind)
        assert torch.allclose(outputs(load(tmp_path / "sum", kind), kind), expected, rtol=0, atol=1e-13)


def test_factors_summed_apart_are_another_model(tmp_path: Path) -> None:
    """(B_a + B_b)(A_a + A_b), which scripts compute, has the products of one's B with the other's A."""
    base(tmp_path / "base", "llama", torch.float64)
    models = [adapter(tmp_path / name, tmp_path / "base", "llama", ord(name), r=4) for name in "ab"]
    states = [load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab"]
    scale = 8 / 4  # PEFT's default α
    result = merged([tmp_path / "a", tmp_path / "b"], tmp_path / "sum")
    name = "model.layers.0.self_attn.q_proj"
    first, second = (
        sum(state[f"base_model.model.{name}.lora_{part}.weight"] for state in states) for part in "AB"
    )
    change = result[f"{name}.weight"] - tensors_of(tmp_path / "base")[f"{name}.weight"]
    assert (scale * second @ first - change).norm() > 0.5 * change.norm()  # type: ignore[operator]
    assert len(models) == 2


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_merged_adapter_loads_in_peft(kind: str, tmp_path: Path) -> None:
    paths, _ = pair(tmp_path, kind, torch.float64)
    merged(paths, tmp_path / "sum")
    merged(paths, tmp_path / "adapter", as_adapter=True)
    model = PeftModel.from_pretrained(load(tmp_path / "base", kind), tmp_path / "adapter").eval()
    expected = outputs(load(tmp_path / "sum", kind), kind)
    assert torch.allclose(outputs(model, kind), expected, rtol=0, atol=1e-13)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["r"] == 4 + 5 and 4 + 3 in config["rank_pattern"].values()
    again = merged([tmp_path / "adapter", paths[0]], tmp_path / "again")  # it can be merged on
    assert again.keys() == tensors_of(tmp_path / "sum").keys()


def test_truncated_adapter_is_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, _ = pair(tmp_path, "llama", torch.float64)
    merged(paths, tmp_path / "exact", as_adapter=True)
    capsys.readouterr()
    merged(paths, tmp_path / "truncated", as_adapter=True, rank=3)
    said = float(capsys.readouterr().out.split("truncation loses ")[1].split("%")[0]) / 100
    exact, cut = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("exact", "truncated"))
    lost = whole = 0.0
    for name in (name for name in exact if name.endswith("lora_A.weight")):
        other = name.replace("lora_A", "lora_B")
        change, kept = exact[other] @ exact[name], cut[other] @ cut[name]
        values = np.linalg.svd(change.numpy(), compute_uv=False)
        assert float((change - kept).norm()) == pytest.approx(np.linalg.norm(values[3:]), rel=1e-10)
        lost, whole = lost + np.sum(values[3:] ** 2), whole + np.sum(values**2)
    tables = [name for name in exact if name.endswith("embedding_A")]
    for name in tables:
        values = np.linalg.svd((exact[name.replace("_A", "_B")] @ exact[name]).numpy(), compute_uv=False)
        lost, whole = lost + np.sum(values[3:] ** 2), whole + np.sum(values**2)
    assert tables and said == pytest.approx((lost / whole) ** 0.5, abs=1e-4)


def test_interference_in_factors_is_that_of_whole_models(tmp_path: Path) -> None:
    paths, models = pair(tmp_path, "gpt2", torch.float64)
    for path, model in zip(paths, models, strict=True):
        model.merge_and_unload().save_pretrained(tmp_path / f"whole/{path.name}")
    wholes = [tmp_path / "whole" / path.name for path in paths]
    for name, sources in (("factors", paths), ("whole", wholes)):
        merge_checkpoints(
            [str(path) for path in sources], base=str(tmp_path / "base"), report=tmp_path / f"{name}.nc"
        )
    one, other = (store.read(tmp_path / f"{name}.nc") for name in ("factors", "whole"))
    for variable in ("frobenius_norm", "spectral_norm", "stable_rank", "overlap", "interference"):
        np.testing.assert_allclose(one[variable], other[variable], rtol=1e-6, atol=1e-9, err_msg=variable)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_least_squares_in_factors(kind: str, tmp_path: Path) -> None:
    """The same matrices as of whole models, and of rank r_a + r_b as an adapter."""
    paths, models = pair(tmp_path, kind, torch.float64)
    generator = torch.Generator().manual_seed(3)
    given = []
    for path, model in zip(paths, models, strict=True):
        model.merge_and_unload().save_pretrained(tmp_path / f"whole/{path.name}")
        file = tmp_path / f"{path.name}.npz"
        np.savez(file, input_ids=torch.randint(0, 50, (6, 8), generator=generator).numpy())
        given.append(f"{path.name}={file}")
    options: dict[str, Any] = {
        "method": "least_squares",
        "activations": "own",
        "inputs": given,
        "predict": True,
    }
    wholes = [tmp_path / "whole" / path.name for path in paths]
    one = merged(paths, tmp_path / "factors", **options)
    other = merged(wholes, tmp_path / "dense", base=str(tmp_path / "base"), **options)
    assert largest(one, other) < 1e-5  # activations are float32
    merged(paths, tmp_path / "adapter", as_adapter=True, **options)
    model = PeftModel.from_pretrained(load(tmp_path / "base", kind), tmp_path / "adapter").eval()
    expected = outputs(load(tmp_path / "factors", kind), kind)
    assert torch.allclose(outputs(model, kind), expected, rtol=0, atol=1e-5)
    merged(paths, tmp_path / "corrected", as_adapter=True, **(options | {"method": "corrected_sum"}))
    config = json.loads((tmp_path / "corrected/adapter_config.json").read_text())
    assert config["r"] == 4 + 5
    with pytest.raises(UserError, match="not of low rank; give --activations own"):
        merged(paths, tmp_path / "no", as_adapter=True, **(options | {"activations": "merged"}))


@pytest.mark.parametrize("modules", [["wte"], ["lm_head"]])
def test_tied_tables_are_untied(modules: list[str], tmp_path: Path) -> None:
    """An adapter of one side of a tie leaves the other as it was; PEFT's merge_and_unload changes both."""
    base(tmp_path / "base", "gpt2", torch.float64)
    paths = [tmp_path / name for name in "ab"]
    settings = {"fan_in_fan_out": False, "r": 2}
    for path in paths:
        adapter(path, tmp_path / "base", "gpt2", ord(path.name), target_modules=modules, **settings)
    result = merged(paths, tmp_path / "sum")
    assert {"lm_head.weight", "transformer.wte.weight"} <= result.keys()
    expected = outputs(both_active(tmp_path / "base", "gpt2", paths), "gpt2")
    model = load(tmp_path / "sum", "gpt2")
    assert model.config.tie_word_embeddings is False
    assert torch.allclose(outputs(model, "gpt2"), expected, rtol=0, atol=1e-13)


def test_adapter_beside_a_whole_model(tmp_path: Path) -> None:
    paths, models = pair(tmp_path, "bert", torch.float64)
    expected = merged_by_peft(tmp_path, models)
    models[1].merge_and_unload().save_pretrained(tmp_path / "whole")
    result = merged([paths[0], tmp_path / "whole"], tmp_path / "sum", base=str(tmp_path / "base"))
    assert largest(result, expected) < 1e-14


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_scan_against_numpy(kind: str, tmp_path: Path) -> None:
    """Norms and ranks of Δ and of the base's matrix, and the shares in the base's leading directions."""
    (path, _), _ = pair(tmp_path, kind, torch.float64)
    merge_checkpoints([str(tmp_path / name) for name in "ab"], output=tmp_path / "sum", predict=False)
    answer = decaymerge("scan", f"path:{path}", "--output", tmp_path / "scan.nc")
    assert answer.returncode == 0 and "stable rank" in answer.stdout, answer.stderr
    scanned = store.read(tmp_path / "scan.nc")
    alone = {name: tensor.numpy() for name, tensor in tensors_of(tmp_path / "base").items()}
    model = PeftModel.from_pretrained(load(tmp_path / "base", kind), path).merge_and_unload()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert scanned.sizes["matrix"] == (7 if kind == "llama" else 8)
    for name in scanned["matrix"].values:
        row, base_matrix, change = scanned.sel(matrix=name), alone[name], state[name] - alone[name]
        if kind == "gpt2" or row.role == "embedding":
            base_matrix, change = base_matrix.T, change.T
        values = np.linalg.svd(change, compute_uv=False)
        u, base_values, vh = np.linalg.svd(base_matrix)
        expected = {
            "rank": 4,
            "frobenius_norm": np.linalg.norm(values),
            "spectral_norm": values[0],
            "stable_rank": np.sum(values**2) / values[0] ** 2,
            "base_spectral_norm": base_values[0],
            "base_stable_rank": np.sum(base_values**2) / base_values[0] ** 2,
            "input_share": np.linalg.norm(change @ vh[:4].T) ** 2 / np.sum(values**2),
            "output_share": np.linalg.norm(u[:, :4].T @ change) ** 2 / np.sum(values**2),
        }
        for variable, number in expected.items():
            assert float(row[variable]) == pytest.approx(number, rel=1e-5), (name, variable)


def added(folder: Path, model: Any, target: Any, seed: int, **settings: Any) -> Path:
    """An adapter of a loaded model."""
    saved_adapter(folder, model, seed, target_modules=target, **settings)
    return folder


def tied_llama(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).double().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["factors", "tables"])
def test_a_tie_that_peft_keeps_stays(kind: str, tmp_path: Path) -> None:
    """The change of table and copy counts once; PEFT 0.21's merge_and_unload adds that of factors twice."""
    folder = tied_llama(tmp_path / "base")
    target = ["q_proj", "embed_tokens"] if kind == "factors" else ["q_proj"]
    settings: dict[str, Any] = {} if kind == "factors" else {"modules_to_save": ["embed_tokens"]}
    path = added(tmp_path / "a", load(folder, "llama"), target, 1, ensure_weight_tying=True, **settings)
    if kind == "factors":  # random numbers have parted what the training keeps equal
        edit_tensors(path, keep_tied)
    paths = [path, added(tmp_path / "b", load(folder, "llama"), ["v_proj"], 2)]
    if kind == "factors":
        expected = outputs(both_active(folder, "llama", paths), "llama")
    else:
        model = PeftModel.from_pretrained(load(folder, "llama"), paths[0]).merge_and_unload()
        expected = outputs(PeftModel.from_pretrained(model, paths[1]).eval(), "llama")
    merged(paths, tmp_path / "sum")
    result = load(tmp_path / "sum", "llama")
    assert result.config.tie_word_embeddings
    assert torch.allclose(outputs(result, "llama"), expected, rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="changes tied tables together"):
        merged(paths, tmp_path / "adapter", as_adapter=True)


def keep_tied(tensors: dict[str, Tensor]) -> None:
    table, copy_of_it = (
        "base_model.model.model.embed_tokens.lora_embedding_",
        "base_model.model.lm_head.lora_",
    )
    tensors[f"{copy_of_it}A.weight"] = tensors[f"{table}B"].mT.contiguous()
    tensors[f"{copy_of_it}B.weight"] = tensors[f"{table}A"].mT.contiguous()


def test_modules_of_any_adapter_are_saved_in_the_merged_one(tmp_path: Path) -> None:
    folder = base(tmp_path / "base", "llama", torch.float64)
    paths = [
        added(tmp_path / "a", load(folder, "llama"), ["q_proj"], 1),
        added(tmp_path / "b", load(folder, "llama"), ["v_proj"], 2, modules_to_save=["lm_head"]),
    ]
    for order in (paths, paths[::-1]):
        name = order[0].name
        merged(order, tmp_path / f"sum-{name}")
        merged(order, tmp_path / f"adapter-{name}", as_adapter=True)
        model = PeftModel.from_pretrained(load(folder, "llama"), tmp_path / f"adapter-{name}").eval()
        expected = outputs(load(tmp_path / f"sum-{name}", "llama"), "llama")
        assert torch.allclose(outputs(model, "llama"), expected, rtol=0, atol=1e-13)


def test_adapters_of_different_classes_around_one_base(tmp_path: Path) -> None:
    """Names with and without the prefix of the class: the whole model is right, one adapter of them is refused."""
    folder = base(tmp_path / "base", "bert", torch.float64)
    inner = BertModel.from_pretrained(folder, dtype="auto")
    paths = [
        added(tmp_path / "a", inner, ["query"], 1),
        added(tmp_path / "b", load(folder, "bert"), ["value"], 2),
    ]
    states = [
        saved_adapter(tmp_path / "x", load(folder, "bert"), seed, target_modules=[name])
        .merge_and_unload()
        .state_dict()
        for seed, name in ((1, "query"), (2, "value"))
    ]
    start = tensors_of(folder)
    expected = {name: sum(state[name] - one for state in states) + one for name, one in start.items()}
    assert largest(merged(paths, tmp_path / "sum"), expected) < 1e-15
    with pytest.raises(UserError, match="have names of different classes around one base"):
        merged(paths, tmp_path / "no", as_adapter=True)


def test_a_class_with_several_ties_is_refused(tmp_path: Path) -> None:
    """Breaking one of them would leave the others without numbers."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SMALL, num_hidden_layers=2))
    model.save_pretrained(tmp_path / "base")
    paths = [added(tmp_path / name, copy.deepcopy(model), ["word_embeddings"], 1) for name in "a"]
    for path in paths:
        edit_config(path, base_model_name_or_path=str(tmp_path / "base"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    edit_tensors(tmp_path / "b", lambda tensors: [one.mul_(2) for one in tensors.values()])
    with pytest.raises(UserError, match="ties with others"):
        merged([*paths, tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_table_that_was_rounded_is_no_change(tmp_path: Path) -> None:
    """PEFT stores the table beside its factors, in the type of the training."""
    folder = base(tmp_path / "base", "llama")
    half = BASES["llama"][0].from_pretrained(folder, dtype=torch.bfloat16)
    paths = [
        added(tmp_path / name, copy.deepcopy(half), ["q_proj", "embed_tokens"], ord(name)) for name in "ab"
    ]
    assert any("base_layer" in name for name in load_file(tmp_path / "a/adapter_model.safetensors"))
    merged(paths, tmp_path / "adapter", as_adapter=True)
    written = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert any("embedding_A" in name for name in written) and not any(
        "base_layer" in name for name in written
    )
    assert decaymerge("scan", f"path:{paths[0]}").returncode == 0


def test_named_coefficients_as_an_adapter(tmp_path: Path) -> None:
    paths, _ = pair(tmp_path, "llama", torch.float64)
    options: dict[str, Any] = {"method": "scaled", "coefficient": ["a=0.5", "Q=0.25"]}
    merged(paths, tmp_path / "sum", **options)
    merged(paths, tmp_path / "adapter", as_adapter=True, **options)
    model = PeftModel.from_pretrained(load(tmp_path / "base", "llama"), tmp_path / "adapter").eval()
    expected = outputs(load(tmp_path / "sum", "llama"), "llama")
    assert torch.allclose(outputs(model, "llama"), expected, rtol=0, atol=1e-13)


def test_what_lies_around_an_adapter(tmp_path: Path) -> None:
    """Another adapter in its folder, a config, and adapters inside the base's folder."""
    paths, _ = pair(tmp_path, "bert")
    expected = merged(paths, tmp_path / "sum")
    shutil.copytree(paths[1], paths[0] / "other")
    (paths[0] / "config.json").write_text('{"num_hidden_layers": 1}')
    shutil.copytree(paths[1], tmp_path / "base/inside")
    assert largest(merged([paths[0], paths[0] / "other"], tmp_path / "again"), expected) == 0
    assert json.loads((tmp_path / "again/config.json").read_text())["num_hidden_layers"] == 2
    assert not (tmp_path / "again/inside").exists() and not (tmp_path / "again/other").exists()


def test_by_name_a_table_may_be_tied(tmp_path: Path) -> None:
    folder = tied_llama(tmp_path / "base")
    paths = [added(tmp_path / name, load(folder, "llama"), ["embed_tokens"], ord(name)) for name in "ab"]
    with pytest.raises(UserError, match="nobody knows whether it is tied"):
        merged(paths, tmp_path / "out", by_name=True)


def test_adapter_in_a_bin_and_with_a_base_elsewhere(tmp_path: Path) -> None:
    paths, _ = pair(tmp_path, "bert")
    expected = merged(paths, tmp_path / "sum")
    for path in paths:
        tensors = load_file(path / "adapter_model.safetensors")
        torch.save(tensors, path / "adapter_model.bin")
        (path / "adapter_model.safetensors").unlink()
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="and there is no such folder; give it as --base"):
        merged(paths, tmp_path / "no")
    result = merged(paths, tmp_path / "again", base=str(tmp_path / "moved"))
    assert largest(result, expected) == 0


def test_tokenizer_of_the_first_adapter_is_kept(tmp_path: Path) -> None:
    """People save it beside the adapter, with a template of their own; the config is the base's."""
    paths, _ = pair(tmp_path, "bert")
    (tmp_path / "base/tokenizer.json").write_text("base")
    (tmp_path / "base/LICENSE").write_text("base")
    (paths[0] / "tokenizer.json").write_text("a")
    (paths[0] / "chat_template.jinja").write_text("a")
    merged(paths, tmp_path / "sum")
    merged(paths, tmp_path / "adapter", as_adapter=True)
    for folder in ("sum", "adapter"):
        assert (tmp_path / folder / "tokenizer.json").read_text() == "a"
    assert (tmp_path / "sum/chat_template.jinja").read_text() == "a"
    assert (tmp_path / "sum/LICENSE").read_text() == "base"
    names = {path.name for path in (tmp_path / "sum").iterdir()}
    assert not names & {"adapter_config.json", "adapter_model.safetensors"} and "config.json" in names


def test_experts_by_the_names_under_which_they_are_stored(tmp_path: Path) -> None:
    """Transformers 5 puts experts into one tensor and stores each alone; adapters of version 4 name them so."""
    torch.manual_seed(0)
    config = MixtralConfig(**SMALL, num_hidden_layers=1, num_key_value_heads=2, num_local_experts=2)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    before = tensors_of(tmp_path / "base")
    modules = {f"model.layers.0.block_sparse_moe.{name}": 0.0 for name in ("gate", "experts.0.w1")}
    expected: dict[str, Any] = dict(modules)
    for name in "ab":
        factors: dict[str, Tensor] = {}
        for module in modules:
            rows, columns = before[f"{module}.weight"].shape
            first, second = torch.randn(4, columns), torch.randn(rows, 4)
            factors |= {f"base_model.model.{module}.lora_A.weight": first}
            factors |= {f"base_model.model.{module}.lora_B.weight": second}
            expected[module] = expected[module] + 2 * second.double() @ first.double()
        (tmp_path / name).mkdir()
        save_file(factors, tmp_path / name / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
        settings |= {"base_model_name_or_path": str(tmp_path / "base")}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
    after = merged([tmp_path / "a", tmp_path / "b"], tmp_path / "sum")
    for name, tensor in after.items():
        change = expected.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(tensor.double(), before[name].double() + change, rtol=1e-5, atol=1e-5)
