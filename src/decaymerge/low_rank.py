"""Matrices of low rank as products of two thin ones: what a LoRA adapter adds to a matrix.

Products, sums and multiples stay factored; adding a dense matrix gives a dense one. So merge methods, which are
sums and products of matrices, take them as they take tensors.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class LowRank:
    """The matrix ``left @ right`` of shape (rows, columns).

    Args:
        left: Shape (rows, r).
        right: Shape (r, columns).
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right

    @classmethod
    def zeros(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Self:
        """Rank 0: what an adapter adds to a matrix that it does not name."""
        rows, columns = shape
        return cls(torch.zeros(rows, 0, dtype=dtype), torch.zeros(0, columns, dtype=dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Columns of ``left``, the largest rank that the matrix can have."""
        return self.left.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of both factors."""
        return self.left.dtype

    @property
    def mT(self) -> "LowRank":  # noqa: N802, as of a tensor
        """The transpose."""
        return LowRank(self.right.mT, self.left.mT)

    def to(self, dtype: torch.dtype) -> "LowRank":
        """Both factors in another type."""
        return LowRank(self.left.to(dtype), self.right.to(dtype))

    def dense(self) -> Tensor:
        """The matrix as one tensor."""
        return self.left @ self.right

    def __matmul__(self, other: Tensor) -> "LowRank":
        return LowRank(self.left, self.right @ other)

    def __rmatmul__(self, other: Tensor) -> "LowRank":
        return LowRank(other @ self.left, self.right)

    def __mul__(self, factor: float | Tensor) -> "LowRank":
        """A multiple; a tensor (rows, 1) multiplies each row by a number of its own."""
        return LowRank(self.left * factor, self.right)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "LowRank":
        return LowRank(self.left / divisor, self.right)

    def __neg__(self) -> "LowRank":
        return LowRank(-self.left, self.right)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, LowRank):
            return LowRank(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right]))
        return torch.addmm(other, self.left, self.right)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (rows, s), singular values (s) in falling order, and V (columns, s), with s = min(r, rows, columns)."""
        left, core_left = torch.linalg.qr(self.left)
        right, core_right = torch.linalg.qr(self.right.mT)
        u, values, vh = torch.linalg.svd(core_left @ core_right.mT)
        count = len(values)
        return left @ u[:, :count], values, right @ vh[:count].mT

    def norm(self) -> Tensor:
        """Frobenius norm."""
        _, core_left = torch.linalg.qr(self.left)
        _, core_right = torch.linalg.qr(self.right.mT)
        return (core_left @ core_right.mT).norm()

    def truncated(self, rank: int) -> "LowRank":
        """The nearest matrix of this rank, in both norms (Eckart and Young)."""
        u, values, v = self.svd()
        return LowRank(u[:, :rank] * values[:rank], v[:, :rank].mT)


def dense(matrix: "Tensor | LowRank") -> Tensor:
    """The matrix as a tensor."""
    return matrix.dense() if isinstance(matrix, LowRank) else matrix


def small(matrices: "Sequence[Tensor | LowRank]") -> list[Tensor]:
    """Matrices with the same norms, singular values and angles to each other: small ones if all are of low rank.

    These are multiplied by the transpose of one orthonormal basis of their columns, and by one of their rows.
    """
    factored = [one for one in matrices if isinstance(one, LowRank)]
    if len(factored) < len(matrices):
        return [dense(one) for one in matrices]
    if not any(one.rank for one in factored):
        return [torch.zeros(1, 1, dtype=one.dtype) for one in factored]
    left = torch.linalg.qr(torch.cat([one.left for one in factored], 1))[0]
    right = torch.linalg.qr(torch.cat([one.right.mT for one in factored], 1))[0]
    return [(left.mT @ one.left) @ (one.right @ right) for one in factored]
