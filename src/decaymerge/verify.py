"""``decaymerge verify``: members of finished experiments made again, from the settings in their files alone."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from decaymerge import evaluate, merge, store, tasks, train
from decaymerge.errors import UserError
from decaymerge.workflow import jobs, layout

CPU = torch.device("cpu")


class Finding(NamedTuple):
    """One file compared with its remake."""

    path: Path
    seed: int
    deviation: float
    """Largest ‖stored - made‖ / ‖stored‖ of a variable at a kept step; 0 means bit by bit the same."""


def networks(results: Path) -> dict[Path, dict[str, str]]:
    """Files of trained networks under ``results``, in order, with their wildcards in ``layout.TRAINED``.

    Raises:
        UserError: there are none.
    """
    files = dict(layout.find(results, layout.TRAINED))
    if not files:
        raise UserError(
            f"{results} holds no <experiment>/train/<task>/weight_decay=<λ>/seeds=<block>.nc: it is not a folder of"
            " results, or was made with keep_weights: false"
        )
    return files


def sample(files: dict[Path, dict[str, str]], count: int, seed: int) -> list[tuple[Path, int]]:
    """``count`` members at random, or all where there are fewer."""
    members = [(path, member) for path, where in files.items() for member in jobs.seeds_of(where["block"])]
    return random.Random(seed).sample(members, min(count, len(members)))


def verify(results: Path, network: Path, seed: int, cache: Path) -> Iterator[Finding]:
    """Make a member's data and weights again, and its merged networks and their evaluations.

    Data and weights follow from settings alone; a merge set is merged and evaluated from the stored networks.
    The whole block is trained, since another size of block rounds otherwise.

    Args:
        results: Folder of results.
        network: File of the member's block.
        seed: The member.
        cache: Folder of real data.

    Raises:
        UserError: a file is missing or damaged, or real data are not in the cache.
    """
    ((_, where),) = [item for item in layout.find(results, layout.TRAINED) if item[0] == network]
    common = {key: where[key] for key in ("experiment", "block")}
    decay = {"weight_decay": where["weight_decay"]}

    def file(place: str, **wildcards: str) -> Path:
        return layout.path(results, place, **common, **wildcards)

    data_path = file(layout.TASKS, task=where["task"])
    data = remade_tasks(data_path, results.absolute().parent, cache)
    yield compare(data_path, seed, data)
    remade = train.train(jobs.TrainJob.parse(settings_of(network)), data, CPU)
    yield compare(network, seed, store.with_whole_first_layer(remade))
    for evaluated, _ in layout.find(results, layout.EVALUATED, **common, **decay):
        job = jobs.EvaluateJob.parse(settings_of(evaluated))
        if where["task"] not in job.task_names:
            continue
        own = [store.read(file(layout.TRAINED, task=name, **decay), "W1") for name in job.task_names]
        all_data = [store.read(file(layout.TASKS, task=name), "inputs") for name in job.task_names]
        merged_path = file(layout.MERGED, merge_set=job.merge_set, **decay)
        merged = None
        if merged_path.is_file():
            merged = merge.merge(jobs.MergeJob.parse(settings_of(merged_path)), own, all_data)
            yield compare(merged_path, seed, merged)
        yield compare(evaluated, seed, evaluate.evaluate(job, all_data, own, merged, CPU))


def remade_tasks(path: Path, folder: Path, cache: Path) -> xr.Dataset:
    """Data of a block, from the settings in its file.

    Args:
        path: The block's data.
        folder: Working folder of the run, which the user's files are relative to.
        cache: Folder of real data.
    """
    job = jobs.TasksJob.parse(settings_of(path))
    files = [folder / file for file in job.data.files(cache.absolute())]
    for file in files:
        if not file.is_file():
            remedy = f"put it there again, give --cache, or fetch it with: snakemake {file}"
            raise UserError(f"{path} was made from {file}, which is missing; {remedy}")
    return tasks.make(job, files)


def settings_of(path: Path) -> str:
    """JSON of the settings that a file was made with.

    Raises:
        UserError: the file is missing or damaged, or has no settings.
    """
    attributes = store.read(path).attrs
    if "settings" not in attributes:
        raise UserError(f"{path} does not say its settings: it is not one of this project's results")
    return str(attributes["settings"])


def compare(path: Path, seed: int, made: xr.Dataset) -> Finding:
    """Deviation of one member from what is stored; infinite where a variable, a coordinate or a shape differs.

    Raises:
        UserError: the file does not hold the member that its name promises.
    """
    stored = store.read(path)
    if seed not in stored.seed:
        raise UserError(f"{path} holds no seed {seed}: remove it, and run the workflow again")
    stored, made = stored.sel(seed=seed), made.sel(seed=seed)
    if set(stored) != set(made) or not stored.coords.to_dataset().equals(made.coords.to_dataset()):
        return Finding(path, seed, np.inf)
    if any(stored[name].sizes != made[name].sizes for name in stored):
        return Finding(path, seed, np.inf)
    return Finding(path, seed, max(_deviation(stored[name], made[name]) for name in stored))


def _deviation(stored: xr.DataArray, made: xr.DataArray) -> float:
    kept, new = (
        array.transpose("step", ..., missing_dims="ignore").values.astype(float) for array in (stored, made)
    )
    if not np.array_equal(np.isnan(kept), np.isnan(new)):
        return np.inf
    kept, new = np.nan_to_num(kept), np.nan_to_num(new)  # what is not a number in both is the same
    if np.array_equal(kept, new):
        return 0.0
    rows = (kept.shape[0], -1) if "step" in stored.dims else (1, -1)
    difference = np.linalg.norm((kept - new).reshape(rows), axis=-1)
    size = np.linalg.norm(kept.reshape(rows), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(difference == 0, 0, difference / size)
    return float(np.nan_to_num(shares, nan=np.inf, posinf=np.inf).max())
