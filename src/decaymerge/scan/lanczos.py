"""Leading right singular vector of a matrix by block Lanczos, and a bound of the error of its singular value."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from decaymerge.scan.products import VECTORS, Blocks, computing_type, product_of

MOST_VECTORS = 300
"""Of a basis, which bounds its memory. A matrix whose singular values have no gap takes about 150."""
STALLED = 1e-4
"""Relative error below which it falls from check to check, unless rounding keeps it up."""
EXHAUSTED = 1e-3
"""Share of the longest new vector below which another one is not orthogonal to the basis to rounding."""
RESOLVED = 5
"""Number of residuals between two Ritz values that are told apart."""
FIRST_CHECK = 3
"""Number of steps before the error is bounded for the first time. Later this is done where it is expected to be
small."""


def error_bound(values: Sequence[float], residuals: Sequence[float]) -> float:
    """Bound of the relative error of σ = √θ, at least twice over, where θ is the largest Ritz value of WᵀW.

    WᵀW has an eigenvalue within the residual of θ. It is the largest, unless several are as near; then the largest
    may be a little further away: four residuals are allowed for. With the quadratic bound, it is at most the sum of
    the squared residuals of the p leading pairs, over their distance from the next value, above θ (Mathias 1998;
    p = 1: Temple 1928, Kato 1949). They are told apart from the next where all residuals are far smaller than the
    distance: of a cluster of more eigenvalues than there are vectors, some are overlooked, and the residuals are as
    large as it is. The error of σ is half of that of θ.

    Args:
        values: The leading Ritz values, in descending order.
        residuals: ‖WᵀWv - θv‖ of their vectors.
    """
    bound, first = 2 * residuals[0], values[0]
    for p in range(1, len(values)):
        gap = first - values[p]
        if RESOLVED * max(residuals[: p + 1]) < gap:
            bound = min(bound, sum(residual**2 for residual in residuals[:p]) / gap)
    return bound / first


def lanczos(blocks: Blocks, frobenius: float, tolerance: float, seed: int) -> tuple[Tensor, int]:
    """Leading eigenvectors of WᵀW by block Lanczos (Golub and Underwood 1977), and the steps.

    Each step adds the products of the last block to an orthonormal basis, whose vectors are rows. They are
    reorthogonalised, which costs little for so few: the projection of WᵀW is exact to rounding, also where values
    are repeated or the rank is small. To start at the vector of the layer before was tried, and fails where
    singular values are close.

    Args:
        blocks: W (rows, columns) in blocks of rows.
        frobenius: ‖W‖_F. W is divided by it, so that no square overflows.
        tolerance: Relative tolerance of the error of σ.
        seed: Seed of the random start.

    Returns:
        Orthonormal vectors (VECTORS, columns) in float64, the leading one first, and the number of steps. The error
        of the first is above the tolerance where rounding or the size of the basis ended the steps; the others are
        less exact.
    """
    columns = blocks[0].shape[1]
    device, dtype = blocks[0].device, computing_type(blocks)
    if device.type != "cpu":
        blocks = [block.to(dtype) for block in blocks]
    block = _start(columns, seed).to(device, dtype)
    basis = block.new_empty(min(MOST_VECTORS, columns), columns)
    projected: list[Tensor] = []
    size, next_check, previous = 0, FIRST_CHECK, (1, 1.0)
    while True:
        basis[size : size + len(block)] = block
        size += len(block)
        known, product = basis[:size], product_of(blocks, block / frobenius) / frobenius
        coefficients = product @ known.T
        projected.append(coefficients)
        product.addmm_(coefficients, known, alpha=-1)
        product.addmm_(product @ known.T, known, alpha=-1)
        new, triangle = torch.linalg.qr(product.T)
        steps, is_full = len(projected), size == len(basis)
        if is_full or steps >= next_check:
            weights, error = _leading(projected, triangle)
            has_stalled = previous[1] <= error <= STALLED  # rounding: the check in float64 goes on
            if error <= tolerance or has_stalled or is_full:
                return torch.linalg.qr((weights @ known.double()).T)[0].T, steps
            next_check, previous = steps + _steps_to(tolerance, previous, (steps, error)), (steps, error)
        shortest, *_, longest = sorted(map(abs, triangle.diagonal().tolist()))
        if shortest <= EXHAUSTED * longest:  # arbitrary, and not orthogonal to the others
            new, _ = torch.linalg.qr(new - known.T @ (known @ new))
        block = new.T[: len(basis) - size]


@cache
def _start(columns: int, seed: int) -> Tensor:
    """Random orthonormal start vectors, as rows (VECTORS, columns)."""
    random = torch.from_numpy(np.random.default_rng(seed).standard_normal((columns, VECTORS)))
    return torch.linalg.qr(random)[0].T


def _leading(projected: list[Tensor], triangle: Tensor) -> tuple[Tensor, float]:
    """The leading Ritz vectors (VECTORS, basis), and a bound of the error of the first one's value.

    Args:
        projected: Rows of the projection of WᵀW, for each step a block (its vectors, all vectors until then).
        triangle: Triangular factor of the products that the basis does not hold.
    """
    size = projected[-1].shape[1]
    matrix = triangle.new_zeros((size, size), dtype=torch.float64)
    for rows in projected:
        matrix[rows.shape[1] - len(rows) : rows.shape[1], : rows.shape[1]] = rows
    values, vectors = torch.linalg.eigh(matrix)  # of the lower triangle
    leading = vectors[:, -VECTORS:].flip(1)
    residuals = (triangle.double() @ leading[-len(triangle) :]).norm(dim=0)
    return leading.T, error_bound(values[-VECTORS:].flip(0).tolist(), residuals.tolist())


def _steps_to(tolerance: float, previous: tuple[int, float], current: tuple[int, float]) -> int:
    """Number of steps until the next check of the error, from two pairs (step, relative error).

    The error falls ever faster, so the rate between two checks overestimates the steps that remain. A part of them,
    at most 4, is taken before the error is bounded again.
    """
    (k0, r0), (k1, r1) = previous, current
    rate = math.log(r0 / r1) / (k1 - k0)
    return max(1, min(4, k1, int(0.75 * math.log(r1 / tolerance) / rate))) if rate > 0 else 1
