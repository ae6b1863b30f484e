"""The first layer in coordinates of the span of its inputs.

Every gradient of W_1 is a combination of inputs, so outside their span W_1 only decays: with orthonormal rows Q
that span the inputs, W_1(t) = V(t) Q + decay(t) (W_1(0) - V(0) Q), and V is trained on the inputs X Qᵀ of
dimension rank(X) instead of d. The trajectory is the same, to rounding.
"""

import torch
from torch import Tensor


class InputSpan:
    """Orthonormal basis of the inputs of each seed, and the part of a first layer outside their span.

    Args:
        inputs: Shape (seed, sample, d), float64.
        first_layer: W_1(0), shape (seed, d_1, d), float64.
        full_space: Use all d coordinates even if the inputs span fewer.
        basis: Q of an interrupted run that is continued. The rounding of another machine may give another basis, in
            which the weights that were kept would mean something else.

    Attributes:
        basis: Q, shape (seed, rank, d).
        is_full: Whether Q spans all d coordinates.
        inputs: X Qᵀ, shape (seed, sample, rank).
        coordinates: V(0), shape (seed, d_1, rank).
        outside: W_1(0) - V(0) Q, shape (seed, d_1, d).
    """

    def __init__(
        self, inputs: Tensor, first_layer: Tensor, *, full_space: bool = False, basis: Tensor | None = None
    ) -> None:
        if basis is None:
            basis = _full_space(inputs) if full_space else _basis(inputs)
        self.basis = basis
        self.is_full = basis.shape[1] == basis.shape[2]
        self.inputs = inputs @ self.basis.mT
        self.coordinates = first_layer @ self.basis.mT
        self.outside = first_layer - self.coordinates @ self.basis


def _basis(inputs: Tensor) -> Tensor:
    _, values, rows = torch.linalg.svd(inputs, full_matrices=False)
    tolerance = max(inputs.shape[1:]) * torch.finfo(inputs.dtype).eps
    rank = int((values > tolerance * values[:, :1]).sum(-1).max())
    return rows[:, :rank].contiguous() if rank < inputs.shape[-1] else _full_space(inputs)


def _full_space(inputs: Tensor) -> Tensor:
    dim = inputs.shape[-1]
    return torch.eye(dim, dtype=inputs.dtype, device=inputs.device).expand(len(inputs), dim, dim)
