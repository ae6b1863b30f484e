"""Stage ``evaluate``: losses, errors, norms and ranks of own and merged networks, at every kept step.

Losses and errors are of the training samples, and of the test samples as well.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import measure, store
from decaymerge.errors import UserError
from decaymerge.evaluate.effective_dimension import effective_dimensions
from decaymerge.evaluate.gap_by_layer import gap_by_layer
from decaymerge.network import outputs
from decaymerge.workflow import layout
from decaymerge.workflow.jobs import EvaluateJob, GatherJob

LONG_NAMES = {
    "loss": "mean training loss",
    "error": "share of training samples with the wrong sign of the output",
    "test_loss": "mean loss on held-out samples",
    "test_error": "share of held-out samples with the wrong sign of the output",
    "margin_error": "share of training samples with y f(x) below the margin",
    "largest_output": "largest |f(x)| over training samples; below 1e-3 the network has collapsed to zero",
    "frobenius_norm": "Frobenius norm of a layer's weight matrix",
    "spectral_norm": "spectral norm of a layer's weight matrix",
    "norm_ratio": "Frobenius norm over spectral norm",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "loss_increment": "part of a layer in the loss of the sum minus the loss of the own network",
    "output_increment": "mean absolute change of the output when an own layer is replaced by the summed one",
    "effective_dimension": "effective dimension of the inputs of a layer in the own network",
    "cross_term": "part of the other networks in a layer's output, over the own part, root mean squares",
}
DIMS = ("seed", "step", "model", "task")


def evaluate(
    job: EvaluateJob,
    data: Sequence[xr.Dataset],
    own: Sequence[xr.Dataset],
    merged: xr.Dataset | None,
    device: torch.device,
) -> xr.Dataset:
    """Losses and errors ``(seed, step, model, task)``, and norms and ranks ``(seed, step, model, task, layer)``.

    Loss and error on test samples are NaN for a task without them. The setting ``gap_by_layer`` adds the variables
    of ``gap_by_layer.gap_by_layer`` along ``task``, and ``effective_dimension`` adds the variable of this name.

    Args:
        job: Merge set, network, loss and margin.
        data: Data of each task of the merge set.
        own: The network trained on each task.
        merged: Merged networks along ``model``, or none.
        device: The device that computes.

    Returns:
        A dataset whose models are ``own`` and those of ``merged``.

    Raises:
        UserError: a task lacks data or a network, or the files differ in seeds, steps or depth.
    """
    _check_files(job, data, own, merged)
    merged_weights = {}
    if merged is not None:
        merged_weights = {
            str(model): _to_device(merged.sel(model=model), device) for model in merged.model.values
        }
    merged_norms = {model: _norms(weights) for model, weights in merged_weights.items()}
    per_task = [
        _evaluate_task(job, task, _to_device(network, device), merged_weights, merged_norms)
        for task, network in zip(data, own, strict=True)
    ]
    evaluation = xr.concat(per_task, xr.Variable("task", job.task_names)).assign_coords(
        seed=own[0].seed.values, step=own[0].step.values, layer=range(1, job.network.depth + 1)
    )
    if job.effective_dimension:
        weights = [_to_device(network, torch.device("cpu")) for network in own]
        inputs = [torch.from_numpy(task.inputs.values) for task in data]
        evaluation["effective_dimension"] = effective_dimensions(job.network, weights, inputs)
    return _with_long_names(evaluation.transpose(*DIMS, ..., "layer"))


def _check_files(
    job: EvaluateJob, data: Sequence[xr.Dataset], own: Sequence[xr.Dataset], merged: xr.Dataset | None
) -> None:
    """Refuse files that do not belong together."""
    if not len(data) == len(own) == len(job.task_names):
        raise UserError(
            f"{len(data)} files of data and {len(own)} of networks were given for the tasks"
            f" {', '.join(job.task_names)}; give one of each for every task"
        )
    networks = [*own, *([merged] if merged is not None else [])]
    files = [*data, *networks]
    if any(not np.array_equal(file.seed, files[0].seed) for file in files):
        raise UserError(
            f"the files of {job.merge_set} hold different seeds: {[file.seed.values.tolist() for file in files]};"
            " give files of the same block"
        )
    if any(not np.array_equal(network.step, own[0].step) for network in networks):
        raise UserError(
            f"the networks of {job.merge_set} were kept at different steps:"
            f" {[network.step.values.tolist() for network in networks]}; train them with the same settings"
        )
    depths = [len(store.weights_of(network)) for network in networks]
    if set(depths) != {job.network.depth}:
        raise UserError(
            f"the networks of {job.merge_set} have {depths} layers, but the settings ask for {job.network.depth}"
        )
    if job.gap_by_layer and (merged is None or "sum" not in merged.model.values):
        raise UserError(
            f"gap_by_layer: true needs the sum of {job.merge_set}, which was not given; merge with the method sum"
        )


def _evaluate_task(
    job: EvaluateJob,
    task: xr.Dataset,
    own: Sequence[Tensor],
    merged: Mapping[str, Sequence[Tensor]],
    merged_norms: Mapping[str, xr.Dataset],
) -> xr.Dataset:
    """Evaluate the own network and every merged one on the data of one task, ``(model, seed, step[, layer])``."""
    inputs, labels = _samples(task, own[0])
    test = _samples(task, own[0], "test_") if "test_inputs" in task else None
    models = {"own": own, **merged}
    losses = [
        _losses(job, weights, inputs, labels).merge(_test_losses(job, weights, test))
        for weights in models.values()
    ]
    norms = [_norms(own), *merged_norms.values()]
    metrics = [loss.merge(norm) for loss, norm in zip(losses, norms, strict=True)]
    evaluation = xr.concat(metrics, xr.Variable("model", list(models)))
    if job.gap_by_layer:
        evaluation = evaluation.merge(gap_by_layer(job, own, merged["sum"], inputs, labels))
    return evaluation


def _samples(task: xr.Dataset, weight: Tensor, prefix: str = "") -> tuple[Tensor, Tensor]:
    """Inputs (seed, sample, d) and labels (seed, sample), in the dtype and on the device of ``weight``."""
    inputs, labels = (
        torch.from_numpy(task[f"{prefix}{name}"].values).to(weight) for name in ("inputs", "labels")
    )
    return inputs, labels


def _losses(job: EvaluateJob, weights: Sequence[Tensor], inputs: Tensor, labels: Tensor) -> xr.Dataset:
    """Losses, errors and largest output of one model on training samples, ``(seed, step)``."""
    margins = labels.unsqueeze(1) * outputs(job.network, weights, inputs)  # (seed, step, sample)
    values = {
        "loss": measure.loss(margins, job.loss),
        "error": measure.error(margins),
        "margin_error": measure.margin_error(margins, job.margin),
        "largest_output": measure.largest_output(margins),
    }
    return _along_steps(values)


def _test_losses(
    job: EvaluateJob, weights: Sequence[Tensor], test: tuple[Tensor, Tensor] | None
) -> xr.Dataset:
    """Loss and error of one model on test samples, ``(seed, step)``; NaN where none are given."""
    if test is None:
        missing = weights[0].new_full(weights[0].shape[:2], torch.nan)
        return _along_steps({"test_loss": missing, "test_error": missing})
    inputs, labels = test
    margins = labels.unsqueeze(1) * outputs(job.network, weights, inputs)  # (seed, step, test sample)
    return _along_steps({"test_loss": measure.loss(margins, job.loss), "test_error": measure.error(margins)})


def _along_steps(values: Mapping[str, Tensor]) -> xr.Dataset:
    return xr.Dataset({name: (("seed", "step"), value.cpu().numpy()) for name, value in values.items()})


def _norms(weights: Sequence[Tensor]) -> xr.Dataset:
    """Norms and ranks of one model, ``(seed, step, layer)``, in float64."""
    frobenius = torch.stack([measure.frobenius_norm(weight) for weight in weights], dim=-1).cpu()
    spectral = torch.stack([measure.spectral_norm(weight) for weight in weights], dim=-1).cpu()
    values = {
        "frobenius_norm": frobenius,
        "spectral_norm": spectral,
        "norm_ratio": measure.norm_ratio(frobenius, spectral),
        "stable_rank": measure.stable_rank(frobenius, spectral),
    }
    return xr.Dataset({name: (("seed", "step", "layer"), value.numpy()) for name, value in values.items()})


def _to_device(network: xr.Dataset, device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(weight).to(device) for weight in store.weights_of(network)]


def _with_long_names(dataset: xr.Dataset) -> xr.Dataset:
    return store.describe(dataset, {name: text for name, text in LONG_NAMES.items() if name in dataset})


def gather(job: GatherJob, results: Path) -> xr.Dataset:
    """All evaluations of one experiment, ``(merge_set, weight_decay, seed, step, model, task[, layer])``.

    The variables of ``gap_by_layer`` have no ``model``, as they are about the sum. Values are NaN for the tasks
    outside a merge set.

    Args:
        job: The experiment, with its merge sets, λ and blocks.
        results: Folder of results.

    Raises:
        UserError: an evaluation is missing or damaged.
    """

    def path(merge_set: str, weight_decay: str, block: str) -> Path:
        wildcards = {"merge_set": merge_set, "weight_decay": weight_decay, "block": block}
        return layout.path(results, layout.EVALUATED, experiment=job.experiment, **wildcards)

    places = product(job.merge_sets, job.weight_decay, job.blocks)
    store.refuse_others(job.made_from, [path(*place) for place in places])

    def concat(parts: list[xr.Dataset], dim: str | xr.Variable) -> xr.Dataset:
        return xr.concat(parts, dim, join="outer", combine_attrs="drop")

    sweep = xr.Variable("weight_decay", [float(value) for value in job.weight_decay])
    per_merge_set = [
        concat(
            [
                concat([store.read(path(merge_set, value, block)) for block in job.blocks], "seed")
                for value in job.weight_decay
            ],
            sweep,
        )
        for merge_set in job.merge_sets
    ]
    gathered = concat(per_merge_set, xr.Variable("merge_set", job.merge_sets))
    return _with_long_names(gathered.transpose("merge_set", "weight_decay", *DIMS, ..., "layer"))
