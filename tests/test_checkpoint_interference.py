"""Predicted interference of checkpoints: against plain torch, where it is known, and on trained networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import softplus

from builders_checkpoints import bert, gpt2, tensors_of
from decaymerge import store
from decaymerge.checkpoint import Checkpoint
from decaymerge.cli.merge_checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_checkpoints.matrices import is_embedding, matrices_of
from decaymerge.merge_checkpoints.predicted_interference import (
    leading_inputs,
    measure_matrix,
    overlap,
    predict,
)


def predicted(models: list[str], base: str | None = None) -> xr.Dataset:
    opened = {Path(model).name: Checkpoint(Path(model)) for model in models}
    return predict(Sources(opened, None if base is None else Checkpoint(Path(base))))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert.embeddings.word_embeddings.weight", True),
        ("model.embed_tokens.weight", True),
        ("gpt_neox.embed_in.weight", True),
        ("transformer.wte.weight", True),
        ("shared.weight", True),
        ("gpt_neox.embed_out.weight", False),
        ("electra.embeddings_project.weight", False),
        ("albert.encoder.embedding_hidden_mapping_in.weight", False),
        ("lm_head.weight", False),
    ],
)
def test_embeddings_by_name(name: str, expected: bool) -> None:
    assert is_embedding(name) == expected


def reference_prediction(
    models: list[dict[str, Tensor]], base: dict[str, Tensor] | None, inputs_first: Callable[[str], bool]
) -> xr.Dataset:
    """The report's numbers by full decompositions in torch, one matrix and model at a time."""
    rows = []
    for name in sorted(name for name, tensor in models[0].items() if tensor.dim() == 2):
        summed = [(model[name] - base[name] if base else model[name]).double() for model in models]
        summed = [matrix.T if inputs_first(name) else matrix for matrix in summed]
        values = [torch.linalg.svdvals(matrix) for matrix in summed]
        counts = [int(torch.ceil((s**2).sum() / s[0] ** 2)) for s in values]
        inputs = [torch.linalg.svd(matrix)[2][:count].T for matrix, count in zip(summed, counts, strict=True)]
        per_model = []
        for i, (matrix, s) in enumerate(zip(summed, values, strict=True)):
            others = [j for j in range(len(models)) if j != i]
            action = (sum(summed[j] for j in others) @ inputs[i]).norm()
            interference = action / (matrix @ inputs[i]).norm()
            cosines = [(inputs[i].T @ inputs[j]).norm() ** 2 / min(counts[i], counts[j]) for j in others]
            variables = {
                "frobenius_norm": matrix.norm(),
                "spectral_norm": s[0],
                "stable_rank": (s**2).sum() / s[0] ** 2,
                "directions": counts[i],
                "overlap": max(cosines),
                "action": action,
                "inner_product": sum((matrix * summed[j]).sum() for j in others),
                "interference": interference,
            }
            per_model.append(xr.Dataset({name: float(value) for name, value in variables.items()}))
        shape = {"rows": summed[0].shape[0], "columns": summed[0].shape[1], "matrix": name}
        rows.append(xr.concat(per_model, "model").assign_coords(shape))
    return xr.concat(rows, "matrix", coords="different", compat="equals")


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_report_against_torch(make: Callable[[Path, int], str], with_base: bool, tmp_path: Path) -> None:
    base, *models = [make(tmp_path / name, seed) for seed, name in enumerate(["base", "a", "b", "c"])]
    prediction = predicted(models, base if with_base else None)
    assert prediction.interference.dims == ("matrix", "model")
    reference = reference_prediction(
        [tensors_of(model) for model in models],
        tensors_of(base) if with_base else None,
        inputs_first=lambda name: make is gpt2 or "embedding" in name,
    ).assign_coords(model=["a", "b", "c"])
    numbers = prediction.drop_vars(["role", "layer_name", "layer"]).drop_attrs().sortby("matrix")
    xr.testing.assert_allclose(numbers, reference, rtol=1e-4, atol=1e-5)
    xr.testing.assert_allclose(numbers.frobenius_norm, reference.frobenius_norm, rtol=1e-6)
    xr.testing.assert_allclose(numbers.spectral_norm, reference.spectral_norm, rtol=1e-5)


def test_roles_and_orientation(tmp_path: Path) -> None:
    """GPT-2 stores (in, out), BERT (out, in), and the inputs of embeddings are tokens."""
    matrices = {matrix.name: matrix for matrix in matrices_of(Checkpoint(Path(gpt2(tmp_path / "gpt2", 0))))}
    assert [matrix.role for matrix in matrices.values()] == ["QKV", "O", "M1", "M2"] * 2 + ["embedding"] * 2
    assert matrices["transformer.h.1.attn.c_attn.weight"].layer == "transformer.h.1"
    columns = predicted([gpt2(tmp_path / "a", 1), gpt2(tmp_path / "b", 2)])["columns"]
    assert int(columns.sel(matrix="transformer.h.0.attn.c_attn.weight")) == 12
    assert int(columns.sel(matrix="transformer.h.0.mlp.c_proj.weight")) == 48
    assert int(columns.sel(matrix="transformer.wte.weight")) == 20
    bert_matrices = {
        matrix.name: matrix for matrix in matrices_of(Checkpoint(Path(bert(tmp_path / "bert", 0))))
    }
    assert bert_matrices["encoder.layer.0.intermediate.dense.weight"].role == "M1"
    assert (
        bert_matrices["pooler.dense.weight"].role == "other"
        and not bert_matrices["pooler.dense.weight"].stored_inputs_first
    )


