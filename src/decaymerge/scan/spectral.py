"""Norms of one matrix: Frobenius norm in float64, spectral norm by Golub-Kahan-Lanczos bidiagonalisation.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy. In numpy, whose
matrix-vector products are the fastest to be had here: a scan is little else.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

Blocks = Sequence[np.ndarray]
"""Matrices (rows_b, columns) that stand on top of each other, all float32 or all float64."""

CHUNK = 65_536
"""Entries that are converted to float64 at a time."""
PIECE = 4_000_000
"""Bytes of W that are used twice while they are in the cache (1 to 16 MB were tried on matrices beyond it)."""
FIRST_CHECK = 5
"""Lanczos steps before the first look at the residual; later looks are where it is expected to be small."""


class NotFiniteError(Exception):
    """The matrix holds an infinity or a NaN."""


class SpectralNorm(NamedTuple):
    """Largest singular value, and the residual that bounds its distance to a singular value."""

    value: float
    residual: float
    steps: int

    def times(self, scale: float) -> "SpectralNorm":
        """Of the matrix times ``scale``."""
        return SpectralNorm(scale * self.value, scale * self.residual, self.steps)


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


def spectral_norm(blocks: Blocks, frobenius: float, tolerance: float = 1e-6, seed: int = 0) -> SpectralNorm:
    """‖W‖_2 by Golub-Kahan-Lanczos bidiagonalisation (Golub and Kahan 1965).

    Stops when ‖Wᵀu - σv‖ ≤ ``tolerance`` · σ for the leading Ritz triple (σ, u, v). That bounds the distance of σ
    to a singular value, and a random start, which favours none, makes it the largest one. Two faster ways were
    tried and are wrong between close singular values: to start at the vector of the layer before, and to stop by
    the residual's square over the gap. Nothing is reorthogonalised: the vectors stay orthogonal until a Ritz
    vector has converged (Paige 1980), and the first one that does is the one that is asked for.

    Args:
        blocks: W as blocks of rows; the arithmetic is in its precision, which for float32 allows a tolerance down
            to about 1e-6.
        frobenius: ‖W‖_F, by which W is scaled: no square overflows.
        tolerance: Relative tolerance.
        seed: Of the start vector.
    """
    if frobenius == 0:
        return SpectralNorm(0.0, 0.0, 0)
    if 1 / frobenius > float(np.finfo(blocks[0].dtype).max):  # weights that have decayed to denormal numbers
        wide = [block.astype(np.float64) / frobenius for block in blocks]
        return spectral_norm(wide, 1.0, tolerance, seed).times(frobenius)
    if len(blocks) == 1 and not blocks[0].flags.c_contiguous:
        blocks = [blocks[0].T]  # the same norm, and rows that lie in one piece
    pieces = list(_pieces(blocks))
    rows, columns, dtype = sum(map(len, blocks)), blocks[0].shape[1], blocks[0].dtype
    right, left = _start(columns, seed).astype(dtype), np.zeros(rows, dtype)
    alphas: list[float] = []
    betas: list[float] = []
    beta, check, before = 0.0, FIRST_CHECK, (1, 1.0)
    while True:
        scaled, product = right * dtype.type(1 / frobenius), np.zeros(columns, dtype)
        left *= dtype.type(-beta)
        for piece, at in pieces:
            left[at] += piece @ scaled  # α_k u_k = W v_k - β_{k-1} u_{k-1}
            product += left[at] @ piece  # α_k Wᵀu_k, while the piece is in the cache
        alphas.append(alpha := _length(left))
        negligible = max(alphas) * tolerance
        if alpha <= negligible:  # the Krylov space is exhausted
            alphas[-1] = 0.0
            return _leading(alphas, betas, beta=0.0)._replace(residual=alpha).times(frobenius)
        left *= dtype.type(1 / alpha)
        product *= dtype.type(1 / alpha / frobenius)
        right = product - dtype.type(alpha) * right  # β_k v_{k+1} = Wᵀu_k - α_k v_k
        beta = _length(right)
        steps = len(alphas)
        if beta <= negligible or steps >= check:
            found = _leading(alphas, betas, beta)
            if found.residual <= tolerance * found.value:
                return found.times(frobenius)
            now = (steps, found.residual / found.value)
            check, before = steps + _steps_to(tolerance, before, now), now
        betas.append(beta)
        right *= dtype.type(1 / beta)


def _pieces(blocks: Blocks) -> Iterator[tuple[np.ndarray, slice]]:
    """Rows of W that fit into a cache, and where they stand."""
    first = 0
    for block in blocks:
        size = max(1, PIECE // block[0].nbytes)
        for start in range(0, len(block), size):
            piece = block[start : start + size]
            yield piece, slice(first + start, first + start + len(piece))
        first += len(block)


@cache
def _start(columns: int, seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(columns)
    return vector / _length(vector)


def _steps_to(tolerance: float, before: tuple[int, float], now: tuple[int, float]) -> int:
    """Steps that surely go before the residual, which falls ever faster, may be below the tolerance."""
    (k0, r0), (k1, r1) = before, now
    rate = math.log(r0 / r1) / (k1 - k0)
    return max(1, min(8, k1, int(0.75 * math.log(r1 / tolerance) / rate))) if rate > 0 else 1


def _length(vector: np.ndarray) -> float:
    wide = vector.astype(np.float64)
    return math.sqrt(float(wide @ wide))


def _leading(alphas: list[float], betas: list[float], beta: float) -> SpectralNorm:
    """Leading Ritz value of the bidiagonal matrix B and its residual β_k |p_k|, p the leading vector of BBᵀ."""
    size = len(alphas)
    bidiagonal = np.zeros((size, size))
    bidiagonal.flat[:: size + 1] = alphas
    bidiagonal.flat[1 :: size + 1] = betas
    squares, vectors = np.linalg.eigh(bidiagonal @ bidiagonal.T)
    return SpectralNorm(math.sqrt(squares[-1]), beta * abs(float(vectors[-1, -1])), size)


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
