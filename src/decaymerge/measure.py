"""Measurements of networks: losses and errors from margins, norms and ranks from weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from decaymerge.config.numbers import Loss

LOSSES: dict[Loss, Callable[[Tensor], Tensor]] = {
    "logistic": lambda margins: functional.softplus(-margins),
    "exponential": lambda margins: torch.exp(-margins),
}
"""ℓ(z) of each margin z."""


def loss(margins: Tensor, kind: Loss) -> Tensor:
    """Mean of ℓ over samples: (…, sample) to (…)."""
    return LOSSES[kind](margins).mean(-1)


def error(margins: Tensor) -> Tensor:
    """Share of samples with margin y f(x) ≤ 0: (…, sample) to (…). An output of exactly 0 counts as wrong."""
    return (margins <= 0).to(margins.dtype).mean(-1)


def margin_error(margins: Tensor, threshold: float) -> Tensor:
    """Share of samples with margin y f(x) below ``threshold``: (…, sample) to (…)."""
    return (margins < threshold).to(margins.dtype).mean(-1)


def largest_output(margins: Tensor) -> Tensor:
    """max_i |f(x_i)|, the largest modulus of a margin: (…, sample) to (…). It decides on collapse."""
    return margins.abs().amax(-1)


def frobenius_norm(weight: Tensor) -> Tensor:
    """‖W‖_F in float64: (…, out, in) to (…)."""
    return torch.linalg.vector_norm(weight, dim=(-2, -1), dtype=torch.float64)


def spectral_norm(weight: Tensor) -> Tensor:
    """‖W‖_2 in float64: (…, out, in) to (…).

    It is the square root of the largest eigenvalue of the smaller Gram matrix, whose relative error stays at the
    level of rounding. For flat matrices this is many times faster than singular values.
    """
    weight = weight.double()
    gram = weight @ weight.mT if weight.shape[-2] <= weight.shape[-1] else weight.mT @ weight
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt()


def norm_ratio(frobenius: Tensor, spectral: Tensor) -> Tensor:
    """‖W‖_F / ‖W‖_2, which the paper's text calls stable rank; NaN for W = 0."""
    return frobenius / spectral


def stable_rank(frobenius: Tensor, spectral: Tensor) -> Tensor:
    """‖W‖_F² / ‖W‖_2², the stable rank as the field defines it; NaN for W = 0."""
    return norm_ratio(frobenius, spectral).square()