def update(rng: np.random.Generator, inputs: np.ndarray, out: int = 40) -> np.ndarray:
    """Σ_i a_i x_iᵀ with random a_i, (out, in)."""
    return np.asarray(rng.standard_normal((out, len(inputs))) @ inputs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonal_and_same_inputs(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((60, 12)))[0].T
    first, apart, same = (
        update(rng, x[rows]).astype(dtype) for rows in (slice(0, 6), slice(6, 12), slice(0, 6))
    )
    for model in measure_matrix([first, apart]):
        assert model["interference"] < 1e-6 and model["overlap"] < 1e-10
    for model in measure_matrix([first, same]):
        assert 0.5 < model["interference"] < 1.5
        assert 0 <= model["overlap"] <= 1 + 1e-6
    for model in measure_matrix([first, first]):
        assert model["interference"] == pytest.approx(1, rel=1e-5)
        assert model["overlap"] == pytest.approx(1, rel=1e-5)


def test_rank_one_is_one_direction() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        matrix = np.outer(rng.standard_normal(30), rng.standard_normal(50)).astype(np.float32)
        assert [model["directions"] for model in measure_matrix([matrix, 2 * matrix])] == [1, 1]


def test_matrix_that_a_model_has_not_changed() -> None:
    change = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    still, other = measure_matrix([np.zeros((8, 5), np.float32), change])
    assert np.isnan(still["interference"]) and still["directions"] == 0
    assert other["interference"] == 0 and np.isnan(other["overlap"])


@pytest.mark.parametrize("shape", [(300, 320), (320, 300)])
def test_leading_vectors_of_large_matrices(shape: tuple[int, int]) -> None:
    """Beyond a full decomposition, by Lanczos: the same subspace."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((shape[0], 30)) * 0.8 ** np.arange(30) @ rng.standard_normal((30, shape[1]))
    matrix = (matrix + 0.01 * rng.standard_normal(shape)).astype(np.float32)
    inputs = leading_inputs(matrix, 7)
    np.testing.assert_allclose(inputs.T @ inputs, np.eye(7), atol=1e-5)
    exact = np.linalg.svd(matrix.astype(float), full_matrices=False)[2][:7].T
    assert overlap(inputs, exact) == pytest.approx(1, abs=1e-6)


def finetuned(
    inputs: Tensor, labels: Tensor, start: Tensor, head: Tensor, weight_decay: float = 0.01
) -> Tensor:
    """Gradient descent with decay towards the start on f(x) = a · relu(W x), a fixed: the networks of Lemma 5."""
    weight = start.clone().requires_grad_()
    for _ in range(1000):
        outputs = (inputs @ weight.T).relu() @ head
        (slope,) = torch.autograd.grad(softplus(-labels * outputs).mean(), weight)
        with torch.no_grad():
            weight -= 1.0 * (slope + weight_decay * (weight - start))
    return weight.detach()


def test_trained_networks_are_ranked_right(tmp_path: Path) -> None:
    """Two tasks on orthogonal inputs, and two on the same inputs with other labels; merged by the command."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    dim, width, samples = 40, 50, 60
    start, head = normal(width, dim) / dim**0.5, normal(width) / width**0.5
    save_as(tmp_path / "base", start, head)
    halves = torch.zeros(2, dim)
    halves[0, : dim // 2] = halves[1, dim // 2 :] = 1
    outcome = {}
    for kind, masks in {"orthogonal": halves, "same": torch.ones(2, dim)}.items():
        shared = normal(samples, dim)
        data, places = [], []
        for i in range(2):
            inputs = torch.nn.functional.normalize(shared * masks[i])
            data.append((inputs, (inputs @ normal(dim)).sign()))
            places.append(str(tmp_path / f"{kind}{i}"))
            save_as(Path(places[i]), finetuned(*data[i], start, head), head)
        report, out = tmp_path / f"{kind}.nc", tmp_path / f"{kind}_sum"
        merge_checkpoints(places, output=out, base=str(tmp_path / "base"), report=report)
        own, total = tensors_of(places[0])["W"], tensors_of(out)["W"]
        torch.testing.assert_close(tensors_of(out)["head"], head, rtol=0, atol=0)
        inputs, labels = data[0]
        own_outputs, sum_outputs = ((inputs @ weight.T).relu() @ head for weight in (own, total))
        outcome[kind] = {
            "predicted": float(store.read(report).interference.sel(matrix="W").max()),
            "error": float((labels * sum_outputs <= 0).float().mean()),
            "change": float((sum_outputs - own_outputs).abs().mean()),
        }
        assert float((labels * own_outputs <= 0).float().mean()) < 0.05
    apart, same = outcome["orthogonal"], outcome["same"]
    assert apart["predicted"] < 1e-5 and apart["change"] < 1e-5 and apart["error"] < 0.05
    assert same["predicted"] > 0.25 and same["change"] > 0.3 and same["error"] > apart["error"]


def save_as(folder: Path, weight: Tensor, head: Tensor) -> None:
    folder.mkdir()
    save_file({"W": weight, "head": head}, folder / "model.safetensors")


def test_not_finite_is_told_before_merging(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    save_as(a, torch.ones(3, 3), torch.ones(3))
    save_as(b, torch.full((3, 3), float("nan")), torch.ones(3))
    with pytest.raises(UserError, match=r"^W of b has an infinite or NaN entry"):
        predicted([str(a), str(b)])
