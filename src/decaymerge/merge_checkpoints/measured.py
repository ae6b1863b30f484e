"""What is measured on inputs of the tasks: the effect of the others by matrix, on outputs, and on the accuracy."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import store
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_checkpoints.matrices import matrices_of
from decaymerge.merge_checkpoints.output_change import output_changes
from decaymerge.merge_checkpoints.with_inputs import Followed, Follower

LONG_NAMES = {
    "action_on_inputs": "‖C H‖_F / ‖W H‖_F on the inputs: what the others add to a matrix, over the matrix",
    "output_change": "mean norm of the change of the output by what the others add to this matrix, to first order",
}


def measured(sources: Sources, follower: Follower, followed: Followed) -> xr.Dataset:
    """The variables of ``LONG_NAMES`` ``(matrix, model)``, with role and layer of each matrix.

    Args:
        sources: The checkpoints.
        follower: Own and merged networks on the inputs.
        followed: What they gave.
    """
    known = {matrix.name: matrix for matrix in matrices_of(sources.first)}
    actions = {(change.matrix, change.model): change.action for change in followed.changes}
    names = list(dict.fromkeys(change.matrix for change in followed.changes))
    changes: dict[tuple[str, str], float] = {}
    for model, batch in follower.batches.items():
        by_module = output_changes(
            follower.fresh_model(),
            batch,
            lambda module, model=model: follower.own_parameters(model, module),  # type: ignore[misc]
            lambda module, model=model: follower.others(model, module),  # type: ignore[misc]
        )
        for module, change in by_module.items():
            changes[follower.stored(module, "weight"), model] = float(change.norm(dim=1).mean())
    shape = ("matrix", "model")
    values = {
        "action_on_inputs": [[actions[name, model] for model in follower.batches] for name in names],
        "output_change": [[changes.get((name, model), 0.0) for model in follower.batches] for name in names],
    }
    dataset = xr.Dataset(
        {key: (shape, np.array(rows)) for key, rows in values.items()},
        {
            "matrix": names,
            "model": list(follower.batches),
            "role": ("matrix", [known[name].role if name in known else "other" for name in names]),
            "layer_name": ("matrix", [known[name].layer if name in known else "" for name in names]),
        },
    )
    return store.describe(dataset, LONG_NAMES)


def lines(followed: Followed, labels: Mapping[str, Tensor]) -> list[str]:
    """What the merge changes on the inputs of each model, a line each.

    Args:
        followed: Outputs of own and merged networks.
        labels: Labels of the inputs by model, or none.
    """
    result = []
    for model, own in followed.own.items():
        merged = followed.merged[model]
        size, change = (float(values.norm(dim=1).mean()) for values in (own, merged - own))
        line = f"outputs on the inputs of {model}: mean norm {size:.3g}, changed by {change:.3g}"
        if model in labels:
            shares = [accuracy(outputs, labels[model]) for outputs in (own, merged)]
            line += f"; accuracy {shares[0]:.3f} before, {shares[1]:.3f} after"
        result.append(line)
    return result


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of the inputs whose class the outputs (sample, class) give; a single output is positive for class 1."""
    predicted = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
    return float((predicted == labels).float().mean())


def mismatch(followed: Followed) -> float:
    """Mean over models of the mean squared change of their outputs by the merge."""
    return float(
        torch.stack(
            [(followed.merged[model] - own).square().sum(1).mean() for model, own in followed.own.items()]
        ).mean()
    )
