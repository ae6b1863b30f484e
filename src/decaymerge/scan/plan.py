"""The plan of a scan, made from the headers alone: the matrices that it will read, and the memory that it needs."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from decaymerge.architectures import Architecture, recognise
from decaymerge.checkpoint import REOPEN_BYTES, Checkpoint
from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError

PROCESS_BYTES = 450_000_000
"""Resident memory of the command before it reads anything, rounded up."""
WIDE_TYPES = (torch.float32, torch.float64)
"""Types in which the scan computes; matrices of other types are converted to float32."""
LANCZOS_VECTORS = 300
"""Number of Lanczos vectors that memory is reserved for. A matrix whose singular values have no gap takes about a
hundred."""


@dataclass(frozen=True)
class Group:
    """Matrices that are in memory at the same time: one matrix, or Q, K and V of one layer."""

    layer: str
    """Stack and index, as in ``encoder.layer.3``. If the architecture is unknown, the tensor's name."""
    parts: dict[str, list[str]]
    """Names of the tensors of each role, which are joined along the output axis. If the architecture is unknown,
    the role is ``matrix``."""


@dataclass
class Plan:
    """The groups of matrices to read, in the order of layers, and the tensors that are left out."""

    architecture: Architecture | None
    """None if it is unknown."""
    file_bytes: int
    """Bytes of all files of the checkpoint."""
    unmapped_bytes: int = 0
    """Bytes of the files that cannot be mapped: they are in memory as a whole."""
    spectrum: bool = False
    """Whether all singular values are computed."""
    groups: list[Group] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Reason for each tensor that is left out."""
    bytes_to_read: int = 0
    """Bytes of all matrices as stored."""
    memory_bytes: int = PROCESS_BYTES
    """Estimated peak of the resident memory, in bytes."""
    largest: str = ""
    """Layer and roles of the group that needs the most memory."""

    def check(self, max_memory: int | None) -> None:
        """Refuse a scan that needs more than ``max_memory`` bytes, before anything is read; none allows any size.

        Raises:
            UserError: the largest group does not fit into ``max_memory`` bytes.
        """
        if max_memory is not None and self.memory_bytes > max_memory:
            raise UserError(
                f"--max-memory {max_memory / 1e9:.2f} GB is less than the {self.memory_bytes / 1e9:.2f} GB that"
                f" {self.largest} needs; nothing was read, give a larger --max-memory"
            )


def make_plan(checkpoint: Checkpoint, *, spectrum: bool = False) -> Plan:
    """Give every tensor of the checkpoint a role, or a reason to leave it out.

    Args:
        checkpoint: The checkpoint, of which only headers are read.
        spectrum: Whether all singular values are computed, which takes more memory.

    Raises:
        UserError: the checkpoint has no matrix to scan.
    """
    architecture = recognise({name: info.shape for name, info in checkpoint.tensors.items()})
    file_bytes = sum(file.stat().st_size for file in checkpoint.files)
    plan = Plan(architecture, file_bytes, checkpoint.unmapped_bytes, spectrum)
    layers: dict[tuple[str, int], dict[str, list[str]]] = {}
    for name, info in sorted(checkpoint.tensors.items()):
        place = architecture.role_of(name) if architecture else None
        if len(info.shape) != 2:
            plan.skipped[name] = f"not a matrix (shape {list(info.shape)})"
        elif info.dtype is None:
            plan.skipped[name] = (
                "not of floating-point numbers, or of 8 bits, which mean nothing without their scales"
            )
        elif 0 in info.shape:
            plan.skipped[name] = f"empty (shape {list(info.shape)})"
        elif architecture is None:
            layers[name, 0] = {"matrix": [name]}
        elif place is None:
            plan.skipped[name] = f"no role in {architecture.name}"
        else:
            stack, layer, role = place
            layers.setdefault((stack, layer), {}).setdefault(role, []).append(name)
    if not layers:
        raise UserError(
            f"{checkpoint.files[0].parent} holds no matrix to scan, only {len(plan.skipped)} other tensors; give a"
            " checkpoint with floating-point matrices"
        )
    for (stack, layer), roles in sorted(layers.items(), key=lambda item: (_natural(item[0][0]), item[0][1])):
        label = f"{stack}{layer}" if architecture else stack
        attention = {role: names for role, names in roles.items() if role in ("Q", "K", "V", "QKV")}
        others = [{role: names} for role, names in roles.items() if role not in attention]
        for parts in [attention, *others] if attention else others:
            group = Group(label, parts)
            plan.groups.append(group)
            _account(plan, group, [checkpoint.tensors[name] for names in parts.values() for name in names])
    return plan


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts ``block2`` before ``block10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _account(plan: Plan, group: Group, tensors: Sequence[TensorInfo]) -> None:
    """Add a group's bytes to the plan, and remember the group that needs the most memory."""
    stored = sum(tensor.nbytes for tensor in tensors)
    converted = sum(4 * math.prod(tensor.shape) for tensor in tensors if tensor.dtype not in WIDE_TYPES)
    reordered = stored if plan.architecture and plan.architecture.fused == "interleaved" else 0
    vectors = LANCZOS_VECTORS * 4 * max(min(tensor.shape) for tensor in tensors)
    mapped = min(REOPEN_BYTES, plan.file_bytes)
    entries = sum(math.prod(tensor.shape) for tensor in tensors)
    decomposition = 4 * 8 * entries if plan.spectrum else 0  # a copy, a work space and vectors in float64
    memory = (
        PROCESS_BYTES
        + plan.unmapped_bytes
        + decomposition
        + mapped
        + stored
        + converted
        + reordered
        + vectors
    )
    plan.bytes_to_read += stored
    if memory > plan.memory_bytes:
        plan.memory_bytes = memory
        plan.largest = f"{group.layer} {', '.join(group.parts)}"
