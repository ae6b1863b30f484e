"""Compiled products and sums of matrices as stored, against float64, and against PyTorch's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from decaymerge.scan import compiled, products
from decaymerge.scan.products import computing_type, product_of, sum_of_squares
from decaymerge.scan.spectral import frobenius_norm, spectral_norm

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(params=[2, 4, None], ids=["compiled, 2 vectors at once", "compiled, 4", "PyTorch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Loops are compiled always, for either number of registers, or never."""
    monkeypatch.setattr(products, "COMPILED_ENTRIES", 0 if request.param else 1 << 40)
    monkeypatch.setattr(compiled, "AT_ONCE", request.param)
    return request.param


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(
        dtype
    )


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_product_of_blocks_against_float64(dtype: torch.dtype, precision: torch.dtype) -> None:
    """Rows that four and the piece do not divide, columns that the tile does not, rows apart, and few vectors."""
    wide = normal(70, 5500, dtype=dtype)
    blocks = [
        wide[:37, 3:5000],
        normal(4, 4997, dtype=dtype),
        normal(1, 4997, dtype=dtype),
        wide[37:, 500:5497],
    ]
    for number in (1, 2, 4):
        vectors = normal(number, 4997, dtype=precision)
        exact = torch.stack([vectors.double() @ block.double().T @ block.double() for block in blocks]).sum(0)
        product = product_of(blocks, vectors)
        assert product.dtype == precision
        error = float((product.double() - exact).norm() / exact.norm())
        assert error < (1e-6 if precision == torch.float32 else 1e-14)


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_sum_of_squares_against_float64(dtype: torch.dtype) -> None:
    for block in (
        normal(53, 4099, dtype=dtype),
        normal(53, 4099, dtype=dtype).T,
        normal(60, 90, dtype=dtype)[:, 7:60],
    ):
        assert sum_of_squares(block) == pytest.approx(float(block.double().square().sum()), rel=1e-14)


def test_half_precision_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finite number of 16 bits is squared as float64 squares it: zeros, subnormal and largest ones."""
    monkeypatch.setattr(products, "COMPILED_ENTRIES", 0)
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)
        every = every[every.isfinite()]
        for number in every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:3000]]:
            assert sum_of_squares(number[None, None]) == float(number.double()) ** 2
    subnormal = torch.tensor([1, 1023, 512], dtype=torch.int16).view(torch.float16)
    assert sum_of_squares(subnormal[None]) == float(subnormal.double().square().sum()) > 0


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_norms_of_blocks_of_different_types(dtype: torch.dtype) -> None:
    blocks = [normal(120, 200, dtype=dtype), normal(83, 200, dtype=torch.float32)]
    exact = torch.cat([block.double() for block in blocks])
    assert computing_type(blocks) == (torch.float64 if dtype == torch.float64 else torch.float32)
    frobenius = frobenius_norm(blocks)
    assert frobenius == pytest.approx(float(exact.norm()), rel=1e-13)
    for matrix in (blocks, [blocks[0].T], [blocks[0][::3]], [blocks[0][:, ::2]]):
        exact = torch.cat([block.double() for block in matrix])
        norm = spectral_norm(matrix, frobenius_norm(matrix))
        assert abs(norm.value - float(torch.linalg.matrix_norm(exact, 2))) <= norm.error <= 1e-6 * norm.value


def test_infinite_entries_stay_infinite(loops: int | None) -> None:
    for number in (float("inf"), float("nan")):
        for dtype in TYPES:
            matrix = normal(8, 8, dtype=dtype)
            matrix[3, 5] = number
            assert not torch.tensor(sum_of_squares(matrix)).isfinite(), (loops, dtype)


MATRIX = """
import resource, torch
from decaymerge.scan import products
from decaymerge.scan.spectral import frobenius_norm, spectral_norm
products.COMPILED_ENTRIES = 0
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file of a compiled loop can be written
matrix = torch.ones(100, 400).half()
norm = frobenius_norm([matrix])
print(norm, round(spectral_norm([matrix], norm).value, 3))
"""


def run(environment: dict[str, str], limit: bool = False) -> subprocess.CompletedProcess[str]:
    """Measure a matrix in a process with these variables."""
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment}
    code = MATRIX.format(limit=limit)
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_compiles_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Neither the folder of the code nor the user's cache can be written; or they can, and the disk is full."""
    shutil.copytree(
        Path(products.__file__).parents[1], tmp_path / "decaymerge", ignore=lambda *_: ["__pycache__"]
    )
    (tmp_path / "decaymerge/scan/__pycache__").touch()  # a file: no folder of that name can be made
    done = run({"HOME": "/dev/null", "PYTHONPATH": str(tmp_path)})
    assert (done.stdout, done.stderr) == ("200.0 200.0\n", "")
    cache = tmp_path / "cache"
    done = run({"NUMBA_CACHE_DIR": str(cache)}, limit=True)
    assert (done.stdout, done.stderr) == ("200.0 200.0\n", "")
    assert not list(tmp_path.rglob("*.nbc"))
    assert run({"NUMBA_CACHE_DIR": str(cache)}).stdout == "200.0 200.0\n" and list(cache.rglob("*.nbc"))


def test_measures_without_a_compiler(tmp_path: Path) -> None:
    """Numba does not suit the installed NumPy, or is told not to compile: PyTorch's products, and a line."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    for reason, environment in {
        "Numba needs NumPy 2.3 or less": {"PYTHONPATH": str(tmp_path)},
        "NUMBA_DISABLE_JIT is set": {"NUMBA_DISABLE_JIT": "1"},
    }.items():
        done = run(environment)
        line = f"numba cannot be used ({reason}): large matrices take up to twice as long\n"
        assert (done.stdout, done.stderr) == ("200.0 200.0\n", line)
