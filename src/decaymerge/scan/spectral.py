"""Norms of one matrix: Frobenius norm in float64, spectral norm by Golub-Kahan-Lanczos bidiagonalisation.

A matrix is a list of blocks of rows, so that Q, K and V in memory are also QKV without a copy.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Blocks = Sequence[Tensor]
"""Matrices (rows_b, columns) that stand on top of each other."""

CHUNK = 65_536
"""Entries that are converted to float64 at a time."""
CHECK_EVERY = 3
"""Lanczos steps between two looks at the residual."""
RANDOM_PART = 0.2
"""Length of what is random in a start vector beside a guess of length 1."""


class NotFiniteError(Exception):
    """The matrix holds an infinity or a NaN."""


class SpectralNorm(NamedTuple):
    """Largest singular value, the residual that bounds its distance to a singular value, its right vector."""

    value: float
    residual: float
    right: Tensor
    steps: int


def frobenius_norm(blocks: Blocks) -> float:
    """‖W‖_F accumulated in float64.

    Raises:
        NotFiniteError: an entry is infinite or NaN.
    """
    total = 0.0
    for block in blocks:
        for chunk in storage_order(block).split(CHUNK):
            wide = chunk.double()
            total += float(torch.dot(wide, wide))
    if not math.isfinite(total):
        raise NotFiniteError
    return math.sqrt(total)


def storage_order(matrix: Tensor) -> Tensor:
    """All entries in one dimension, without a copy where they lie together in memory."""
    return (matrix if matrix.is_contiguous() else matrix.mT).reshape(-1)


@torch.inference_mode()
def spectral_norm(
    blocks: Blocks, tolerance: float = 1e-6, guess: Tensor | None = None, seed: int = 0
) -> SpectralNorm:
    """‖W‖_2 by Golub-Kahan-Lanczos with reorthogonalised right vectors (Simon and Zha 2000).

    Stops when ‖Wᵀu - σv‖ ≤ ``tolerance`` · σ for the leading Ritz triple (σ, u, v). That bounds the distance of σ
    to a singular value; the random part of the start vector makes it the largest one. The usual estimate by the
    residual's square over the gap would stop sooner, but between close singular values it is wrong.

    Args:
        blocks: W as blocks of rows, all float32 or all float64; the arithmetic is in this precision, which for
            float32 allows a tolerance down to about 1e-6.
        tolerance: Relative tolerance.
        guess: A right vector of unit length to start near, such as that of the same role one layer before.
        seed: Of the random part of the start vector.
    """
    rows, columns = sum(map(len, blocks)), blocks[0].shape[1]
    dtype, limit = blocks[0].dtype, min(rows + 1, columns)
    random = torch.randn(columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = random / _length(random)
    if guess is not None and len(guess) == columns:
        start = guess.double() + RANDOM_PART * start
    right = (start / _length(start)).to(dtype)
    basis = torch.empty(min(limit, 32), columns, dtype=dtype)
    left, beta = torch.zeros(rows, dtype=dtype), 0.0
    alphas: list[float] = []
    betas: list[float] = []
    negligible = 0.0
    for k in range(limit):
        if k == len(basis):
            basis = torch.cat([basis, torch.empty_like(basis)])
        basis[k] = right
        known = basis[: k + 1]
        left = _times(blocks, right).sub_(left, alpha=beta)  # α_k u_k = W v_k - β_{k-1} u_{k-1}
        alphas.append(alpha := _length(left))
        negligible = max(negligible, alpha * torch.finfo(dtype).eps)
        if alpha <= negligible or k == rows:  # the Krylov space is exhausted, or W = 0
            return _leading([*alphas[:-1], 0.0], betas, 0.0).of(known)
        left /= alpha
        right = _transposed_times(blocks, left).sub_(right, alpha=alpha)  # β_k v_{k+1} = Wᵀu_k - α_k v_k
        right.addmv_(known.mT, torch.mv(known, right), alpha=-1)
        beta = _length(right)
        last = beta <= negligible or k + 1 == limit
        if last or (k > CHECK_EVERY and k % CHECK_EVERY == CHECK_EVERY - 1):
            found = _leading(alphas, betas, beta)
            if last or found.residual <= tolerance * found.value:
                return found.of(known)
        betas.append(beta)
        right /= beta
    raise AssertionError("unreachable: the last step returns")


def _length(vector: Tensor) -> float:
    return math.sqrt(float(torch.dot(vector, vector)))


def _times(blocks: Blocks, vector: Tensor) -> Tensor:
    return (
        torch.cat([torch.mv(block, vector) for block in blocks])
        if len(blocks) > 1
        else torch.mv(blocks[0], vector)
    )


def _transposed_times(blocks: Blocks, vector: Tensor) -> Tensor:
    if len(blocks) == 1:
        return torch.mv(blocks[0].mT, vector)
    parts = vector.split([len(block) for block in blocks])
    product = torch.mv(blocks[0].mT, parts[0])
    for block, part in zip(blocks[1:], parts[1:], strict=True):
        product.addmv_(block.mT, part)
    return product


class _Ritz(NamedTuple):
    """Leading Ritz triple in coordinates of the Lanczos basis."""

    value: float
    residual: float
    coordinates: np.ndarray

    def of(self, basis: Tensor) -> SpectralNorm:
        right = torch.from_numpy(self.coordinates).to(basis.dtype) @ basis
        return SpectralNorm(self.value, self.residual, right, len(basis))


def _leading(alphas: list[float], betas: list[float], beta: float) -> _Ritz:
    """Leading Ritz triple of the bidiagonal matrix; its residual is β_k |p_k|."""
    left, values, right = np.linalg.svd(np.diag(alphas) + np.diag(betas, 1))
    return _Ritz(float(values[0]), beta * abs(float(left[-1, 0])), right[0])


def singular_values(blocks: Blocks) -> np.ndarray:
    """All singular values, descending, in float64."""
    return torch.linalg.svdvals(torch.cat(list(blocks)).double()).numpy()


def effective_rank(values: np.ndarray) -> float:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007); NaN for W = 0."""
    total = values.sum()
    if total == 0:
        return math.nan
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
