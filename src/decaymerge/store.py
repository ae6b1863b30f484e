"""NetCDF files through xarray: written whole or not at all, with their origin as attributes."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from decaymerge.atomic import atomic_file
from decaymerge.config.base import Settings
from decaymerge.errors import UserError
from decaymerge.provenance import provenance

UNITS = "1"


def describe(dataset: xr.Dataset, long_names: dict[str, str]) -> xr.Dataset:
    """Give each variable its ``long_name`` and ``units``; all of this project's quantities are pure numbers."""
    for name, long_name in long_names.items():
        dataset[name].attrs = {"long_name": long_name, "units": UNITS}
    return dataset


def write(dataset: xr.Dataset, path: Path, settings: Settings, *, compress: bool = False) -> None:
    """Write ``dataset``, whole or not at all, with its settings and provenance as attributes.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    seeds = dataset.coords["seed"].values.tolist() if "seed" in dataset.coords else []
    dataset = dataset.assign_attrs(
        settings=settings.model_dump_json(), seeds=",".join(map(str, seeds)), **provenance()
    )
    encoding = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if compress else {}
    with atomic_file(path) as temporary:
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def read(path: Path, *needed: str) -> xr.Dataset:
    """Load a file into memory, the first layer of its networks as one ``W1``.

    Raises:
        UserError: the file is missing, truncated, no NetCDF, or lacks a variable that is ``needed``.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            found = dataset.load()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read as NetCDF ({error})"
        )
        remedy = f"remake it: rm -f {shlex.quote(str(path.resolve()))}, then give the same command again"
        raise UserError(f"{path} {reason}; {remedy}".replace("\n", " ")) from None
    found = with_whole_first_layer(found)
    if missing := [name for name in needed if name not in found]:
        raise UserError(
            f"{path} has no {' and no '.join(missing)} but {', '.join(map(str, found))};"
            " give a file of the right stage"
        )
    return found


def weights_to_dataset(
    weights: Sequence[np.ndarray], seeds: Sequence[int], steps: Sequence[int]
) -> xr.Dataset:
    """``W1 … WK`` with dims ``(seed, step, out_k, in_k)`` from arrays of these shapes."""
    variables = {
        f"W{k}": (("seed", "step", f"out_{k}", f"in_{k}"), weight)
        for k, weight in enumerate(weights, start=1)
    }
    dataset = xr.Dataset(variables, coords={"seed": list(seeds), "step": list(steps)})
    return describe(dataset, {f"W{k}": f"weight matrix of layer {k}" for k in range(1, len(weights) + 1)})


def first_layer_in_span(
    dataset: xr.Dataset, basis: np.ndarray, decay: np.ndarray, outside: np.ndarray
) -> xr.Dataset:
    """``W1`` as its parts: W_1 = W1_coordinates · W1_basis + W1_decay · W1_outside (see ``train/span.py``).

    Args:
        dataset: Its ``W1`` has the coordinates alone, (seed, step, d_1, rank).
        basis: Orthonormal rows that span the member's inputs, (seed, rank, d).
        decay: Factor by which the first layer has shrunk outside of the span, (seed, step).
        outside: What the first layer has there at the start, (seed, d_1, d).
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
        "W1_decay": "factor by which layer 1 has shrunk outside of the span",
        "W1_outside": "initial weight matrix of layer 1 outside of the span",
    }
    return describe(parts, names)


def with_whole_first_layer(dataset: xr.Dataset) -> xr.Dataset:
    """``W1`` in the place of the parts of ``first_layer_in_span``, if it has those."""
    names = ["W1_coordinates", "W1_basis", "W1_decay", "W1_outside"]
    if names[0] not in dataset:
        return dataset
    coordinates, basis, decay, outside = (dataset[name].values for name in names)
    first = np.empty((*coordinates.shape[:3], basis.shape[-1]), coordinates.dtype)
    for member in range(len(first)):  # so that no second array of this size is needed
        np.matmul(coordinates[member], basis[member], out=first[member])
        first[member] += decay[member, :, None, None] * outside[member]
    layer = xr.Dataset({"W1": (("seed", "step", "out_1", "in_1"), first)})
    return dataset.drop_vars(names).assign(describe(layer, {"W1": "weight matrix of layer 1"}))


def weights_of(dataset: xr.Dataset) -> list[np.ndarray]:
    """``[W_1, …, W_K]``, each of shape ``(…, out_k, in_k)``; the counterpart of ``weights_to_dataset``."""
    depth = sum(1 for name in dataset.data_vars if str(name).startswith("W"))
    return [dataset[f"W{k}"].values for k in range(1, depth + 1)]
