"""Predicted interference of checkpoints: against plain torch, where it is known, and on trained networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import softplus

from decaymerge import store
from decaymerge.checkpoints import Sources, is_embedding
from decaymerge.checkpoints.predicted_interference import (
    leading_inputs,
    matrices_of,
    of_matrix,
    overlap,
    predict,
)
from decaymerge.cli.checkpoints import merge_checkpoints
from decaymerge.errors import UserError
from decaymerge.scan.checkpoint import Checkpoint
from test_merge_checkpoints import bert, gpt2, tensors_of


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


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_report_against_torch(make: Any, with_base: bool, tmp_path: Path) -> None:
    places = [make(tmp_path / name, seed) for seed, name in enumerate(["base", "a", "b", "c"])]
    base, *stored = [tensors_of(place) for place in places]
    found = predicted(places[1:], places[0] if with_base else None)
    assert found.interference.dims == ("matrix", "model") and found.model.values.tolist() == ["a", "b", "c"]
    matrices = {name for name, tensor in base.items() if tensor.dim() == 2}
    assert set(found["matrix"].values) == matrices
    for name in matrices:
        inputs_first = make is gpt2 or "embedding" in name
        summed = [(model[name] - base[name] if with_base else model[name]).double() for model in stored]
        summed = [tensor.T if inputs_first else tensor for tensor in summed]
        values = [torch.linalg.svd(tensor) for tensor in summed]
        counts = [int(torch.ceil((s**2).sum() / s[0] ** 2)) for _, s, _ in values]
        inputs = [vh[:count].T for (_, _, vh), count in zip(values, counts, strict=True)]
        at = found.sel(matrix=name)
        assert (int(at.rows), int(at["columns"])) == tuple(summed[0].shape)
        for i in range(3):
            _, s, _ = values[i]
            here = at.isel(model=i)
            assert float(here.frobenius_norm) == pytest.approx(summed[i].norm().item(), rel=1e-6)
            assert float(here.spectral_norm) == pytest.approx(s[0].item(), rel=1e-5)
            assert float(here.stable_rank) == pytest.approx(((s**2).sum() / s[0] ** 2).item(), rel=2e-5)
            assert int(here.directions) == counts[i]
            others = [j for j in range(3) if j != i]
            action = (sum(summed[j] for j in others) @ inputs[i]).norm().item()
            assert float(here.action) == pytest.approx(action, rel=1e-4)
            own = (summed[i] @ inputs[i]).norm().item()
            products = sum((summed[i] * summed[j]).sum().item() for j in others)
            assert float(here.inner_product) == pytest.approx(products, rel=1e-4, abs=1e-5)
            assert float(here.interference) == pytest.approx(action / own, rel=1e-4)
            assert bool(here.collides) == (action / own >= 0.25)
            cosines = [
                (inputs[i].T @ inputs[j]).norm().item() ** 2 / min(counts[i], counts[j]) for j in others
            ]
            assert float(here.overlap) == pytest.approx(max(cosines), rel=1e-4)


def test_roles_and_orientation(tmp_path: Path) -> None:
    """GPT-2 stores (in, out), BERT (out, in), and the inputs of embeddings are tokens."""
    matrices = {matrix.name: matrix for matrix in matrices_of(Checkpoint(Path(gpt2(tmp_path / "gpt2", 0))))}
    assert [matrix.role for matrix in matrices.values()] == ["QKV", "O", "M1", "M2"] * 2 + ["embedding"] * 2
    assert matrices["transformer.h.1.attn.c_attn.weight"].layer == "transformer.h.1"
    found = predicted([gpt2(tmp_path / "a", 1), gpt2(tmp_path / "b", 2)])
    assert int(found["columns"].sel(matrix="transformer.h.0.attn.c_attn.weight")) == 12
    assert int(found["columns"].sel(matrix="transformer.h.0.mlp.c_proj.weight")) == 48
    assert int(found["columns"].sel(matrix="transformer.wte.weight")) == 20
    known = {matrix.name: matrix for matrix in matrices_of(Checkpoint(Path(bert(tmp_path / "bert", 0))))}
    assert known["encoder.layer.0.intermediate.dense.weight"].role == "M1"
    assert (
        known["pooler.dense.weight"].role == "other" and not known["pooler.dense.weight"].stored_inputs_first
    )


def update(rng: np.random.Generator, inputs: np.ndarray, out: int = 40) -> np.ndarray:
    """Σ_i a_i x_iᵀ with random a_i, (out, in)."""
    made: np.ndarray = rng.standard_normal((out, len(inputs))) @ inputs
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonal_and_same_inputs(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((60, 12)))[0].T
    first, apart, same = (
        update(rng, x[rows]).astype(dtype) for rows in (slice(0, 6), slice(6, 12), slice(0, 6))
    )
    for model in of_matrix([first, apart]):
        assert model["interference"] < 1e-6 and model["overlap"] < 1e-10 and not model["collides"]
    for model in of_matrix([first, same]):
        assert 0.5 < model["interference"] < 1.5 and model["collides"]
        assert 0 <= model["overlap"] <= 1 + 1e-6
    for model in of_matrix([first, first]):
        assert model["interference"] == pytest.approx(1, rel=1e-5)
        assert model["overlap"] == pytest.approx(1, rel=1e-5)


def test_rank_one_is_one_direction() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        matrix = np.outer(rng.standard_normal(30), rng.standard_normal(50)).astype(np.float32)
        assert [model["directions"] for model in of_matrix([matrix, 2 * matrix])] == [1, 1]


def test_matrix_that_a_model_has_not_changed() -> None:
    changed = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    still, other = of_matrix([np.zeros((8, 5), np.float32), changed])
    assert np.isnan(still["interference"]) and still["directions"] == 0 and not still["collides"]
    assert other["interference"] == 0 and np.isnan(other["overlap"])


@pytest.mark.parametrize("shape", [(1100, 1200), (1200, 1100)])
def test_leading_vectors_of_large_matrices(shape: tuple[int, int]) -> None:
    """Beyond a full decomposition, by Lanczos: the same subspace."""
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((shape[0], 30)) * 0.8 ** np.arange(30) @ rng.standard_normal((30, shape[1]))
    matrix = (matrix + 0.01 * rng.standard_normal(shape)).astype(np.float32)
    found = leading_inputs(matrix, 7)
    np.testing.assert_allclose(found.T @ found, np.eye(7), atol=1e-5)
    exact = np.linalg.svd(matrix.astype(float), full_matrices=False)[2][:7].T
    assert overlap(found, exact) == pytest.approx(1, abs=1e-6)


def train(inputs: Tensor, labels: Tensor, start: Tensor, head: Tensor, weight_decay: float = 0.01) -> Tensor:
    """Gradient descent with decay towards the start on f(x) = a · relu(W x), a fixed: the networks of Lemma 5."""
    weight = start.clone().requires_grad_()
    for _ in range(3000):
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
            save_as(Path(places[i]), train(*data[i], start, head), head)
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
