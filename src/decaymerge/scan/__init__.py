"""Stage ``scan``: measure norms and stable ranks of a transformer's matrices, in bounded memory."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from decaymerge import store
from decaymerge.architectures import ROLES, Architecture
from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar
from decaymerge.scan.plan import WIDE_TYPES, Group, Plan
from decaymerge.scan.spectral import (
    Blocks,
    NotFiniteError,
    effective_rank,
    frobenius_norm,
    singular_values,
    spectral_norm,
)
from decaymerge.workflow.jobs import ScanJob

LONG_NAMES = {
    "frobenius_norm": "Frobenius norm",
    "spectral_norm": "spectral norm",
    "spectral_norm_error": "residual of the spectral norm, a bound on its distance to a singular value",
    "norm_ratio": "Frobenius norm over spectral norm",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "rows": "output dimension",
    "columns": "input dimension",
}
SPECTRUM_NAMES = {
    "singular_value": "singular values, descending",
    "effective_rank": "exp of the entropy of the normalised singular values",
}


def scan(job: ScanJob, checkpoint: Checkpoint, plan: Plan) -> xr.Dataset:
    """The variables of ``LONG_NAMES`` ``(layer, role)``; with ``job.spectrum`` those of ``SPECTRUM_NAMES`` as well.

    For an unknown architecture each matrix is a layer of its own, with its tensor's name and the role ``matrix``.

    Args:
        job: Tolerance of spectral norms, and whether singular values are wanted.
        checkpoint: The transformer's weights.
        plan: The matrices to read, from ``make_plan``.

    Returns:
        Dataset over ``layer`` and ``role``; singular values have a third dimension, ``index``. NaN where a layer
        has no matrix of a role.

    Raises:
        UserError: a matrix has an infinite or NaN entry (the message names the tensor), or QKV cannot be split.
    """
    layers = list(dict.fromkeys(group.layer for group in plan.groups))
    roles = ROLES if plan.architecture else ("matrix",)
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    with progress_bar(job.source[0].split("/")[-1], plan.bytes_to_read, "B") as bar:
        for group in plan.groups:
            names = [name for part in group.parts.values() for name in part]
            matrices = matrices_by_role(
                plan.architecture, checkpoint.config, group.parts, checkpoint.read(names)
            )
            for role, blocks in matrices.items():
                arrays = [block.numpy() for block in blocks]
                measured[group.layer, role] = _measure(job, group, role, arrays)
            del matrices, blocks, arrays  # frees this group's memory before the next group is read
            bar.update(sum(checkpoint.tensors[name].nbytes for name in names))
    return _dataset(job, checkpoint, plan, layers, roles, measured)


def matrices_by_role(
    architecture: Architecture | None,
    config: dict[str, Any],
    parts: dict[str, list[str]],
    tensors: Sequence[Tensor],
) -> dict[str, list[Tensor]]:
    """Matrices (out, in) of each role, from the tensors of one group.

    Args:
        architecture: Row of the table, or none if the architecture is unknown.
        config: The checkpoint's ``config.json``, which has the number of heads.
        parts: Names of the tensors of each role.
        tensors: The tensors as stored, in the order of ``parts``.

    Returns:
        For each role, blocks of rows (out_b, in) in float32 or float64; QKV is added where Q, K and V are given.

    Raises:
        UserError: a fused QKV cannot be split, or the blocks of a role have different numbers of columns.
    """
    iterator = iter(tensors)
    blocks: dict[str, list[Tensor]] = {
        role: [_in_wide_type(next(iterator)) for _ in names] for role, names in parts.items()
    }
    if architecture is not None and architecture.transposed:
        blocks = {role: [block.mT for block in matrices] for role, matrices in blocks.items()}
    if architecture is not None and architecture.fused != "no" and "QKV" in blocks:
        (fused,) = blocks["QKV"]
        query, key, value = split_qkv(architecture, config, fused)
        return {"Q": [query], "K": [key], "V": [value], "QKV": [fused]}
    if {"Q", "K", "V"} <= set(blocks):
        blocks["QKV"] = [block for role in "QKV" for block in blocks[role]]
    for role, matrices in blocks.items():
        if len({block.shape[1] for block in matrices}) > 1:
            listed = ", ".join(name for names in parts.values() for name in names)
            raise UserError(
                f"{listed}: the parts of {role} have inputs of different dimensions; the checkpoint is damaged,"
                " fetch it again"
            )
    return blocks


def split_qkv(architecture: Architecture, config: dict[str, Any], fused: Tensor) -> list[Tensor]:
    """Q, K and V, each (out, in), of a fused matrix (out_q + out_k + out_v, in).

    The number of heads is read from the checkpoint's ``config.json``, except where Q, K and V are stacked.

    Raises:
        UserError: ``config`` has no number of heads, or numbers that do not divide the rows of ``fused``.
    """
    if architecture.fused == "stacked":
        return list(fused.chunk(3))
    heads = config.get("num_attention_heads")
    if heads is None:
        raise UserError(f"{architecture.name}: config.json with num_attention_heads is needed to split QKV")
    groups = config.get("num_key_value_heads") or heads
    stated = f"{architecture.name}: config.json states {heads} heads and {groups} of keys and values"
    if not _are_positive_integers(heads, groups):
        raise UserError(f"{stated}; both must be whole numbers above 0 to split QKV")
    parts = 3 * heads if architecture.fused == "interleaved" else heads + 2 * groups
    if len(fused) % parts:
        raise UserError(
            f"{stated}, which does not divide the {len(fused)} rows of QKV; give the config.json of these weights"
        )
    if architecture.fused == "interleaved":
        by_head = fused.unflatten(0, (heads, 3, -1))  # (head, Q K V, head dimension, in)
        return [by_head[:, i].flatten(0, 1) for i in range(3)]
    rows_per_head = len(fused) // parts
    return list(fused.split([heads * rows_per_head, groups * rows_per_head, groups * rows_per_head]))


def _are_positive_integers(*values: Any) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _in_wide_type(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in WIDE_TYPES else tensor.float()


def _measure(job: ScanJob, group: Group, role: str, blocks: Blocks) -> dict[str, Any]:
    try:
        frobenius = frobenius_norm(blocks)
    except NotFiniteError:
        tensors = ", ".join(group.parts.get(role) or group.parts["QKV"])
        raise UserError(f"{tensors} has an infinite or NaN entry; the checkpoint is damaged") from None
    spectral = spectral_norm(blocks, frobenius, job.tolerance)
    ratio = frobenius / spectral.value if spectral.value else math.nan
    measured: dict[str, Any] = {
        "frobenius_norm": frobenius,
        "spectral_norm": spectral.value,
        "spectral_norm_error": spectral.residual,
        "norm_ratio": ratio,
        "stable_rank": ratio**2,
        "rows": sum(len(block) for block in blocks),
        "columns": blocks[0].shape[1],
    }
    if job.spectrum:
        values = singular_values(blocks)
        measured |= {"singular_value": values, "effective_rank": effective_rank(values)}
    return measured


def _dataset(
    job: ScanJob,
    checkpoint: Checkpoint,
    plan: Plan,
    layers: list[str],
    roles: Sequence[str],
    measured: dict[tuple[str, str], dict[str, Any]],
) -> xr.Dataset:
    shape = (len(layers), len(roles))
    scalars = [*LONG_NAMES, *(["effective_rank"] if job.spectrum else [])]
    variables = {name: (("layer", "role"), np.full(shape, np.nan)) for name in scalars}
    if job.spectrum:
        longest = max(len(values["singular_value"]) for values in measured.values())
        variables["singular_value"] = (("layer", "role", "index"), np.full((*shape, longest), np.nan))  # type: ignore[assignment]
    for (layer, role), values in measured.items():
        position = layers.index(layer), roles.index(role)
        for name, value in values.items():
            if name == "singular_value":
                variables[name][1][position][: len(value)] = value
            else:
                variables[name][1][position] = value
    dataset = xr.Dataset(
        variables,
        coords={"layer": range(len(layers)), "role": list(roles), "layer_name": ("layer", layers)},
        attrs={
            "architecture": plan.architecture.name if plan.architecture else "unknown",
            "model_config": json.dumps(checkpoint.config),
            "skipped": json.dumps(plan.skipped),
        },
    )
    return store.describe(dataset, LONG_NAMES | (SPECTRUM_NAMES if job.spectrum else {}))
