"""The gap between the sum of networks and one of them, layer by layer (ours).

Network i's layer k becomes W_k + C_k in the sum, with C_k = Σ_{j≠i} W_k^(j): C_k h is the layer's cross term.
Putting one summed layer after the other in the place of the own one leads from the own network to the sum, and
the increments add up to the gap, whatever the activation. There are two orders:

- ``first``: increment k adds C_k where all layers below are the own ones and all above are summed. C_k reads the
  own activations, and what it makes may go on through any network: this is where the signal leaks out.
- ``last``: increment k adds C_k where all layers below are summed and all above are the own ones. C_k may read
  what went through any network, and the own layers read what it makes: this is where the signal comes back.

Of a linear network the sum is f_sum(x) = Σ W_K^(j_K) … W_1^(j_1) x over all (j_1, …, j_K), and increment k is the
sum of those paths whose first, or last, layer of another network is k.
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
    """f(x) of the networks whose first k = 0, …, K layers are of ``below``, and the others of ``above``.

    Args:
        network: Activation and depth.
        below: W_k of shape (seed, step, d_k, d_{k-1}).
        above: The same.
        inputs: Shape (seed, sample, d).

    Returns:
        Shape (K + 1, seed, step, sample).
    """
    depth = len(below)
    return torch.stack([outputs(network, [*below[:k], *above[k:]], inputs) for k in range(depth + 1)])


def gap_by_layer(
    job: EvaluateJob, own: Sequence[Tensor], summed: Sequence[Tensor], inputs: Tensor, labels: Tensor
) -> xr.Dataset:
    """What each layer brings to the gap, on the data of the own network's task.

    ``loss_increment (crossing, layer, seed, step)`` adds up over ``layer`` to the loss of the sum minus the own
    loss, for each ``crossing``; ``output_increment`` is the mean |change of f|. ``cross_term (layer, seed, step)``
    is ‖C_k h_{k-1}‖ / ‖W_k h_{k-1}‖ with the own network's activations h, root mean squares over samples;
    not a number where the own one is 0.

    Args:
        job: Network and loss.
        own: W_k of the own network, shape (seed, step, d_k, d_{k-1}).
        summed: W_k of the sum.
        inputs: Shape (seed, sample, d).
        labels: ±1, shape (seed, sample).
    """
    up, down = mixtures(job.network, summed, own, inputs), mixtures(job.network, own, summed, inputs)
    plain, crossed = torch.stack([down[1:], up[:-1]]), torch.stack([down[:-1], up[1:]])
    signs = labels.unsqueeze(1)
    losses = measure.loss(signs * crossed, job.loss) - measure.loss(signs * plain, job.loss)
    changes = (crossed - plain).abs().mean(-1)
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
    ratios = inputs.new_empty(len(own), *own[0].shape[:2])
    for seed in range(ratios.shape[1]):
        for step in range(ratios.shape[2]):  # all at once would take more memory than the weights
            weights = [weight[seed, step] for weight in own]
            below = [inputs[seed], *activations(network, weights, inputs[seed])]
            for k, (weight, total, hidden) in enumerate(zip(weights, summed, below, strict=True)):
                cross = hidden @ (total[seed, step] - weight).mT
                plain = (hidden @ weight.mT).norm()
                ratios[k, seed, step] = cross.norm() / plain.where(plain > 0, torch.nan)
    return ratios
