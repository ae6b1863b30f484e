"""Stage ``evaluate``: own and merged networks on every task, at every kept step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import gap, measure, store
from decaymerge.errors import UserError
from decaymerge.jobs import EvaluateJob, GatherJob
from decaymerge.network import outputs

LONG_NAMES = {
    "loss": "mean training loss",
    "error": "classification error",
    "margin_error": "share of samples with y f(x) below the margin",
    "frobenius_norm": "Frobenius norm",
    "spectral_norm": "spectral norm",
    "norm_ratio": "Frobenius norm over spectral norm",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "loss_increment": "part of the gap between the loss of the sum and of the own network that a layer brings",
    "output_increment": "mean absolute change of the output that a layer brings on the way from own network to sum",
    "cross_term": "what the other networks' layer adds to the own one's output, over that, root mean squares",
}


def evaluate(
    job: EvaluateJob,
    tasks: Sequence[xr.Dataset],
    own: Sequence[xr.Dataset],
    merged: xr.Dataset | None,
    device: torch.device,
) -> xr.Dataset:
    """Losses and errors ``(seed, step, model, task)``, norms and ranks with ``layer`` beside them.

    With ``gap_by_layer`` what ``gap.by_layer`` finds about the sum, beside ``task``.

    Args:
        job: Tasks of the pair, network and margin, and whether to look into the gap.
        tasks: Data of each task of the pair.
        own: The network trained on each task.
        merged: Merged networks along ``model``, or none.
        device: Where to compute.

    Raises:
        UserError: files are missing, or are not of the same seeds, steps and depth.
    """
    if not len(tasks) == len(own) == len(job.tasks):
        raise UserError(
            f"{len(tasks)} data and {len(own)} networks were given for the tasks {', '.join(job.tasks)}"
        )
    files = [*tasks, *own, *([merged] if merged is not None else [])]
    if any(not np.array_equal(file.seed, files[0].seed) for file in files):
        raise UserError(
            f"the files of {job.pair} hold different seeds: {[file.seed.values.tolist() for file in files]}"
        )
    networks_given = files[len(tasks) :]
    if any(not np.array_equal(file.step, own[0].step) for file in networks_given):
        raise UserError(
            f"the networks of {job.pair} were kept at different steps:"
            f" {[file.step.values.tolist() for file in networks_given]}"
        )
    if any(len(store.weights_of(file)) != job.network.depth for file in networks_given):
        raise UserError(
            f"the networks of {job.pair} are not of the {job.network.depth} layers that settings ask for"
        )
    names = [] if merged is None else merged.model.values.tolist()
    networks = {name: _on(device, merged.sel(model=name)) for name in names} if merged is not None else {}
    norms = {name: _norms(weights) for name, weights in networks.items()}
    of_task = []
    for data, network in zip(tasks, own, strict=True):
        weights = _on(device, network)
        inputs = torch.from_numpy(data.inputs.values).to(device, weights[0].dtype)
        labels = torch.from_numpy(data.labels.values).to(device, weights[0].dtype)
        of_model = []
        for name, layers in {"own": weights, **networks}.items():
            margins = labels.unsqueeze(1) * outputs(job.network, layers, inputs)  # (seed, step, sample)
            losses = {
                "loss": measure.loss(margins, job.loss),
                "error": measure.error(margins),
                "margin_error": measure.margin_error(margins, job.margin),
            }
            of_layer = _norms(layers) if name == "own" else norms[name]
            of_model.append(
                xr.Dataset(
                    {key: (("seed", "step"), value.cpu().numpy()) for key, value in losses.items()}
                    | {key: (("seed", "step", "layer"), value) for key, value in of_layer.items()}
                )
            )
        found = xr.concat(of_model, xr.Variable("model", ["own", *names]))
        if job.gap_by_layer:
            if "sum" not in networks:
                raise UserError(f"gap_by_layer: true needs the sum of {job.pair}, which was not given")
            found = found.merge(gap.by_layer(job, weights, networks["sum"], inputs, labels))
        of_task.append(found)
    made = xr.concat(of_task, xr.Variable("task", job.tasks)).assign_coords(
        seed=own[0].seed.values, step=own[0].step.values, layer=range(1, len(job.network.hidden) + 2)
    )
    made = made.transpose("seed", "step", "model", "task", ..., "layer")
    return _described(made)


def _described(dataset: xr.Dataset) -> xr.Dataset:
    return store.describe(dataset, {name: text for name, text in LONG_NAMES.items() if name in dataset})


def _on(device: torch.device, network: xr.Dataset) -> list[Tensor]:
    return [torch.from_numpy(weight).to(device) for weight in store.weights_of(network)]


def _norms(weights: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """Norms and ranks (seed, step, layer) in float64."""
    frobenius = torch.stack([measure.frobenius_norm(weight) for weight in weights], dim=-1).cpu()
    spectral = torch.stack([measure.spectral_norm(weight) for weight in weights], dim=-1).cpu()
    measured = {
        "frobenius_norm": frobenius,
        "spectral_norm": spectral,
        "norm_ratio": measure.norm_ratio(frobenius, spectral),
        "stable_rank": measure.stable_rank(frobenius, spectral),
    }
    return {name: value.numpy() for name, value in measured.items()}


def gather(job: GatherJob, folder: Path) -> xr.Dataset:
    """All evaluations of one experiment, ``(pair, weight_decay, seed, step, model, task[, layer])``.

    What ``gap_by_layer`` adds has no ``model``, as it is about the sum.

    A pair has no value for a task that is not one of its own.
    """

    def evaluation(pair: str, weight_decay: str, block: str) -> xr.Dataset:
        return store.read(folder / pair / f"weight_decay={weight_decay}" / f"seeds={block}.nc")

    def concat(parts: list[xr.Dataset], dim: str | xr.Variable) -> xr.Dataset:
        return xr.concat(parts, dim, join="outer", combine_attrs="drop")

    sweep = xr.Variable("weight_decay", [float(value) for value in job.weight_decay])
    of_pair = [
        concat(
            [
                concat([evaluation(pair, value, block) for block in job.blocks], "seed")
                for value in job.weight_decay
            ],
            sweep,
        )
        for pair in job.pairs
    ]
    gathered = concat(of_pair, xr.Variable("pair", job.pairs))
    gathered = gathered.transpose("pair", "weight_decay", "seed", "step", "model", "task", ..., "layer")
    return _described(gathered)
