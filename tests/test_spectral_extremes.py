"""Norms of matrices of any shape, scale and structure against float64: right to the stated error, or refused."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from decaymerge.scan import products
from decaymerge.scan.spectral import (
    NoConvergenceError,
    NotFiniteError,
    SpectralNorm,
    frobenius_norm,
    spectral_norm,
)

SHAPES = [(1, 1), (1, 2), (2, 1), (1, 300_000), (1_000_000, 1), (50_257, 1), (2, 60_000), (33, 33), (40, 40)]
SHAPES += [
    (33, 5000),
    (5000, 33),
    (65, 66),
    (67, 4000),
    (4000, 67),
    (100, 300),
    (300, 100),
    (310, 290),
    (34, 30_000),
    (30_000, 34),
]
SCALES: dict[type, tuple[float, ...]] = {
    np.float16: (1e-7, 1.0, 6e4),
    np.float32: (1e-44, 1e-38, 1e-30, 1.0, 1e6, 1e30, 3e38),
    np.float64: (5e-323, 1e-308, 1e-200, 1.0, 1e200, 1e300, 1.7e308),
}
TOLERANCE = 1e-6


def structures(rows: int, columns: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    size = min(rows, columns, 40)
    left = np.linalg.qr(rng.standard_normal((rows, size)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, size)))[0]
    yield "normal", rng.standard_normal((rows, columns))
    yield "constant", np.ones((rows, columns))
    yield "positive", rng.random((rows, columns))
    yield "rank one", np.outer(rng.random(rows), rng.standard_normal(columns))
    yield "repeated values", left @ right.T
    yield "nearly repeated values", (left * np.r_[1, 1 - 1e-7, np.linspace(0.9, 0.1, 40)][:size]) @ right.T
    yield "twelve orders of magnitude", (left * np.logspace(0, -12, size)) @ right.T
    yield "one entry", (np.arange(rows * columns) == rows * columns // 2).reshape(rows, columns).astype(float)
    yield "identity", np.eye(rows, columns)


def reference(matrix: np.ndarray) -> float:
    """σ_1 in float64; of a long matrix by its Gram matrix, which the largest singular value does not mind."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if short.shape[1] > 2000:
        return float(np.linalg.eigvalsh(short @ short.T)[-1] ** 0.5)
    return float(np.linalg.svd(short, compute_uv=False)[0])


def norm_of(matrix: np.ndarray) -> tuple[SpectralNorm, float] | None:
    """Spectral and Frobenius norm, or none if they are refused."""
    blocks = [torch.from_numpy(matrix)]
    try:
        frobenius = frobenius_norm(blocks)
        return spectral_norm(blocks, frobenius, TOLERANCE), frobenius
    except (NotFiniteError, NoConvergenceError):
        return None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_right_to_the_stated_error(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "COMPILED_ENTRIES", 10_000)
    cases, worst, refused = 0, 0.0, []
    for name, plain in structures(*shape):
        for dtype, scales in SCALES.items():
            for scale in scales:
                matrix: np.ndarray = (plain / np.abs(plain).max() * scale).astype(dtype)
                largest = float(np.abs(matrix).max())
                exact = reference(matrix.astype(np.float64) / largest)
                measured = norm_of(matrix)
                case = f"{name}, {dtype.__name__}, {scale}"
                if measured is None:
                    refused.append(case)
                    assert largest * float(np.linalg.norm(matrix / largest)) > 1e308, case
                    continue
                norm, frobenius = measured
                error, stated = abs(norm.value / largest - exact), norm.error / largest
                rounding = 1e-15 * exact * matrix.size**0.5  # of the reference
                assert error <= stated + rounding, case
                assert stated <= 1.01 * TOLERANCE * exact + np.spacing(norm.value) / largest, case
                assert norm.value <= frobenius, case
                cases, worst = cases + 1, max(worst, (error - rounding) / stated)
    assert cases + len(refused) == 9 * 17 and len(refused) <= 2 * 9
    print(f"{shape}: {cases} cases, worst error {worst:.2f} of the stated one, {len(refused)} refused")
