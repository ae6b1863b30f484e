"""Stage ``scan``: measure norms and stable ranks of a transformer's matrices, in bounded memory."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from decaymerge import store
from decaymerge.architectures import ROLES
from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar
from decaymerge.scan.plan import MEASURED_TYPES, Group, Plan
from decaymerge.scan.products import Blocks
from decaymerge.scan.spectral import (
    NoConvergenceError,
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
    "spectral_norm_error": "bound of the error of the spectral norm",
    "norm_ratio": "Frobenius norm over spectral norm",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "rows": "output dimension",
    "columns": "input dimension",
}
BASIC_ROLES = ROLES[:7]
"""Roles of every layer. Those of experts are added where there are any."""
EXPERT_NAMES: dict[str, tuple[str, Callable[[list[float]], float]]] = {
    "smallest_frobenius_norm": ("frobenius_norm", min),
    "largest_frobenius_norm": ("frobenius_norm", max),
    "smallest_stable_rank": ("stable_rank", min),
    "largest_stable_rank": ("stable_rank", max),
}
"""Ranges over the experts of a layer, whose other values are medians."""
SPECTRUM_NAMES = {
    "singular_value": "singular values, descending",
    "effective_rank": "exp of the entropy of the normalised singular values",
}


def scan(job: ScanJob, checkpoint: Checkpoint, plan: Plan, device: torch.device | None = None) -> xr.Dataset:
    """The variables of ``LONG_NAMES`` ``(layer, role)``; with ``job.spectrum`` those of ``SPECTRUM_NAMES`` as well.

    A matrix without a role is a layer of its own, with its tensor's name and the role ``matrix``. Of the experts of
    a layer there are the median, and the range (``EXPERT_NAMES``). Each thread of the plan measures one group at a
    time; the results depend on their number by rounding alone.

    Args:
        job: Tolerance of spectral norms, and whether singular values are wanted.
        checkpoint: The transformer's weights.
        plan: The matrices to read, from ``make_plan``.
        device: Where they are measured; the CPU by default.

    Returns:
        Dataset over ``layer`` and ``role``; singular values have a third dimension, ``index``. NaN where a layer
        has no matrix of a role.

    Raises:
        UserError: a matrix has an infinite or NaN entry (the message names the tensor), or QKV cannot be split.
    """
    reading, cores = Lock(), torch.get_num_threads()

    def measured_group(group: Group) -> dict[str, list[dict[str, Any]]]:
        with reading:
            tensors = [tensor.to(device) for tensor in checkpoint.read(group.names)]
        return {
            role: [_measure(job, group, role, blocks) for blocks in matrices]
            for role, matrices in matrices_by_role(group, tensors).items()
        }

    measured: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    # MKL takes the number of its threads from the process, OpenMP from each thread.
    share = max(1, cores // plan.threads)
    torch.set_num_threads(share)
    pool = ThreadPoolExecutor(plan.threads, initializer=torch.set_num_threads, initargs=(share,))
    try:
        with progress_bar(job.source[0].split("/")[-1], plan.bytes_to_read, "B") as bar:
            for group, roles in zip(plan.groups, pool.map(measured_group, plan.groups), strict=True):
                layer = measured.setdefault((group.stack, group.number), {})
                for role, matrices in roles.items():
                    layer.setdefault(role, []).extend(matrices)
                bar.update(sum(checkpoint.tensors[name].nbytes for name in group.names))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
    return _dataset(job, checkpoint, plan, measured)


def matrices_by_role(group: Group, tensors: Sequence[Tensor]) -> dict[str, list[list[Tensor]]]:
    """Matrices (out, in) of each role, from the tensors of one group.

    Args:
        group: What the tensors are.
        tensors: The tensors as stored, in the order of the group's ``parts``.

    Returns:
        For each role its matrices, one for each expert in a tensor of three dimensions, as blocks of rows (out_b,
        in) as stored. QKV is added where Q, K and V are given.

    Raises:
        UserError: a fused QKV cannot be split, or the blocks of a role have different numbers of columns.
    """
    iterator = iter(tensors)
    blocks: dict[str, list[Tensor]] = {
        role: [_measurable(next(iterator)) for _ in names] for role, names in group.parts.items()
    }
    scheme = group.scheme
    if any(block.ndim == 3 for matrices in blocks.values() for block in matrices):
        return {role: [[expert] for expert in matrices[0]] for role, matrices in blocks.items()}
    if scheme is not None and scheme.transposed:
        blocks = {role: [block.mT for block in matrices] for role, matrices in blocks.items()}
    if scheme is not None and scheme.gated and "Q" in blocks:
        blocks["Q"] = [_without_gates(group, block) for block in blocks["Q"]]
    if scheme is not None and scheme.fused != "no" and "QKV" in blocks:
        (fused,) = blocks["QKV"]
        query, key, value = split_qkv(group, fused)
        return {"Q": [[query]], "K": [[key]], "V": [[value]], "QKV": [[fused]]}
    if {"Q", "K", "V"} <= set(blocks):
        blocks["QKV"] = [block for role in "QKV" for block in blocks[role]]
    for role, matrices in blocks.items():
        if len({block.shape[1] for block in matrices}) > 1:
            listed = ", ".join(name for names in group.parts.values() for name in names)
            raise UserError(
                f"{listed}: the parts of {role} have inputs of different dimensions; the checkpoint is damaged,"
                " fetch it again"
            )
    return {role: [matrices] for role, matrices in blocks.items()}


def _without_gates(group: Group, query: Tensor) -> Tensor:
    """Rows of queries of a matrix that has the rows of each head's gate after those of its queries.

    Raises:
        UserError: the number of heads is unknown, or does not divide the rows.
    """
    heads = group.part.heads
    if not heads or len(query) % (2 * heads):
        raise UserError(
            f"{group.layer}: {heads} heads do not divide the {len(query)} rows of Q and its gate; give the"
            " config.json of these weights"
        )
    return query.unflatten(0, (heads, 2, -1))[:, 0].flatten(0, 1)


def split_qkv(group: Group, fused: Tensor) -> list[Tensor]:
    """Q, K and V, each (out, in), of a fused matrix (out_q + out_k + out_v, in).

    The number of heads is that of the config, except where Q, K and V are stacked.

    Raises:
        UserError: the number of heads is unknown, or does not divide the rows of ``fused``.
    """
    scheme, heads = group.scheme, group.part.heads
    if scheme is None or scheme.fused == "stacked":
        return list(fused.chunk(3))
    if heads is None:
        raise UserError(f"{scheme.name}: config.json with num_attention_heads is needed to split QKV")
    groups = group.part.key_value_heads or heads
    parts = 3 * heads if scheme.fused == "interleaved" else heads + 2 * groups
    if len(fused) % parts:
        raise UserError(
            f"{scheme.name}: config.json states {heads} heads and {groups} of keys and values, which does not"
            f" divide the {len(fused)} rows of QKV; give the config.json of these weights"
        )
    if scheme.fused == "interleaved":
        by_head = fused.unflatten(0, (heads, 3, -1))  # (head, Q K V, head dimension, in)
        return [by_head[:, i].flatten(0, 1) for i in range(3)]
    rows_per_head = len(fused) // parts
    return list(fused.split([heads * rows_per_head, groups * rows_per_head, groups * rows_per_head]))


def _measurable(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in MEASURED_TYPES else tensor.float()


def _measure(job: ScanJob, group: Group, role: str, blocks: Blocks) -> dict[str, Any]:
    qkv = [name for part in "QKV" for name in group.parts.get(part, [])]  # parts of one matrix
    tensors = ", ".join(group.parts.get(role) or group.parts.get("QKV") or qkv)
    try:
        frobenius = frobenius_norm(blocks)
        spectral = spectral_norm(blocks, frobenius, job.tolerance)
    except NotFiniteError as error:
        raise UserError(f"{tensors} has {error}; the checkpoint is damaged") from None
    except NoConvergenceError as error:
        raise UserError(f"{tensors}: {error}") from None
    ratio = frobenius / spectral.value if spectral.value else math.nan
    measured: dict[str, Any] = {
        "frobenius_norm": frobenius,
        "spectral_norm": spectral.value,
        "spectral_norm_error": spectral.error,
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
    measured: dict[tuple[str, int], dict[str, list[dict[str, Any]]]],
) -> xr.Dataset:
    roles = [role for role in (*ROLES, "matrix") if any(role in layer for layer in measured.values())]
    if plan.has_roles:
        roles = [*BASIC_ROLES, *(role for role in roles if role not in BASIC_ROLES)]
    shape = (len(measured), len(roles))
    scalars = [*LONG_NAMES, *(["effective_rank"] if job.spectrum else [])]
    variables: dict[str, Any] = {name: (("layer", "role"), np.full(shape, np.nan)) for name in scalars}
    matrices = {
        role: [values for layer in measured.values() for values in layer.get(role, [])] for role in roles
    }
    has_experts = any(len(values) > 1 for layer in measured.values() for values in layer.values())
    if has_experts:
        variables |= {name: (("layer", "role"), np.full(shape, np.nan)) for name in EXPERT_NAMES}
    if job.spectrum:
        longest = max(len(values["singular_value"]) for entries in matrices.values() for values in entries)
        variables["singular_value"] = (("layer", "role", "index"), np.full((*shape, longest), np.nan))
    for row, layer in enumerate(measured.values()):
        for role, entries in layer.items():
            position = row, roles.index(role)
            for name in scalars:
                variables[name][1][position] = np.median([values[name] for values in entries])
            if job.spectrum:
                largest = max(entries, key=lambda values: float(values["stable_rank"]))["singular_value"]
                variables["singular_value"][1][position][: len(largest)] = largest
            if has_experts:
                for name, (quantity, extreme) in EXPERT_NAMES.items():
                    variables[name][1][position] = extreme([values[quantity] for values in entries])
    groups = {(group.stack, group.number): group for group in plan.groups}
    layers = [groups[place] for place in measured]
    order = itertools.count()
    dataset = xr.Dataset(
        variables,
        coords={
            "layer": range(len(measured)),
            "role": roles,
            "layer_name": ("layer", [group.layer for group in layers]),
            "stack": ("layer", [group.stack if group.scheme else "" for group in layers]),
            "number": ("layer", [group.number if group.scheme else next(order) for group in layers]),
        },
        attrs={
            "architecture": plan.architecture,
            "model_config": json.dumps(checkpoint.config),
            "skipped": json.dumps(plan.skipped),
            "skipped_share": plan.skipped_share,
        },
    )
    long_names = LONG_NAMES | (SPECTRUM_NAMES if job.spectrum else {})
    if has_experts:
        long_names = long_names | {name: f"{name.replace('_', ' ')} over experts" for name in EXPERT_NAMES}
    return store.describe(dataset, long_names)
