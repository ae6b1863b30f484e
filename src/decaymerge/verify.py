"""``decaymerge verify``: make networks of finished experiments again, from nothing but the settings in their files.

A member is the network of one seed.
"""

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
    """The difference between a stored file and its remake, for one seed."""

    path: Path
    seed: int
    deviation: float
    """Largest ‖stored - remade‖ / ‖stored‖ over variables and kept steps; 0 means that both are bitwise equal."""


def networks(results: Path) -> dict[Path, dict[str, str]]:
    """Files of trained networks under ``results``, in order, each with its wildcards in ``layout.TRAINED``.

    Raises:
        UserError: the folder has no such file.
    """
    files = dict(layout.find(results, layout.TRAINED))
    if not files:
        raise UserError(
            f"{results} holds no <experiment>/train/<task>/weight_decay=<λ>/seeds=<block>.nc: it is not a folder of"
            " results, or was made with keep_weights: false; give another folder, or run with keep_weights: true"
        )
    return files


def sample(files: dict[Path, dict[str, str]], count: int, seed: int) -> list[tuple[Path, int]]:
    """``count`` members at random, or all if there are fewer.

    Args:
        files: Files of trained networks, as ``networks`` gives them.
        count: Number of members.
        seed: Seed of the random choice.

    Returns:
        File and seed of each member.
    """
    members = [(path, member) for path, where in files.items() for member in jobs.seeds_of(where["block"])]
    return random.Random(seed).sample(members, min(count, len(members)))


def verify(results: Path, network: Path, seed: int, cache: Path) -> Iterator[Finding]:
    """Make a member's data, weights, merged networks and evaluations again, and compare them with the files.

    Data and weights follow from settings alone. Merged networks and evaluations follow from the stored networks.
    All seeds of the block are trained together, as before, since rounding depends on their number.

    Args:
        results: Folder of results.
        network: File of trained networks, which has the member.
        seed: Seed of the member.
        cache: Folder of real data.

    Yields:
        A finding for each file.

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
    """Make a file of data again, from the settings in it.

    Args:
        path: File of the data of a task, for a block of seeds.
        folder: Working folder of the run. Paths of your own data are relative to it.
        cache: Folder of real data.

    Raises:
        UserError: a file that the data were made from is missing.
    """
    job = jobs.TasksJob.parse(settings_of(path))
    files = [folder / file for file in job.data.files(cache.absolute())]
    for file in files:
        if not file.is_file():
            remedy = f"put it there again, give --cache, or fetch it with: snakemake {file}"
            raise UserError(f"{path} was made from {file}, which is missing; {remedy}")
    return tasks.make(job, files)


def settings_of(path: Path) -> str:
    """Settings that a result was made with, as JSON.

    Raises:
        UserError: the file is missing or damaged, or has no settings.
    """
    attributes = store.read(path).attrs
    if "settings" not in attributes:
        raise UserError(f"{path} does not say its settings: it is not a result of this project")
    return str(attributes["settings"])


def compare(path: Path, seed: int, remade: xr.Dataset) -> Finding:
    """Compare one seed of a stored file with its remake.

    The deviation is infinite if a variable, a coordinate, a shape or a NaN differs.

    Raises:
        UserError: the file lacks a seed that is in its name.
    """
    stored = store.read(path)
    if seed not in stored.seed:
        raise UserError(f"{path} holds no seed {seed}: remove it, and run the workflow again")
    stored, remade = stored.sel(seed=seed), remade.sel(seed=seed)
    if set(stored) != set(remade) or not stored.coords.to_dataset().equals(remade.coords.to_dataset()):
        return Finding(path, seed, np.inf)
    if any(stored[name].sizes != remade[name].sizes for name in stored):
        return Finding(path, seed, np.inf)
    return Finding(path, seed, max(_deviation(stored[name], remade[name]) for name in stored))


def _deviation(stored: xr.DataArray, remade: xr.DataArray) -> float:
    """Largest ‖stored - remade‖ / ‖stored‖ over kept steps."""
    old, new = (
        array.transpose("step", ..., missing_dims="ignore").values.astype(float) for array in (stored, remade)
    )
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return np.inf
    old, new = (
        np.nan_to_num(old),
        np.nan_to_num(new),
    )  # both are NaN at the same places, which counts as equal
    if np.array_equal(old, new):
        return 0.0
    rows = (old.shape[0], -1) if "step" in stored.dims else (1, -1)
    difference = np.linalg.norm((old - new).reshape(rows), axis=-1)
    size = np.linalg.norm(old.reshape(rows), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(difference == 0, 0, difference / size)
    return float(np.nan_to_num(shares, nan=np.inf, posinf=np.inf).max())
