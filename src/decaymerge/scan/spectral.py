"""Norms of one matrix: Frobenius norm in float64, and spectral norm by Lanczos with a check in float64.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy. A scan spends nearly
all of its time in matrix-vector products; the module uses numpy, whose products were the fastest of those tried.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from decaymerge.errors import UserError

Blocks = Sequence[np.ndarray]
"""The rows of one matrix in blocks (rows_b, columns), from top to bottom, all float32 or all float64."""
Pieces = Sequence[tuple[np.ndarray, slice]]
"""Pieces (rows, columns) of a matrix, and the range of rows that each of them covers."""

CHUNK_ENTRIES = 65_536
"""Number of entries that are converted to float64 at a time."""
PIECE_BYTES = 4_000_000
"""Bytes of W that are used twice while they are in the cache. (1 to 16 MB were tried, on larger matrices than fit
into it.)"""
SHORT_SIDE = 32
"""Largest number of rows or columns at which the Gram matrix takes less time than an iteration."""
SAFE: dict[type, float] = {np.float32: 1e30, np.float64: 1e140}
"""Norms between this and its inverse keep all products in the range of the type."""
REFINEMENTS = 3
"""Products in float64 that refine the result of Lanczos; after the last but one, ARPACK takes over."""
STALLED = 1e-4
"""Relative residual below which it falls from check to check, unless rounding keeps it up."""
MOST_STEPS = 500
"""Of Lanczos, and restarts of ARPACK."""
FIRST_CHECK = 5
"""Number of Lanczos steps before the residual is computed for the first time. Later it is computed where it is
expected to be small."""


class NotFiniteError(Exception):
    """The matrix holds an infinity or a NaN, or its norm is one; the text says which."""


class NoConvergenceError(UserError):
    """The spectral norm did not reach its tolerance; the text says how far it is."""


class SpectralNorm(NamedTuple):
    """Largest singular value, a bound of its error, and the Lanczos steps."""

    value: float
    error: float
    steps: int

    def times(self, scale: float) -> "SpectralNorm":
        """The spectral norm of the same matrix multiplied by ``scale`` > 0."""
        value = scale * self.value
        return SpectralNorm(value, scale * self.error + float(np.spacing(value)), self.steps)


def frobenius_norm(blocks: Blocks) -> float:
    """‖W‖_F of a matrix in blocks of rows, accumulated in float64.

    Raises:
        NotFiniteError: an entry is infinite or NaN, or the norm is too large for float64.
    """
    total = 0.0
    with np.errstate(over="ignore", under="ignore"):  # both are noticed below
        for block in blocks:
            flat = block.ravel(order="K")  # in the order of memory, which copies nothing
            for first in range(0, flat.size, CHUNK_ENTRIES):
                wide = flat[first : first + CHUNK_ENTRIES].astype(np.float64)
                total += float(wide @ wide)
    if 1e-280 < total < math.inf:
        return math.sqrt(total)
    largest = max(float(np.abs(block).max()) for block in blocks)
    if largest == 0:
        return 0.0
    if not math.isfinite(largest):
        raise NotFiniteError("an infinite or NaN entry")
    scaled = [block / largest for block in blocks]  # as the squares leave the range of float64
    norm = largest * frobenius_norm(scaled)
    if math.isinf(norm):
        raise NotFiniteError("entries whose norm is too large for float64")
    return norm


def spectral_norm(blocks: Blocks, frobenius: float, tolerance: float = 1e-6, seed: int = 0) -> SpectralNorm:
    """‖W‖_2 with an error of at most ``tolerance`` · ‖W‖_2.

    With σ = ‖Wv‖ and u = Wv / σ, the residual ‖Wᵀu - σv‖ bounds the distance of σ to a singular value. The random
    start vector favours no singular vector, which makes this one the largest. Where several lie within the residual
    of each other, the largest may be a little further away: the error is twice the residual. v comes from Lanczos
    in the precision of W. It is then checked, and refined, in float64, as sums of many float32 products miss the
    tolerance without a sign. If that is not enough, ARPACK goes on in float64. A short side needs no iteration.

    Args:
        blocks: W as blocks of rows.
        frobenius: ‖W‖_F. W is divided by it, so that no square overflows.
        tolerance: Relative tolerance of the error.
        seed: Seed of the random start vector.

    Returns:
        The spectral norm, its error with a bound of rounding, and the number of Lanczos steps.

    Raises:
        NoConvergenceError: the error did not reach the tolerance.
    """
    if frobenius == 0:
        return SpectralNorm(0.0, 0.0, 0)
    bound = SAFE[blocks[0].dtype.type]
    if not 1 / bound < frobenius < bound:
        largest = max(float(np.abs(block).max()) for block in blocks)
        wide = [block.astype(np.float64) / largest for block in blocks]
        scaled = spectral_norm(wide, frobenius_norm(wide), tolerance, seed).times(largest)
        return scaled._replace(value=min(scaled.value, frobenius))
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    rounding = float(np.finfo(np.float64).eps) * (rows + columns)
    if min(rows, columns) <= SHORT_SIDE:
        value = math.sqrt(float(np.linalg.eigvalsh(_gram(blocks))[-1]))
        return SpectralNorm(min(value, frobenius), rounding * value, 0)
    if len(blocks) == 1 and not blocks[0].flags.c_contiguous:
        blocks = [blocks[0].T]  # Wᵀ has the same norm, and its rows are contiguous
    pieces = list(_pieces(blocks))
    vector, steps = _lanczos(pieces, sum(map(len, blocks)), frobenius, tolerance / 2, seed)
    for attempt in range(REFINEMENTS + 1):
        value, residual, refined = _refine(pieces, vector)
        if 2 * residual <= tolerance * value:
            return SpectralNorm(min(value, frobenius), 2 * residual + rounding * value, steps)
        vector = refined if attempt < REFINEMENTS - 1 else _arpack(pieces, refined, tolerance)
    raise NoConvergenceError(
        f"a spectral norm is found to {2 * residual / value:.1e} alone, and not to the tolerance {tolerance:g};"
        " give a larger one"
    )


def _gram(blocks: Blocks) -> np.ndarray:
    """WᵀW or WWᵀ, whichever is smaller, in float64."""
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    long = max(1, CHUNK_ENTRIES // min(rows, columns))
    if rows <= columns:
        parts = (
            np.concatenate([block[:, first : first + long] for block in blocks]).astype(np.float64)
            for first in range(0, columns, long)
        )
    else:
        parts = (
            block[first : first + long].astype(np.float64).T
            for block in blocks
            for first in range(0, len(block), long)
        )
    gram = np.zeros((min(rows, columns),) * 2)
    for part in parts:
        gram += part @ part.T
    return gram


def _squared(pieces: Pieces, vector: np.ndarray) -> tuple[float, np.ndarray]:
    """‖Wv‖² and WᵀWv of a vector v, in float64."""
    total, product = 0.0, np.zeros(len(vector))
    for piece, _ in pieces:
        for part in np.array_split(piece, math.ceil(piece.size / CHUNK_ENTRIES)):
            wide = part.astype(np.float64)
            left = wide @ vector
            total += float(left @ left)
            product += left @ wide
    return total, product


def _refine(pieces: Pieces, vector: np.ndarray) -> tuple[float, float, np.ndarray]:
    """σ = ‖Wv‖ of a vector v of length 1, its residual ‖Wᵀu - σv‖, and WᵀWv at length 1, which is nearer."""
    square, product = _squared(pieces, vector)
    value = math.sqrt(square)
    return value, _length(product / value - value * vector), product / _length(product)


def _arpack(pieces: Pieces, start: np.ndarray, tolerance: float) -> np.ndarray:
    """The leading eigenvector of WᵀW, in float64; where ARPACK does not converge, the start."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator(
        (len(start), len(start)), matvec=lambda vector: _squared(pieces, vector.ravel())[1], dtype=np.float64
    )
    try:
        _, vectors = eigsh(operator, 1, v0=start, tol=tolerance / 4, maxiter=MOST_STEPS)
    except ArpackNoConvergence:
        return start
    return vectors[:, 0] / _length(vectors[:, 0])


