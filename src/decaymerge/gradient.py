"""Gradient of the loss of the homogeneous network in closed form, and how far it is from a stationary point."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from decaymerge.experiments import Network
from decaymerge.network import tiles
from decaymerge.settings import Loss

SLOPES: dict[Loss, Callable[[Tensor], Tensor]] = {"logistic": torch.sigmoid_, "exponential": torch.exp_}
"""-ℓ'(z) from -z, in place."""


class _Tile(NamedTuple):
    """Views of what is read and written for some samples of some members; samples are innermost, layers from 0."""

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
    """``work``, on a GPU as one graph of its kernels: the starts of small ones cost more than they themselves.

    It is run twice, and must always read and write the same memory.
    """
    if device.type != "cuda":
        return work
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):  # what libraries allocate at their first use is not to be captured
        work()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class Gradient:
    """Gradient of L(θ) = mean_i ℓ(y_i f(x_i)) for a batch of members, without autograd.

    It works in tiles (see ``network.TILE``), and allocates nothing after its construction. Weights, inputs and
    labels are read anew in each call: change them in place.

    δ_K = y ℓ'(z)/n and δ_{k-1} = σ'(u_{k-1}) ⊙ W_kᵀ δ_k are the gradients with respect to u_k = W_k h_{k-1}, and
    ∇W_k = Σ_i δ_k h_{k-1}ᵀ. As W_K has one row, δ_{K-1} = W_Kᵀ ⊙ B with B = σ'(u_{K-1}) ⊙ δ_K: only B is formed for
    all samples, and W_K is multiplied to the two products that B goes into. So is the factor -1/n. And since
    u σ'(u) = p σ(u), ∇W_K is found from ∇W_{K-1}: its entry j is 1/p times Σ_l (W_{K-1})_jl (B h_{K-2}ᵀ)_jl.

    Args:
        network: Activation and depth.
        weights: W_k of shape (seed, d_k, d_{k-1}).
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
        loss: ℓ.
        scale: What all that is found is multiplied by, such as -η.
        same_inputs: Whether ``inputs`` stay as they are: W_1 x is faster from a copy with samples innermost.
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
        # All tiles use the same memory.
        self.buffers = [
            [inputs.new_empty(largest * width) for width in widths]
            for widths in (network.hidden, network.hidden * self.powered, [max([*network.hidden, 1])], [1])
        ]
        columns = inputs.mT.contiguous() if same_inputs else inputs.mT
        self.tiles = [self._tile(inputs, columns, labels, *part) for part in parts]
        self._replay = replayable(self._find, inputs.device)

    def _tile(self, inputs: Tensor, columns: Tensor, labels: Tensor, members: slice, samples: slice) -> _Tile:
        sizes = members.stop - members.start, samples.stop - samples.start

        def view(buffer: Tensor, width: int) -> Tensor:
            return buffer[: sizes[0] * width * sizes[1]].view(sizes[0], width, sizes[1])

        hidden = self.network.hidden
        rectified, powers = (list(map(view, buffers, hidden)) for buffers in self.buffers[:2])
        (scratch,), (row,) = self.buffers[2:]
        slope = view(row, 1)
        scratches = [view(scratch, width) for width in hidden] if self.rectifies else rectified
        above = powers or rectified
        return _Tile(
            weights=[weight[members] for weight in self.weights],
            back=[weight[members].mT for weight in self.back],
            labels=labels[members, samples].unsqueeze(1),
            margins=self.margins[members, samples].unsqueeze(1),
            slope=slope,
            activations=[columns[members, :, samples], *above],
            transposed=[inputs[members, samples], *(activation.mT for activation in above)],
            rectified=rectified,
            scratch=[*scratches[:-1], *(slope.expand_as(layer) for layer in rectified[-1:])],
            gradients=[gradient[members] for gradient in self.gradients],
            beta=0 if samples.start == 0 else 1,
            first_delta=None if self.first_delta is None else self.first_delta[members, :, samples],
        )

    def __call__(self) -> list[Tensor]:
        """``scale`` times ∇_k L(θ) for every layer, of the shapes of the weights, valid until the next call."""
        self._replay()
        return self.gradients

    def _find(self) -> None:
        if self.network.hidden:
            torch.mul(self.weights[-1].mT, self.weights[-2], out=self.back[-1])
        for tile in self.tiles:
            self._forward(tile)
            self._backward(tile)
        if self.network.hidden:
            self._multiply_last()

    def _multiply_last(self) -> None:
        """∇W_K from B h_{K-2}ᵀ, which then becomes ∇W_{K-1}, as B becomes δ_{K-1}."""
        last, found = self.weights[-1].mT, self.gradients[-2]
        of_units = torch.mul(self.weights[-2], found, out=self.back[-1])
        torch.sum(of_units, -1, out=self.gradients[-1].squeeze(1))
        if self.powered:
            self.gradients[-1].div_(self.network.power)
        found.mul_(last)
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
        """-n δ_k from the last layer to the first, and what it adds to ∇W_k, but for W_K above another layer."""
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
        """``below`` times σ'(u), from max(u, 0), which it takes the place of: its layer's h is used already."""
        if not self.rectifies:
            return below if below is rectified else rectified.copy_(below)
        if not self.powered:
            return torch.ops.aten.threshold_backward.grad_input(below, rectified, 0, grad_input=rectified)
        # p max(u, 0)^(p-1), which is 0 where u < 0
        return rectified.pow_(self.network.power - 1).mul_(self.network.power).mul_(below)


def descend(weights: Sequence[Tensor], changes: Sequence[Tensor], keep: float) -> None:
    """W_k ← ``keep`` W_k + change_k in place, for as many layers as there are weights."""
    for weight, change in zip(weights, changes, strict=False):
        torch.add(change, weight, alpha=keep, out=weight)


def relative_residual(weights: Sequence[Tensor], gradients: Sequence[Tensor], weight_decay: float) -> Tensor:
    """‖∇L + λθ‖ / (λ‖θ‖) over the given layers, (…, d_k, d_{k-1}) to (…): 0 at a stationary point (Lemma 1).

    Infinite, or not a number, where λ = 0 or θ = 0, where the residual is undefined.
    """
    squares = zip(
        *[
            (g.add(w, alpha=weight_decay).square().sum((-2, -1)), w.square().sum((-2, -1)))
            for w, g in zip(weights, gradients, strict=True)
        ],
        strict=True,
    )
    residual, size = (sum(values).sqrt() for values in squares)
    return residual / (weight_decay * size)
