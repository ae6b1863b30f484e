"""Gradient of the loss of the homogeneous network in closed form, and the distance from a stationary point."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from decaymerge.config.experiment import Network
from decaymerge.config.numbers import Loss
from decaymerge.network import tiles

SLOPES: dict[Loss, Callable[[Tensor], Tensor]] = {"logistic": torch.sigmoid_, "exponential": torch.exp_}
"""-ℓ'(z) from -z, in place."""


class _Tile(NamedTuple):
    """Views of the tensors that are read and written for some samples of some seeds; samples are innermost."""

    weights: list[Tensor]  # W_k
    back: list[Tensor]  # W_kᵀ, with w_Kᵀ ⊙ W_{K-1} for W_{K-1}
    labels: Tensor  # (seed, 1, sample)
    margins: Tensor
    slope: Tensor  # -y ℓ'(z)
    activations: list[Tensor]  # h_0 = x, h_1, …, (seed, d_k, sample)
    transposed: list[Tensor]  # h_0ᵀ, h_1ᵀ, …
    rectified: list[Tensor]  # max(u_k, 0) of the hidden layers, and then their δ_k
    scratch: list[Tensor]  # W_{k+1}ᵀ δ_{k+1}; above the last of them, δ_K for each unit
    gradients: list[Tensor]
    beta: int  # 0 for the first samples of their members, to which others are added
    first_delta: Tensor | None


