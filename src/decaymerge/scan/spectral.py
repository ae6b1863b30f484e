"""Norms of one matrix: Frobenius norm in float64, spectral norm by Golub-Kahan-Lanczos bidiagonalisation.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy. In numpy, whose
matrix-vector products are the fastest to be had here: a scan is little else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Blocks = Sequence[np.ndarray]
"""Matrices (rows_b, columns) that stand on top of each other, all float32 or all float64."""

CHUNK = 65_536
"""Entries that are converted to float64 at a time."""
FIRST_CHECK = 2
"""Lanczos steps before the first look at the residual; later looks are where it is expected to be small."""


class NotFiniteError(Exception):
    """The matrix holds an infinity or a NaN."""


class SpectralNorm(NamedTuple):
    """Largest singular value, and the residual that bounds its distance to a singular value."""

    value: float
    residual: float
    steps: int


def frobenius_norm(blocks: Blocks) -> float:
    """‖W‖_F accumulated in float64.

    Raises:
        NotFiniteError: an entry is infinite or NaN.
    """
    total = 0.0
    with np.errstate(over="ignore"):  # it is looked at below
        for block in blocks:
            flat = block.ravel(order="K")  # as it lies in memory
            for first in range(0, flat.size, CHUNK):
                wide = flat[first : first + CHUNK].astype(np.float64)
                total += float(wide @ wide)
    if not math.isfinite(total):
        largest = max(float(np.abs(block).max()) for block in blocks)
        if not math.isfinite(largest):
            raise NotFiniteError
        return largest * frobenius_norm([block / largest for block in blocks])  # float64 entries above 1e150
    return math.sqrt(total)


def spectral_norm(blocks: Blocks, tolerance: float = 1e-6, seed: int = 0) -> SpectralNorm:
    """‖W‖_2 by Golub-Kahan-Lanczos with reorthogonalised right vectors (Simon and Zha 2000).

    Stops when ‖Wᵀu - σv‖ ≤ ``tolerance`` · σ for the leading Ritz triple (σ, u, v). That bounds the distance of σ
    to a singular value, and a random start, which favours none, makes it the largest one. Two faster ways were
    tried and are wrong between close singular values: to start at the vector of the layer before, and to stop by
    the residual's square over the gap.

    Args:
        blocks: W as blocks of rows; the arithmetic is in its precision, which for float32 allows a tolerance down
            to about 1e-6.
        tolerance: Relative tolerance.
        seed: Of the start vector.
    """
    if len(blocks) == 1 and blocks[0].shape[0] < blocks[0].shape[1]:
        blocks = [blocks[0].T]  # the same norm, with shorter vectors to keep
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    dtype, limit = blocks[0].dtype, min(rows + 1, columns)
    start = np.random.default_rng(seed).standard_normal((columns,))
    right = (start / _length(start)).astype(dtype)
    basis = np.empty((min(limit, 32), columns), dtype)
    left, beta, negligible = np.zeros(rows, dtype), 0.0, 0.0
    alphas: list[float] = []
    betas: list[float] = []
    check, before = FIRST_CHECK, (0, 1.0)
    for k in range(limit):
        if k == len(basis):
            basis = np.concatenate([basis, np.empty_like(basis)])
        basis[k] = right
        known = basis[: k + 1]
        left = _times(blocks, right) - dtype.type(beta) * left  # α_k u_k = W v_k - β_{k-1} u_{k-1}
        alphas.append(alpha := _length(left))
        negligible = max(negligible, alpha * tolerance)
        if alpha <= negligible or k == rows:  # the Krylov space is exhausted, or W = 0
            return _leading([*alphas[:-1], 0.0], betas, 0.0)._replace(residual=0.0 if k == rows else alpha)
        left /= dtype.type(alpha)
        right = _transposed_times(blocks, left) - dtype.type(alpha) * right  # β_k v_{k+1} = Wᵀu_k - α_k v_k
        right -= (known @ right) @ known
        beta = _length(right)
        last = beta <= negligible or k + 1 == limit
        if last or k >= check:
            found = _leading(alphas, betas, beta)
            if last or found.residual <= tolerance * found.value:
                return found
            now = (k, found.residual / found.value)
            check, before = k + _steps_to(tolerance, before, now), now
        betas.append(beta)
        right /= dtype.type(beta)
    raise AssertionError("unreachable: the last step returns")


def _times(blocks: Blocks, vector: np.ndarray) -> np.ndarray:
    return np.concatenate([block @ vector for block in blocks]) if len(blocks) > 1 else blocks[0] @ vector


def _transposed_times(blocks: Blocks, vector: np.ndarray) -> np.ndarray:
    ends = np.cumsum([len(block) for block in blocks])
    parts = np.split(vector, ends[:-1]) if len(blocks) > 1 else [vector]
    products = [block.T @ part for block, part in zip(blocks, parts, strict=True)]
    return sum(products[1:], start=products[0])


def _steps_to(tolerance: float, before: tuple[int, float], now: tuple[int, float]) -> int:
    """Steps until the residual, which falls geometrically in the end, is expected to be below the tolerance."""
    (k0, r0), (k1, r1) = before, now
    rate = math.log(r0 / r1) / (k1 - k0)
    return max(1, min(8, int(math.log(r1 / tolerance) / rate))) if rate > 0 else 1


def _length(vector: np.ndarray) -> float:
    wide = vector.astype(np.float64)  # the square of a float32 may be too large or too small for one
    return math.sqrt(float(wide @ wide))


def _leading(alphas: list[float], betas: list[float], beta: float) -> SpectralNorm:
    """Leading Ritz value of the bidiagonal matrix and its residual β_k |p_k|."""
    left, values, _ = np.linalg.svd(np.diag(alphas) + np.diag(betas, 1))
    return SpectralNorm(float(values[0]), beta * abs(float(left[-1, 0])), len(alphas))


def singular_values(blocks: Blocks) -> np.ndarray:
    """All singular values, descending, in float64."""
    return np.linalg.svd(np.concatenate(list(blocks)).astype(np.float64), compute_uv=False)


def effective_rank(values: np.ndarray) -> float:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007); NaN for W = 0."""
    total = values.sum()
    if total == 0:
        return math.nan
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
