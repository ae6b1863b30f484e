"""The first layer in coordinates of the span of its inputs.

Every gradient of W_1 is a combination of inputs, so outside their span W_1 only decays: with orthonormal rows Q
that span the inputs, W_1(t) = V(t) Q + decay(t) (W_1(0) - V(0) Q), and V is trained on the inputs X Qᵀ of
dimension rank(X) instead of d. The same trajectory, to rounding.
"""

import torch
from torch import Tensor


class InputSpan:
    """Orthonormal basis of each member's inputs, and what a first layer has outside of it.

    Args:
        inputs: Shape (seed, sample, d), float64.
        first_layer: W_1(0), shape (seed, d_1, d), float64.
        whole: Take all d coordinates, whatever the inputs span; so it is where they span all.
        basis: Q of a run that is gone on with. Another machine's rounding may give another basis, in which the
            weights that were kept would mean something else.
    """

    def __init__(
        self, inputs: Tensor, first_layer: Tensor, *, whole: bool = False, basis: Tensor | None = None
    ) -> None:
        if basis is None:
            basis = _whole_space(inputs) if whole else _basis(inputs)
        self.basis = basis  # Q, (seed, rank, d)
        self.whole = basis.shape[1] == basis.shape[2]
        self.inputs = inputs @ self.basis.mT  # (seed, sample, rank)
        self.coordinates = first_layer @ self.basis.mT  # V(0), (seed, d_1, rank)
        self.outside = first_layer - self.coordinates @ self.basis


def _basis(inputs: Tensor) -> Tensor:
    _, values, rows = torch.linalg.svd(inputs, full_matrices=False)
    tolerance = max(inputs.shape[1:]) * torch.finfo(inputs.dtype).eps
    rank = int((values > tolerance * values[:, :1]).sum(-1).max())
    return rows[:, :rank].contiguous() if rank < inputs.shape[-1] else _whole_space(inputs)


def _whole_space(inputs: Tensor) -> Tensor:
    dim = inputs.shape[-1]
    return torch.eye(dim, dtype=inputs.dtype, device=inputs.device).expand(len(inputs), dim, dim)