def replayable(work: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """``work`` itself; on a GPU one graph of its kernels, since starting small kernels takes longer than running
    them.

    ``work`` is run twice here, and must always read and write the same memory.
    """
    if device.type != "cuda":
        return work
    warmup_stream = torch.cuda.Stream(device)
    warmup_stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(warmup_stream):  # allocations of a library's first use must not be captured
        work()
    torch.cuda.current_stream(device).wait_stream(warmup_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Gradient:
    """Gradient of L(θ) = mean_i ℓ(y_i f(x_i)) for the networks of several seeds, without autograd.

    It works in tiles (see ``network.TILE``), and allocates nothing after its construction. Each call reads weights,
    inputs and labels again: change them in place.

    δ_K = y ℓ'(z)/n and δ_{k-1} = σ'(u_{k-1}) ⊙ W_kᵀ δ_k are the gradients with respect to u_k = W_k h_{k-1}, and
    ∇W_k = Σ_i δ_k h_{k-1}ᵀ. As W_K has one row, δ_{K-1} = W_Kᵀ ⊙ B with B = σ'(u_{K-1}) ⊙ δ_K: only B is formed for
    all samples, and the two products that contain B are multiplied by W_K, and by the factor -1/n. Since
    u σ'(u) = p σ(u), ∇W_K follows from ∇W_{K-1}: its entry j is 1/p times Σ_l (W_{K-1})_jl (B h_{K-2}ᵀ)_jl.

    Args:
        network: Activation and depth.
        weights: W_k of shape (seed, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        loss: ℓ.
        scale: Factor of the gradient, such as -η.
        same_inputs: Whether ``inputs`` never change: then W_1 x is computed from a faster copy, samples innermost.
        first_delta: Whether to keep ``first_delta``.

    Attributes:
        margins: z_i = y_i f(x_i), shape (seed, sample), of the last call or ``forward``.
        first_delta: δ_1 of each sample, shape (seed, d_1, sample), of the last call, or none.
    """

    def __init__(
        self,
        network: Network,
        weights: Sequence[Tensor],
        inputs: Tensor,
        labels: Tensor,
        loss: Loss,
        *,
        scale: float = 1.0,
        same_inputs: bool = False,
        first_delta: bool = False,
    ) -> None:
        self.network, self.weights, self.slope_of = network, list(weights), SLOPES[loss]
        self.rectifies, self.powered = network.activation == "relu", network.power != 1
        members, samples, _ = inputs.shape
        self.alpha = -scale / samples
        self.margins = torch.empty_like(labels)
        self.gradients = [torch.empty_like(weight) for weight in weights]
        self.first_delta = inputs.new_empty(members, weights[0].shape[1], samples) if first_delta else None
        # The hidden layers that another lies above: of the last one, the product with W_K.
        self.back = [*weights[:-2], *(torch.empty_like(weight) for weight in weights[-2:-1])]
        parts = tiles(members, samples, max([*network.hidden, 1]), inputs)
        largest = parts[0][0].stop * parts[0][1].stop

        def buffer(width: int) -> Tensor:
            return inputs.new_empty(largest * width)

        # All tiles use the same memory.
        self.rectified = [buffer(width) for width in network.hidden]
        self.powers = [buffer(width) for width in network.hidden] if self.powered else []
        self.scratch, self.slope = buffer(max([*network.hidden, 1])), buffer(1)
        columns = inputs.mT.contiguous() if same_inputs else inputs.mT
        self.tiles = [self._tile(inputs, columns, labels, *part) for part in parts]
        self._replay = replayable(self._compute, inputs.device)

    def _tile(self, inputs: Tensor, columns: Tensor, labels: Tensor, members: slice, samples: slice) -> _Tile:
        sizes = members.stop - members.start, samples.stop - samples.start

        def view(buffer: Tensor, width: int) -> Tensor:
            return buffer[: sizes[0] * width * sizes[1]].view(sizes[0], width, sizes[1])

        hidden = self.network.hidden
        rectified = list(map(view, self.rectified, hidden))
        above = list(map(view, self.powers, hidden)) if self.powered else rectified
        slope = view(self.slope, 1)
        scratch = [view(self.scratch, width) for width in hidden] if self.rectifies else list(rectified)
        if hidden:
            scratch[-1] = slope.expand_as(rectified[-1])
        return _Tile(
            weights=[weight[members] for weight in self.weights],
            back=[weight[members].mT for weight in self.back],
            labels=labels[members, samples].unsqueeze(1),
            margins=self.margins[members, samples].unsqueeze(1),
            slope=slope,
            activations=[columns[members, :, samples], *above],
            transposed=[inputs[members, samples], *(activation.mT for activation in above)],
            rectified=rectified,
            scratch=scratch,
            gradients=[gradient[members] for gradient in self.gradients],
            beta=0 if samples.start == 0 else 1,
            first_delta=None if self.first_delta is None else self.first_delta[members, :, samples],
        )

    def __call__(self) -> list[Tensor]:
        """``scale`` times ∇_k L(θ) for every layer, of the shapes of the weights, valid until the next call."""
        self._replay()
        return self.gradients

    def _compute(self) -> None:
        if self.network.hidden:
            torch.mul(self.weights[-1].mT, self.weights[-2], out=self.back[-1])
        for tile in self.tiles:
            self._forward(tile)
            self._backward(tile)
        if self.network.hidden:
            self._multiply_last()

    def _multiply_last(self) -> None:
        """∇W_K from B h_{K-2}ᵀ, which then becomes ∇W_{K-1}, as B becomes δ_{K-1}."""
        last, below = self.weights[-1].mT, self.gradients[-2]
        per_unit = torch.mul(self.weights[-2], below, out=self.back[-1])
        torch.sum(per_unit, -1, out=self.gradients[-1].squeeze(1))
        if self.powered:
            self.gradients[-1].div_(self.network.power)
        below.mul_(last)
        if self.first_delta is not None and len(self.weights) == 2:
            self.first_delta.mul_(last)

    def forward(self) -> Tensor:
        """The margins alone."""
        for tile in self.tiles:
            self._forward(tile)
        return self.margins

    def _forward(self, tile: _Tile) -> None:
        """h_k = σ(W_k h_{k-1}), and z."""
        for k, rectified in enumerate(tile.rectified):
            torch.bmm(tile.weights[k], tile.activations[k], out=rectified)
            if self.rectifies:
                rectified.clamp_min_(0)
                if self.powered:
                    torch.pow(rectified, self.network.power, out=tile.activations[k + 1])
        torch.bmm(tile.weights[-1], tile.activations[-1], out=tile.margins)
        tile.margins.mul_(tile.labels)

    def _backward(self, tile: _Tile) -> None:
        """-n δ_k from the last layer to the first, added to ∇W_k; ``_multiply_last`` finds that of W_K."""
        torch.neg(tile.margins, out=tile.slope)
        delta = self.slope_of(tile.slope).mul_(tile.labels)
        if not tile.rectified:
            tile.gradients[0].baddbmm_(delta, tile.transposed[0], beta=tile.beta, alpha=self.alpha)
        for k, rectified in reversed(list(enumerate(tile.rectified))):
            below = tile.scratch[k]
            if k + 1 < len(tile.rectified):
                torch.bmm(tile.back[k + 1], delta, out=below)
            delta = self._times_slope(below, rectified)
            tile.gradients[k].baddbmm_(delta, tile.transposed[k], beta=tile.beta, alpha=self.alpha)
        if tile.first_delta is not None:
            torch.mul(delta, self.alpha, out=tile.first_delta)

    def _times_slope(self, below: Tensor, rectified: Tensor) -> Tensor:
        """Overwrite ``rectified`` = max(u, 0) with ``below`` · σ'(u): this layer's h is not needed any more."""
        if not self.rectifies:
            return below if below is rectified else rectified.copy_(below)
        if not self.powered:
            return torch.ops.aten.threshold_backward.grad_input(below, rectified, 0, grad_input=rectified)
        # p max(u, 0)^(p-1), which is 0 where u < 0
        return rectified.pow_(self.network.power - 1).mul_(self.network.power).mul_(below)


def descend(weights: Sequence[Tensor], changes: Sequence[Tensor], shrink: float) -> None:
    """W_k ← ``shrink`` W_k + change_k in place, for as many layers as there are weights."""
    for weight, change in zip(weights, changes, strict=False):
        torch.add(change, weight, alpha=shrink, out=weight)


def relative_residual(weights: Sequence[Tensor], gradients: Sequence[Tensor], weight_decay: float) -> Tensor:
    """‖∇L + λθ‖ / (λ‖θ‖) over the given layers, (…, d_k, d_{k-1}) to (…): 0 at a stationary point (Lemma 1).

    The residual is undefined for λ = 0 or θ = 0: the result is infinite or not a number there.
    """

    def square(tensor: Tensor) -> Tensor:
        return tensor.square().sum((-2, -1))

    layers = list(zip(weights, gradients, strict=True))
    residual = sum(square(gradient.add(weight, alpha=weight_decay)) for weight, gradient in layers)
    size = sum(square(weight) for weight in weights)
    return torch.as_tensor(residual).sqrt() / (weight_decay * torch.as_tensor(size).sqrt())
