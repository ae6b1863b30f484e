"""Stage ``merge``: one network from several, layer by layer from the first to the last."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import store
from decaymerge.config.experiment import Network
from decaymerge.config.merging import MergeSettings, merge_name, method_of
from decaymerge.errors import UserError
from decaymerge.low_rank import LowRank
from decaymerge.merge_methods import MERGE_METHODS
from decaymerge.network import activate
from decaymerge.workflow.jobs import MergeJob


def merge(job: MergeJob, networks: Sequence[xr.Dataset], data: Sequence[xr.Dataset] = ()) -> xr.Dataset:
    """Merged weights ``W1 … WK (model, seed, step, out_k, in_k)``, one ``model`` for each method.

    Args:
        job: Methods, and the network's form.
        networks: Own networks, one for each task.
        data: Data of each task, for methods that ask for a layer's inputs.

    Raises:
        UserError: the networks were kept for different seeds or steps, or data are missing.
    """
    first = networks[0]
    for network in networks[1:]:
        for dim in ("seed", "step"):
            if not np.array_equal(network[dim], first[dim]):
                raise UserError(
                    f"networks of different {dim}s do not merge: {first[dim].values.tolist()} and"
                    f" {network[dim].values.tolist()}"
                )
    weights = [[torch.from_numpy(weight) for weight in store.weights_of(network)] for network in networks]
    inputs = [torch.from_numpy(task.inputs.values) for task in data]
    merged = [_merged_by(job, merging, weights, inputs) for merging in job.methods]
    variables = {
        f"W{k}": (("model", "seed", "step", f"out_{k}", f"in_{k}"), torch.stack(layers).numpy())
        for k, layers in enumerate(zip(*merged, strict=True), start=1)
    }
    names = [merge_name(merging) for merging in job.methods]
    dataset = xr.Dataset(variables, {"model": names, "seed": first.seed, "step": first.step})
    return store.describe(dataset, {name: f"merged weight matrix of layer {name[1:]}" for name in variables})


def _merged_by(
    job: MergeJob, merging: MergeSettings, weights: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Merged W_k (seed, step, d_k, d_{k-1}); a fixed outer layer is the same in all networks and is kept.

    Methods that look at inputs compute in float64. Of networks that have diverged, NaN is merged.
    """
    layers = list(zip(*weights, strict=True))
    trained = job.network.trained_layers
    fixed = [layer[0] for layer in layers[trained:]]
    needs = MERGE_METHODS[method_of(merging)[0]].needs
    if not needs:
        return [
            apply(merging, layer, names=job.task_names, role=f"W{k}")
            for k, layer in enumerate(layers[:trained], start=1)
        ] + fixed
    if not inputs and needs & {"own_inputs", "merged_inputs"}:
        raise UserError(f"merge: {merge_name(merging)} needs the tasks' data; give them with --tasks")
    merged = [torch.empty_like(layer[0]) for layer in layers[:trained]]
    for seed, step in np.ndindex(*layers[0][0].shape[:2]):  # all at once would take too much memory
        own = [[layer[seed, step].double() for layer in network[:trained]] for network in weights]
        if not all(layer.isfinite().all() for network in own for layer in network):
            for layer in merged:
                layer[seed, step] = torch.nan
            continue
        matrices = merged_layers(job.network, merging, own, [samples[seed] for samples in inputs])
        for layer, matrix in zip(merged, matrices, strict=True):
            layer[seed, step] = matrix
    return merged + fixed


def merged_layers(
    network: Network, merging: MergeSettings, own: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Merged W_k (d_k, d_{k-1}) by a method that may ask for the inputs of each layer.

    Args:
        network: Activation.
        merging: Method and parameters.
        own: W_k of each task's network, from the first layer to the last that is merged.
        inputs: Inputs (sample, d) of each task, in the dtype of the weights.
    """
    merged = []
    own_inputs = merged_inputs = list(inputs)
    for number, layer in enumerate(zip(*own, strict=True), start=1):
        available = {"layer": number, "own_inputs": own_inputs, "merged_inputs": merged_inputs}
        matrix = apply(merging, layer, **available)
        merged.append(matrix)
        own_inputs = [activate(network, h @ weight.mT) for h, weight in zip(own_inputs, layer, strict=True)]
        merged_inputs = [activate(network, h @ matrix.mT) for h in merged_inputs]
    return merged


def apply(merging: MergeSettings, weights: Sequence[Tensor | LowRank], **available: object) -> Any:
    """One layer's matrix from those of several networks; in factors if theirs are, and if the method allows it.

    Args:
        merging: Method and parameters.
        weights: Shape (…, out, in), one for each network.
        available: What a method may ask for, by name (see ``merge_methods.REQUESTS``).

    Raises:
        UserError: the method asks for something that is not available.
    """
    name, parameters = method_of(merging)
    method = MERGE_METHODS[name]
    if missing := method.needs - available.keys():
        raise UserError(f"merge method {name} needs {' and '.join(sorted(missing))}, not available here")
    given = method.needs | (method.uses & available.keys())
    return method.function(weights, **{key: available[key] for key in given}, **parameters)
