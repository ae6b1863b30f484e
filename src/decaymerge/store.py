"""NetCDF files of results, through xarray: atomic, and with their settings and origin as attributes."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from decaymerge.atomic import atomic_file
from decaymerge.config.base import Settings
from decaymerge.digests import combined, content_digest, digest
from decaymerge.errors import UserError, listed
from decaymerge.provenance import made_by, provenance
from decaymerge.workflow.code import REMAKE, code

UNITS = "1"
"""All quantities of this project are pure numbers."""


def describe(dataset: xr.Dataset, long_names: dict[str, str]) -> xr.Dataset:
    """Give variables of ``dataset`` their ``long_name`` and ``units``, in place, and return it."""
    for name, long_name in long_names.items():
        dataset[name].attrs = {"long_name": long_name, "units": UNITS}
    return dataset


def write(
    dataset: xr.Dataset, path: Path, settings: Settings, *, identity: str = "", compress: bool = False
) -> None:
    """Write ``dataset`` to ``path`` completely or not at all, with settings, seeds and provenance as attributes.

    Args:
        dataset: Data.
        path: The NetCDF file.
        settings: The job that made the data.
        identity: What ``identity_of`` says of the job, if a later job may find the file and keep it.
        compress: Whether to compress the variables.

    Raises:
        UserError: the file cannot be written, as on a full disk.
    """
    seeds = dataset.coords["seed"].values.tolist() if "seed" in dataset.coords else []
    known = {"identity": identity} if identity else {}
    dataset = dataset.assign_attrs(
        known, settings=settings.model_dump_json(), seeds=",".join(map(str, seeds)), **provenance()
    )
    encoding = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if compress else {}
    with atomic_file(path) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def identity_of(command: str, settings: Settings, inputs: Sequence[Path]) -> str:
    """Digest of what determines a result, but the libraries: settings, code, and the files that are read.

    Args:
        command: The command that makes the result.
        settings: Its job.
        inputs: The files. Of those that have an identity themselves, it stands for their content.

    Raises:
        UserError: a file cannot be read.
    """
    digests = [
        (path.suffix == ".nc" and _attribute(path, "identity")) or content_digest(path) for path in inputs
    ]
    return combined([code(command), digest(settings.model_dump_json()), *digests])


def is_made(path: Path, identity: str) -> bool:
    """Whether a file of this identity is there, so that it need not be made again."""
    if REMAKE in os.environ:
        return False
    try:
        found = path.is_file() and _attribute(path, "identity") == identity
    except UserError:
        return False  # it is damaged
    if found:
        path.touch()  # it is as new as the files that it was compared with
        print(f"{path} is there already")
    return found


def read(path: Path, *needed: str) -> xr.Dataset:
    """Load a NetCDF file into memory. The parts of a first layer are put together as ``W1``.

    Args:
        path: The file.
        needed: Names of variables that it must have.

    Raises:
        UserError: the file is missing, truncated or not NetCDF, or lacks a ``needed`` variable.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            loaded = dataset.load()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from None
    loaded = with_whole_first_layer(loaded)
    if missing := [name for name in needed if name not in loaded]:
        raise UserError(
            f"{path} has the variables {', '.join(map(str, loaded))}, but not {' and '.join(missing)};"
            " give a file of the right stage"
        )
    return loaded


def refuse_others(made_from: Sequence[str], paths: Sequence[Path]) -> None:
    """Refuse files that were made with other settings than those of a job's inputs.

    Args:
        made_from: A digest for each file, one of all files, or none, if nothing is known of them.
        paths: The files.

    Raises:
        UserError: a file has other settings, or none, or is missing.
    """
    if not made_from:
        return
    digests = [digest(_attribute(path, "settings")) for path in paths]
    if len(made_from) == len(paths) > 1:
        others = [
            path for path, found, expected in zip(paths, digests, made_from, strict=True) if found != expected
        ]
    else:
        others = [] if made_from == [combined(digests)] or made_from == digests else list(paths)
    if others:
        raise UserError(
            f"{listed([str(path) for path in others], 1)}: not made with the settings of this configuration; remove"
            " what is from elsewhere, and give the same command again"
        )


