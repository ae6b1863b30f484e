"""Norms of one matrix: Frobenius norm in float64, and spectral norm by block Lanczos with a check in float64.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy. A scan spends most
of its time in the products of Lanczos (see ``products``), beside which other threads can work.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.scan.lanczos import error_bound, lanczos
from decaymerge.scan.products import Blocks, computing_type, in_cache, product_of, sum_of_squares

SHORT_SIDE = 64
"""Largest number of rows or columns at which the Gram matrix takes less time than an iteration."""
SAFE = {torch.float32: 1e30, torch.float64: 1e140}
"""Norms between this and its inverse keep all products in the range of the type."""
REFINEMENTS = 3
"""Products in float64 that refine the result of Lanczos; after the last but one, ARPACK takes over."""
MOST_RESTARTS = 500
"""Of ARPACK."""


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
    total = sum(map(sum_of_squares, blocks))
    if 1e-280 < total < math.inf:
        return math.sqrt(total)
    largest = _largest(blocks)
    if largest == 0:
        return 0.0
    if not math.isfinite(largest):
        raise NotFiniteError("an infinite or NaN entry")
    scaled = [block.double() / largest for block in blocks]  # as the squares leave the range of float64
    norm = largest * frobenius_norm(scaled)
    if math.isinf(norm):
        raise NotFiniteError("entries whose norm is too large for float64")
    return norm


def _largest(blocks: Blocks) -> float:
    return float(torch.stack([block.abs().max() for block in blocks]).max())


def spectral_norm(blocks: Blocks, frobenius: float, tolerance: float = 1e-6, seed: int = 0) -> SpectralNorm:
    """‖W‖_2 with an error of at most ``tolerance`` · ‖W‖_2.

    A random start favours no singular vector, which makes the one that is found the largest; several vectors at a
    time tell it from others close to it. v comes from Lanczos in the precision of W. It is then checked and refined
    in float64, as sums of many float32 products miss the tolerance without a sign. If that is not enough, ARPACK
    goes on in float64. A short side needs no iteration.

    Args:
        blocks: W as blocks of rows.
        frobenius: ‖W‖_F. W is divided by it, so that no square overflows.
        tolerance: Relative tolerance of the error.
        seed: Seed of the random start.

    Returns:
        The spectral norm, its error with a bound of rounding, and the number of Lanczos steps.

    Raises:
        NoConvergenceError: the error did not reach the tolerance.
    """
    if frobenius == 0:
        return SpectralNorm(0.0, 0.0, 0)
    bound = SAFE[computing_type(blocks)]
    if not 1 / bound < frobenius < bound:
        largest = _largest(blocks)
        wide = [block.double() / largest for block in blocks]
        scaled = spectral_norm(wide, frobenius_norm(wide), tolerance, seed).times(largest)
        return scaled._replace(value=min(scaled.value, frobenius))
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    rounding = float(np.finfo(np.float64).eps) * (rows + columns)
    if min(rows, columns) <= SHORT_SIDE:
        value = math.sqrt(float(torch.linalg.eigvalsh(_gram(blocks))[-1]))
        return SpectralNorm(min(value, frobenius), rounding * value, 0)
    if len(blocks) == 1 and blocks[0].stride(1) != 1:
        blocks = [blocks[0].T]  # Wᵀ has the same norm, and its rows are contiguous
    blocks = [block if block.stride(1) == 1 else block.contiguous() for block in blocks]
    vectors, steps = lanczos(blocks, frobenius, tolerance / 2, seed)
    for attempt in range(REFINEMENTS + 1):
        value, error, vectors = _refine(blocks, vectors)
        if error <= tolerance:
            return SpectralNorm(min(value, frobenius), (error + rounding) * value, steps)
        if attempt == REFINEMENTS - 1:
            vectors = _arpack(blocks, vectors[0], tolerance)[None]
    raise NoConvergenceError(
        f"a spectral norm is found to {error:.1e} alone, and not to the tolerance {tolerance:g};"
        " give a larger one"
    )


def _gram(blocks: Blocks) -> Tensor:
    """WᵀW or WWᵀ, whichever is smaller, in float64."""
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    if rows <= columns:
        blocks = [torch.cat(list(blocks)).T]
    gram = blocks[0].new_zeros((min(rows, columns),) * 2, dtype=torch.float64)
    for block in blocks:
        for part in in_cache(block, torch.float64):
            wide = part.double()
            gram += wide.T @ wide
    return gram


def _refine(blocks: Blocks, vectors: Tensor) -> tuple[float, float, Tensor]:
    """σ of the leading Ritz vector, a bound of its relative error, and vectors that are nearer.

    Args:
        blocks: W as blocks of rows.
        vectors: Vectors (number, columns), which need not be orthonormal.
    """
    basis = torch.linalg.qr(vectors.T)[0].T
    product = product_of(blocks, basis)
    values, weights = torch.linalg.eigh(basis @ product.T)
    turn = weights.flip(1).T
    values, basis, product = values.flip(0), turn @ basis, turn @ product
    residuals = (product - values[:, None] * basis).norm(dim=1)
    return math.sqrt(values[0]), error_bound(values.tolist(), residuals.tolist()), product


def _arpack(blocks: Blocks, start: Tensor, tolerance: float) -> Tensor:
    """The leading eigenvector of WᵀW, in float64; where ARPACK does not converge, the start."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    def squared(vector: np.ndarray) -> np.ndarray:
        return product_of(blocks, start.new_tensor(vector.reshape(1, -1)))[0].numpy(force=True)

    operator = LinearOperator((len(start),) * 2, matvec=squared, dtype=np.float64)
    try:
        _, vectors = eigsh(operator, 1, v0=start.numpy(force=True), tol=tolerance / 4, maxiter=MOST_RESTARTS)
    except ArpackNoConvergence:
        return start
    return start.new_tensor(vectors[:, 0])


def singular_values(blocks: Blocks) -> np.ndarray:
    """All singular values of W, (min(rows, columns)), in descending order, computed in float64."""
    return torch.linalg.svdvals(torch.cat(list(blocks)).double()).numpy(force=True)


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
