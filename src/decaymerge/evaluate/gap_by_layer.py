"""The gap between the sum of networks and one of them, layer by layer (ours).

In the sum, layer k of network i is W_k + C_k with C_k = Σ_{j≠i} W_k^(j). C_k h is the cross term of this layer.
If the layers of the own network are replaced by those of the sum, one after the other, the own network becomes the
sum, and the changes of the loss add up to the gap, for any activation. There are two orders:

- ``first``: increment k adds C_k while all layers below are own ones and all layers above are summed. The inputs of
  C_k are own activations, and its outputs may go on through any network: here the signal leaves the own network.
- ``last``: increment k adds C_k while all layers below are summed and all layers above are own ones. The inputs of
  C_k may come from any network, and its outputs go on through own layers: here the signal comes back.

For linear networks the sum is f_sum(x) = Σ W_K^(j_K) … W_1^(j_1) x over all paths (j_1, …, j_K). Increment k is the
part of the paths whose first layer (order ``first``) or last layer (order ``last``) of another network is layer k.
"""

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from decaymerge import measure
from decaymerge.config.experiment import Network
from decaymerge.network import activations, outputs
from decaymerge.workflow.jobs import EvaluateJob


def mixtures(network: Network, below: Sequence[Tensor], above: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """f(x) of the networks with the first k layers of ``below`` and the others of ``above``, for k = 0, …, K.

    Args:
        network: Activation and depth.
        below: W_k of shape (seed, step, d_k, d_{k-1}).
        above: W_k of the same shapes.
        inputs: Shape (seed, sample, d).

    Returns:
        Shape (K + 1, seed, step, sample).
    """
    depth = len(below)
    return torch.stack([outputs(network, [*below[:k], *above[k:]], inputs) for k in range(depth + 1)])


def gap_by_layer(
    job: EvaluateJob, own: Sequence[Tensor], summed: Sequence[Tensor], inputs: Tensor, labels: Tensor
) -> xr.Dataset:
    """The part of each layer in the gap, on the data of the own network's task.

    Args:
        job: Network and loss.
        own: W_k of the own network, shape (seed, step, d_k, d_{k-1}).
        summed: W_k of the sum, of the same shapes.
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).

    Returns:
        ``loss_increment (crossing, layer, seed, step)``: for each order ``crossing``, its sum over ``layer`` is the
        loss of the sum minus the own loss. ``output_increment``: the mean |change of f|, of the same shape.
        ``cross_term (layer, seed, step)``: ‖C_k h_{k-1}‖ / ‖W_k h_{k-1}‖ with the activations h of the own network,
        both as root mean squares over samples; NaN where the denominator is 0.
    """
    summed_below = mixtures(job.network, summed, own, inputs)
    own_below = mixtures(job.network, own, summed, inputs)
    before = torch.stack(
        [own_below[1:], summed_below[:-1]]
    )  # (crossing, layer, seed, step, sample), without C_k
    after = torch.stack([own_below[:-1], summed_below[1:]])  # the same with C_k
    signs = labels.unsqueeze(1)
    losses = measure.loss(signs * after, job.loss) - measure.loss(signs * before, job.loss)
    changes = (after - before).abs().mean(-1)
    dims = ("crossing", "layer", "seed", "step")
    return xr.Dataset(
        {
            "loss_increment": (dims, losses.cpu().numpy()),
            "output_increment": (dims, changes.cpu().numpy()),
            "cross_term": (dims[1:], _cross_terms(job.network, own, summed, inputs).cpu().numpy()),
        },
        coords={"crossing": ["first", "last"]},
    )


def _cross_terms(network: Network, own: Sequence[Tensor], summed: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """‖C_k h_{k-1}‖ / ‖W_k h_{k-1}‖, (layer, seed, step)."""
    ratios = inputs.new_empty(len(own), *own[0].shape[:2])
    for seed in range(ratios.shape[1]):
        for step in range(ratios.shape[2]):  # all at once would take more memory than the weights
            weights = [weight[seed, step] for weight in own]
            below = [inputs[seed], *activations(network, weights, inputs[seed])]
            for k, (weight, total, hidden) in enumerate(zip(weights, summed, below, strict=True)):
                cross_norm = (hidden @ (total[seed, step] - weight).mT).norm()
                own_norm = (hidden @ weight.mT).norm()
                ratios[k, seed, step] = cross_norm / own_norm.where(own_norm > 0, torch.nan)
    return ratios