def _attribute(path: Path, name: str) -> str:
    """An attribute of a NetCDF file, or an empty text."""
    try:
        with netCDF4.Dataset(path) as file:
            return str(getattr(file, name, ""))
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read as NetCDF ({error})"
    remedy = f"remake it: rm -f {shlex.quote(str(path.resolve()))}, then give the same command again"
    return UserError(f"{path} {reason}; {remedy}".replace("\n", " "))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``table`` to ``path`` as CSV, completely or not at all; its first line, a comment, is the provenance.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(f"# {made_by()}\n{table.to_csv(index=False, float_format='%.9g')}")


def read_table(path: Path) -> pd.DataFrame:
    """A table that ``write_table`` has written."""
    return pd.read_csv(path, comment="#", keep_default_na=False, na_values=[""])


def weights_to_dataset(
    weights: Sequence[np.ndarray], seeds: Sequence[int], steps: Sequence[int]
) -> xr.Dataset:
    """Dataset of ``W1 … WK`` with dims ``(seed, step, out_k, in_k)``, from arrays of these shapes."""
    variables = {
        f"W{k}": (("seed", "step", f"out_{k}", f"in_{k}"), weight)
        for k, weight in enumerate(weights, start=1)
    }
    dataset = xr.Dataset(variables, coords={"seed": list(seeds), "step": list(steps)})
    return describe(dataset, {f"W{k}": f"weight matrix of layer {k}" for k in range(1, len(weights) + 1)})


def first_layer_in_span(
    dataset: xr.Dataset, basis: np.ndarray, decay: np.ndarray, outside: np.ndarray
) -> xr.Dataset:
    """``dataset`` with ``W1`` in parts (see ``train/span.py``): W1 = W1_coordinates W1_basis + W1_decay W1_outside.

    Args:
        dataset: Networks whose ``W1`` holds only the coordinates in the basis, (seed, step, d_1, rank).
        basis: Orthonormal rows that span the inputs of each seed, (seed, rank, d).
        decay: Factor by which the first layer has shrunk outside the span, (seed, step).
        outside: The part of the initial first layer outside the span, (seed, d_1, d).
    """
    dtype = dataset.W1.dtype
    parts = dataset.rename(W1="W1_coordinates", in_1="rank_1").assign(
        W1_basis=(("seed", "rank_1", "in_1"), basis.astype(dtype)),
        W1_decay=(("seed", "step"), decay.astype(dtype)),
        W1_outside=(("seed", "out_1", "in_1"), outside.astype(dtype)),
    )
    names = {
        "W1_coordinates": "weight matrix of layer 1 in a basis of its inputs' span:"
        " W1 = W1_coordinates W1_basis + W1_decay W1_outside",
        "W1_basis": "orthonormal basis of the span of the inputs",
        "W1_decay": "factor by which layer 1 has shrunk outside the span",
        "W1_outside": "part of the initial weight matrix of layer 1 outside the span",
    }
    return describe(parts, names)


def with_whole_first_layer(dataset: xr.Dataset) -> xr.Dataset:
    """``dataset`` with ``W1`` (seed, step, d_1, d) in place of the parts of ``first_layer_in_span``, if any."""
    names = ["W1_coordinates", "W1_basis", "W1_decay", "W1_outside"]
    if names[0] not in dataset:
        return dataset
    coordinates, basis, decay, outside = (dataset[name].values for name in names)
    first = np.empty((*coordinates.shape[:3], basis.shape[-1]), coordinates.dtype)
    for seed in range(len(first)):  # one at a time, since all at once would need a second array of this size
        np.matmul(coordinates[seed], basis[seed], out=first[seed])
        first[seed] += decay[seed, :, None, None] * outside[seed]
    layer = xr.Dataset({"W1": (("seed", "step", "out_1", "in_1"), first)})
    return dataset.drop_vars(names).assign(describe(layer, {"W1": "weight matrix of layer 1"}))


def weights_of(dataset: xr.Dataset) -> list[np.ndarray]:
    """``[W_1, …, W_K]``, each of shape ``(…, out_k, in_k)``; the counterpart of ``weights_to_dataset``."""
    depth = sum(1 for name in dataset.data_vars if str(name).startswith("W"))
    return [dataset[f"W{k}"].values for k in range(1, depth + 1)]