def _lanczos(
    pieces: Pieces, rows: int, frobenius: float, tolerance: float, seed: int
) -> tuple[np.ndarray, int]:
    """Leading right singular vector by Golub-Kahan-Lanczos bidiagonalisation (Golub and Kahan 1965), and its steps.

    Two faster variants were tried, and fail where singular values are close: to start at the vector of the layer
    before, and to stop by the squared residual over the gap. The vectors are not reorthogonalised: they stay
    orthogonal until a Ritz vector has converged (Paige 1980), and the first one that converges is the leading one,
    the result.
    """
    columns, dtype = pieces[0][0].shape[1], pieces[0][0].dtype
    right, left = _start(columns, seed).astype(dtype), np.zeros(rows, dtype)
    rights: list[np.ndarray] = []
    alphas: list[float] = []
    betas: list[float] = []
    beta, next_check, previous = 0.0, FIRST_CHECK, (1, 1.0)
    while True:
        rights.append(right)
        scaled, product = right * dtype.type(1 / frobenius), np.zeros(columns, dtype)
        left *= dtype.type(-beta)
        for piece, piece_rows in pieces:
            left[piece_rows] += piece @ scaled  # α_k u_k = W v_k - β_{k-1} u_{k-1}
            product += left[piece_rows] @ piece  # α_k Wᵀu_k, while the piece is in the cache
        alphas.append(alpha := _length(left))
        negligible = max(alphas) * tolerance
        if alpha <= negligible:  # the Krylov space is exhausted
            alphas[-1] = 0.0
            return _combined(rights, _leading(alphas, betas, 0.0)[0]), len(alphas)
        left *= dtype.type(1 / alpha)
        product *= dtype.type(1 / alpha / frobenius)
        right = product - dtype.type(alpha) * right  # β_k v_{k+1} = Wᵀu_k - α_k v_k
        beta = _length(right)
        steps = len(alphas)
        if beta <= negligible or steps >= next_check:
            weights, value, residual = _leading(alphas, betas, beta)
            current = (steps, residual / value)
            has_stalled = previous[1] <= current[1] <= STALLED  # rounding: the check in float64 goes on
            if current[1] <= tolerance or has_stalled or steps >= MOST_STEPS:
                return _combined(rights, weights), steps
            next_check, previous = steps + _steps_to(tolerance, previous, current), current
        betas.append(beta)
        right *= dtype.type(1 / beta)


def _combined(vectors: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The sum of vectors with these weights, in float64 and of length 1."""
    total = np.zeros(len(vectors[0]))
    for vector, weight in zip(vectors, weights, strict=True):
        total += float(weight) * vector
    return total / _length(total)


def _pieces(blocks: Blocks) -> Iterator[tuple[np.ndarray, slice]]:
    """Pieces of W that fit into a cache."""
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


def _leading(alphas: list[float], betas: list[float], beta: float) -> tuple[np.ndarray, float, float]:
    """Leading right singular vector q of the bidiagonal matrix B, its singular value, and its residual β_k |p_k|.

    p is the leading eigenvector of BBᵀ, and q = Bᵀp / σ.
    """
    size = len(alphas)
    bidiagonal = np.zeros((size, size))
    bidiagonal.flat[:: size + 1] = alphas
    bidiagonal.flat[1 :: size + 1] = betas
    squares, vectors = np.linalg.eigh(bidiagonal @ bidiagonal.T)
    value, left = math.sqrt(squares[-1]), vectors[:, -1]
    return bidiagonal.T @ left / value, value, beta * abs(float(left[-1]))


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
