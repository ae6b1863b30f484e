"""What a scan will read and how much memory it needs, from the headers alone."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from decaymerge.errors import UserError
from decaymerge.scan.architectures import Architecture, recognise
from decaymerge.scan.checkpoint import REOPEN_BYTES, Checkpoint, TensorInfo

PROCESS_BYTES = 450_000_000
"""Resident memory of the command before it reads anything, rounded up."""
WIDE = (torch.float32, torch.float64)
"""Types that are computed with as they are; all others are converted to float32."""
LANCZOS_VECTORS = 300
"""Room for Lanczos vectors; matrices without a gap take about a hundred."""


@dataclass(frozen=True)
class Group:
    """Matrices that are in memory at the same time: one, or Q, K and V of one layer."""

    layer: str
    """Stack and index, as in ``encoder.layer.3``; or the tensor's name where the architecture is unknown."""
    parts: dict[str, list[str]]
    """Role to tensors, joined along the output axis. A role is ``matrix`` where the architecture is unknown."""


@dataclass
class Plan:
    """All groups in the order of layers, and all tensors that are left out, with the reason."""

    architecture: Architecture | None
    file_bytes: int
    whole_bytes: int = 0
    """Of legacy files, which are in memory whole."""
    spectrum: bool = False
    groups: list[Group] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    bytes_to_read: int = 0
    memory_bytes: int = PROCESS_BYTES
    largest: str = ""

    def check(self, max_memory: int | None) -> None:
        """Refuse before anything is read.

        Raises:
            UserError: the largest group does not fit into ``max_memory`` bytes.
        """
        if max_memory is not None and self.memory_bytes > max_memory:
            raise UserError(
                f"--max-memory {max_memory / 1e9:.2f} GB is less than the {self.memory_bytes / 1e9:.2f} GB that"
                f" {self.largest} needs; allow more, nothing was read"
            )


def make_plan(checkpoint: Checkpoint, *, spectrum: bool = False) -> Plan:
    """Assign every tensor of the checkpoint to a role or to the list of what is left out.

    Raises:
        UserError: nothing is left to scan.
    """
    architecture = recognise({name: info.shape for name, info in checkpoint.tensors.items()})
    plan = Plan(
        architecture, sum(file.stat().st_size for file in checkpoint.files), checkpoint.whole_bytes, spectrum
    )
    found: dict[tuple[str, int], dict[str, list[str]]] = {}
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
            found[name, 0] = {"matrix": [name]}
        elif place is None:
            plan.skipped[name] = f"no role in {architecture.name}"
        else:
            stack, layer, role = place
            found.setdefault((stack, layer), {}).setdefault(role, []).append(name)
    if not found:
        raise UserError(
            f"{checkpoint.files[0].parent} holds no matrix to scan but {len(plan.skipped)} other tensors"
        )
    for (stack, layer), roles in sorted(found.items(), key=lambda item: (_natural(item[0][0]), item[0][1])):
        label = f"{stack}{layer}" if architecture else stack
        together = {role: names for role, names in roles.items() if role in ("Q", "K", "V", "QKV")}
        alone = [{role: names} for role, names in roles.items() if role not in together]
        for parts in [together, *alone] if together else alone:
            group = Group(label, parts)
            plan.groups.append(group)
            _account(plan, group, [checkpoint.tensors[name] for names in parts.values() for name in names])
    return plan


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts ``block2`` before ``block10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _account(plan: Plan, group: Group, tensors: Sequence[TensorInfo]) -> None:
    stored = sum(tensor.nbytes for tensor in tensors)
    converted = sum(4 * math.prod(tensor.shape) for tensor in tensors if tensor.dtype not in WIDE)
    reordered = stored if plan.architecture and plan.architecture.fused == "interleaved" else 0
    vectors = LANCZOS_VECTORS * 4 * max(min(tensor.shape) for tensor in tensors)
    mapped = min(REOPEN_BYTES, plan.file_bytes)
    entries = sum(math.prod(tensor.shape) for tensor in tensors)
    decomposition = 4 * 8 * entries if plan.spectrum else 0  # a copy, a work space and vectors in float64
    memory = (
        PROCESS_BYTES + plan.whole_bytes + decomposition + mapped + stored + converted + reordered + vectors
    )
    plan.bytes_to_read += stored
    if memory > plan.memory_bytes:
        plan.memory_bytes = memory
        plan.largest = f"{group.layer} {', '.join(group.parts)}"
