"""Norms of one matrix: Frobenius norm in float64, spectral norm by Golub-Kahan-Lanczos bidiagonalisation.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy. A scan spends nearly
all of its time in matrix-vector products; the module uses numpy, whose products were the fastest of those tried.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

Blocks = Sequence[np.ndarray]
"""The rows of one matrix in blocks (rows_b, columns), from top to bottom, all float32 or all float64."""

CHUNK_ENTRIES = 65_536
"""Number of entries that are converted to float64 at a time."""
PIECE_BYTES = 4_000_000
"""Bytes of W that are used twice while they are in the cache. (1 to 16 MB were tried, on larger matrices than fit
into it.)"""
FIRST_CHECK = 5
"""Number of Lanczos steps before the residual is computed for the first time. Later it is computed where it is
expected to be small."""


class NotFiniteError(Exception):
    """The matrix holds an infinity or a NaN."""


class SpectralNorm(NamedTuple):
    """Largest singular value, the residual that bounds its distance to a singular value, and the Lanczos steps."""

    value: float
    residual: float
    steps: int

    def times(self, scale: float) -> "SpectralNorm":
        """The spectral norm of the same matrix multiplied by ``scale`` > 0."""
        return SpectralNorm(scale * self.value, scale * self.residual, self.steps)


def frobenius_norm(blocks: Blocks) -> float:
    """‖W‖_F of a matrix in blocks of rows, accumulated in float64.

    Raises:
        NotFiniteError: an entry is infinite or NaN.
    """
    total = 0.0
    with np.errstate(over="ignore"):  # an overflow is noticed below
        for block in blocks:
            flat = block.ravel(order="K")  # in the order of memory, which copies nothing
            for first in range(0, flat.size, CHUNK_ENTRIES):
                wide = flat[first : first + CHUNK_ENTRIES].astype(np.float64)
                total += float(wide @ wide)
    if not math.isfinite(total):
        largest = max(float(np.abs(block).max()) for block in blocks)
        if not math.isfinite(largest):
            raise NotFiniteError
        return largest * frobenius_norm([block / largest for block in blocks])  # float64 entries above 1e150
    return math.sqrt(total)


def spectral_norm(blocks: Blocks, frobenius: float, tolerance: float = 1e-6, seed: int = 0) -> SpectralNorm:
    """‖W‖_2 by Golub-Kahan-Lanczos bidiagonalisation (Golub and Kahan 1965).

    The method stops when ‖Wᵀu - σv‖ ≤ ``tolerance`` · σ for the leading Ritz triple (σ, u, v). This residual bounds
    the distance of σ to a singular value. The random start vector favours no singular vector, which makes this
    singular value the largest one. Two faster variants were tried, and fail where singular values are close: to
    start at the vector of the layer before, and to stop by the squared residual over the gap. The vectors are not
    reorthogonalised: they stay orthogonal until a Ritz vector has converged (Paige 1980), and the first one that
    converges is the leading one, the result.

    Args:
        blocks: W as blocks of rows. The arithmetic has the precision of W; float32 allows a tolerance down to about
            1e-6.
        frobenius: ‖W‖_F. W is divided by it, so that no square overflows.
        tolerance: Relative tolerance of the residual.
        seed: Seed of the random start vector.

    Returns:
        The spectral norm, its residual, and the number of Lanczos steps.
    """
    if frobenius == 0:
        return SpectralNorm(0.0, 0.0, 0)
    if 1 / frobenius > float(np.finfo(blocks[0].dtype).max):  # weights that have decayed to denormal numbers
        wide = [block.astype(np.float64) / frobenius for block in blocks]
        return spectral_norm(wide, 1.0, tolerance, seed).times(frobenius)
    if len(blocks) == 1 and not blocks[0].flags.c_contiguous:
        blocks = [blocks[0].T]  # Wᵀ has the same norm, and its rows are contiguous
    pieces = list(_pieces(blocks))
    rows, columns, dtype = sum(map(len, blocks)), blocks[0].shape[1], blocks[0].dtype
    right, left = _start(columns, seed).astype(dtype), np.zeros(rows, dtype)
    alphas: list[float] = []
    betas: list[float] = []
    beta, next_check, previous = 0.0, FIRST_CHECK, (1, 1.0)
    while True:
        scaled, product = right * dtype.type(1 / frobenius), np.zeros(columns, dtype)
        left *= dtype.type(-beta)
        for piece, piece_rows in pieces:
            left[piece_rows] += piece @ scaled  # α_k u_k = W v_k - β_{k-1} u_{k-1}
            product += left[piece_rows] @ piece  # α_k Wᵀu_k, while the piece is in the cache
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
        if beta <= negligible or steps >= next_check:
            leading = _leading(alphas, betas, beta)
            if leading.residual <= tolerance * leading.value:
                return leading.times(frobenius)
            current = (steps, leading.residual / leading.value)
            next_check, previous = steps + _steps_to(tolerance, previous, current), current
        betas.append(beta)
        right *= dtype.type(1 / beta)


def _pieces(blocks: Blocks) -> Iterator[tuple[np.ndarray, slice]]:
    """Pieces (rows, columns) of W that fit into a cache, and the range of rows that each of them covers."""
    first = 0
    for block in blocks:
        size = max(1, PIECE_BYTES // block[0].nbytes)
        for start in range(0, len(block), size):
            piece = block[start : start + size]
            yield piece, slice(first + start, first + start + len(piece))
        first += len(block)


@cache
def _start(columns: int, seed: int) -> np.ndarray:
    """Random start vector (columns) of length 1."""
    vector = np.random.default_rng(seed).standard_normal(columns)
    return vector / _length(vector)


def _steps_to(tolerance: float, previous: tuple[int, float], current: tuple[int, float]) -> int:
    """Number of steps until the next check of the residual, from two pairs (step, relative residual).

    The residual falls ever faster, so the rate between two checks overestimates the steps that remain. A part of
    them, at most 8, is taken before the residual is computed again.
    """
    (k0, r0), (k1, r1) = previous, current
    rate = math.log(r0 / r1) / (k1 - k0)
    return max(1, min(8, k1, int(0.75 * math.log(r1 / tolerance) / rate))) if rate > 0 else 1


def _length(vector: np.ndarray) -> float:
    """‖x‖ in float64."""
    wide = vector.astype(np.float64)
    return math.sqrt(float(wide @ wide))


def _leading(alphas: list[float], betas: list[float], beta: float) -> SpectralNorm:
    """Leading Ritz value of the bidiagonal matrix B, and its residual β_k |p_k|; p is the leading vector of BBᵀ."""
    size = len(alphas)
    bidiagonal = np.zeros((size, size))
    bidiagonal.flat[:: size + 1] = alphas
    bidiagonal.flat[1 :: size + 1] = betas
    squares, vectors = np.linalg.eigh(bidiagonal @ bidiagonal.T)
    return SpectralNorm(math.sqrt(squares[-1]), beta * abs(float(vectors[-1, -1])), size)


def singular_values(blocks: Blocks) -> np.ndarray:
    """All singular values of W, (min(rows, columns)), in descending order, computed in float64."""
    return np.linalg.svd(np.concatenate(list(blocks)).astype(np.float64), compute_uv=False)


def effective_rank(values: np.ndarray) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli 2007); NaN if W = 0.

    Args:
        values: All singular values of W.
    """
    total = values.sum()
    if total == 0:
        return math.nan
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
