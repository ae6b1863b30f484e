"""``decaymerge verify``: members of finished experiments made anew, from the settings in their files alone."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from decaymerge import evaluate, jobs, merge, store, tasks, train
from decaymerge.datasets import OwnTask
from decaymerge.errors import UserError
from decaymerge.fetch.fashion_mnist import SHA256

CPU = torch.device("cpu")


class Finding(NamedTuple):
    """One file held against what was made anew."""

    path: Path
    seed: int
    deviation: float
    """Largest ‖stored - made‖ / ‖stored‖ of a variable at a kept step; 0 means bit by bit the same."""


def networks(results: Path) -> dict[Path, list[int]]:
    """Files of trained networks under ``results``, in order, with the seeds of their members.

    Raises:
        UserError: there are none.
    """
    found = sorted(results.glob("*/train/*/weight_decay=*/seeds=[0-9]*-[0-9]*.nc"))
    if not found:
        raise UserError(
            f"{results} holds no <experiment>/train/<task>/weight_decay=<λ>/seeds=<block>.nc: it is no folder of"
            " results, or was made with keep_weights: false"
        )
    return {path: jobs.seeds_of(path.stem.removeprefix("seeds=")) for path in found}


def sample(members: dict[Path, list[int]], count: int, seed: int) -> list[tuple[Path, int]]:
    """``count`` members at random, or all where there are fewer."""
    all_members = [(path, member) for path, seeds in members.items() for member in seeds]
    return random.Random(seed).sample(all_members, min(count, len(all_members)))


def verify(network: Path, seed: int, cache: Path) -> Iterator[Finding]:
    """A member's data and weights, and what its pairs were merged to and evaluated as, made anew.

    Data and weights follow from settings alone; a pair is merged and evaluated from the networks that are stored.
    The whole block is trained, since another size of block rounds otherwise.

    Args:
        network: File of the member's block.
        seed: The member.
        cache: Folder of real data.

    Raises:
        UserError: a file is missing or damaged, or real data are not in the cache.
    """
    task, decay, block = network.parts[-3:]
    experiment = network.parents[3]
    data_path = experiment / "tasks" / task / block
    data = remade_tasks(data_path, cache)
    yield compare(data_path, seed, data)
    made = train.train(jobs.parse(jobs.TrainJob, settings_of(network)), data, CPU)
    yield compare(network, seed, store.with_whole_first_layer(made))
    for evaluated in sorted(experiment.glob(f"evaluate/*/{decay}/{block}")):
        job = jobs.parse(jobs.EvaluateJob, settings_of(evaluated))
        if task not in job.tasks:
            continue
        own = [store.read(experiment / "train" / name / decay / block, "W1") for name in job.tasks]
        merged_path = experiment / "merge" / job.pair / decay / block
        merged = None
        if merged_path.is_file():
            merged = merge.merge(jobs.parse(jobs.MergeJob, settings_of(merged_path)), own)
            yield compare(merged_path, seed, merged)
        all_data = [store.read(experiment / "tasks" / name / block, "inputs") for name in job.tasks]
        yield compare(evaluated, seed, evaluate.evaluate(job, all_data, own, merged, CPU))


def remade_tasks(path: Path, cache: Path) -> xr.Dataset:
    """Data of a block, from the settings in its file."""
    job = jobs.parse(jobs.TasksJob, settings_of(path))
    files: Sequence[Path] = []
    if job.settings.dataset == "fashion_mnist":
        files = [cache / "fashion_mnist" / name for name in list(SHA256)[:2]]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]} is missing; give --cache, or run: snakemake {missing[0]}")
    if isinstance(job.settings, OwnTask):
        files = [path.parents[4] / job.settings.file]  # the folder that the run worked in
        if not files[0].is_file():
            raise UserError(f"{path} was made from {files[0]}, which is missing; put it there again")
    return tasks.make(job, files)


def settings_of(path: Path) -> str:
    """JSON of the settings that a file was made with.

    Raises:
        UserError: the file is missing or damaged, or has none.
    """
    attributes = store.read(path).attrs
    if "settings" not in attributes:
        raise UserError(f"{path} does not say its settings: it is none of this project's results")
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
