"""The plan of a scan, made from the headers alone: the matrices that it will read, and the memory that it needs."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from decaymerge.architectures import Place, Scheme, places, title, verified_types
from decaymerge.checkpoint import REOPEN_BYTES, Checkpoint
from decaymerge.checkpoint.form import Form, Part
from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError
from decaymerge.scan.lanczos import MOST_VECTORS
from decaymerge.scan.products import COMPILED_ENTRIES

PROCESS_BYTES = 450_000_000
"""Resident memory of the command before it reads anything, rounded up."""
COMPILER_BYTES = 150_000_000
"""Resident memory of numba and its compiler, for large matrices."""
MEASURED_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types whose matrices are measured as they are stored; those of other types are converted to float32."""

Key = tuple[str, int, int, Scheme | None, str]
"""Stack, layer, expert, scheme and part of matrices that are read together."""


@dataclass(frozen=True)
class Group:
    """Matrices that are in memory together: one matrix, or Q, K and V of one layer, or those of one expert."""

    stack: str
    """Beginning of the names of a stack of layers, as in ``encoder.layer``. Without roles, the tensor's name."""
    number: int
    """Number of the layer in its stack."""
    parts: dict[str, list[str]]
    """Names of the tensors of each role, which are joined along the output axis. Without roles, the role is
    ``matrix``."""
    scheme: Scheme | None = None
    """How the matrices are stored; none without roles."""
    part: Part = field(default_factory=Part)
    """The part of the model, which knows the number of heads."""

    @property
    def names(self) -> list[str]:
        """Names of its tensors, in the order of ``parts``."""
        return [name for part in self.parts.values() for name in part]

    @property
    def layer(self) -> str:
        """Stack and number, as in ``encoder.layer.3``."""
        return self.stack if self.scheme is None else f"{self.stack}.{self.number}".lstrip(".")


@dataclass
class Plan:
    """The groups of matrices to read, in the order of layers, and the tensors that are left out."""

    architecture: str
    """Names of the schemes, or ``unknown``."""
    file_bytes: int
    """Bytes of all files of the checkpoint."""
    unmapped_bytes: int = 0
    """Bytes of the files that cannot be mapped: they are in memory as a whole."""
    spectrum: bool = False
    """Whether all singular values are computed."""
    groups: list[Group] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Reason for each tensor that is left out."""
    skipped_share: float = 0.0
    """Their share of all entries."""
    bytes_to_read: int = 0
    """Bytes of all matrices as stored."""
    group_bytes: list[int] = field(default_factory=list)
    """Estimated memory of each group while it is measured."""
    process_bytes: int = PROCESS_BYTES
    """Resident memory of the command itself."""
    threads: int = 1
    """Number of groups that are measured at a time."""

    @property
    def has_roles(self) -> bool:
        """Whether any matrix has a role."""
        return any(group.scheme for group in self.groups)

    @property
    def memory_bytes(self) -> int:
        """Estimated peak of the resident memory."""
        mapped = min(REOPEN_BYTES, self.file_bytes)
        matrices = sum(sorted(self.group_bytes)[-self.threads :])
        return self.process_bytes + self.unmapped_bytes + mapped + matrices

    @property
    def largest(self) -> str:
        """Layer and roles of the group that needs the most memory."""
        group = self.groups[self.group_bytes.index(max(self.group_bytes))]
        return f"{group.layer} {', '.join(group.parts)}"

    def use(self, threads: int, max_memory: int) -> None:
        """Measure as many groups at a time as fit into ``max_memory`` bytes, from one to ``threads``."""
        self.threads = min(threads, len(self.groups))
        while self.threads > 1 and self.memory_bytes > max_memory:
            self.threads -= 1

    def check(self, max_memory: int) -> None:
        """Refuse a scan that needs more than ``max_memory`` bytes, before anything is read.

        Raises:
            UserError: the largest group does not fit into ``max_memory`` bytes.
        """
        if self.memory_bytes > max_memory:
            raise UserError(
                f"--max-memory {max_memory / 1e9:.3g} GB is less than the {self.memory_bytes / 1e9:.3g} GB that"
                f" {self.largest} needs; nothing was read, give a larger --max-memory"
            )


def make_plan(checkpoint: Checkpoint, form: Form | None = None, *, spectrum: bool = False) -> Plan:
    """Give every tensor of the checkpoint a role, or a reason to leave it out.

    Args:
        checkpoint: The checkpoint, of which only headers are read.
        form: Its form. Without one, and where the class is unknown, names decide.
        spectrum: Whether all singular values are computed, which takes more memory.

    Raises:
        UserError: the checkpoint has no matrix to scan.
    """
    form = form or Form(reason="no class was asked for")
    found = places_of(checkpoint, form, verified=True)
    by_name = {
        name for name in checkpoint.tensors if form.class_name and not _is_verified(form, form.part_of(name))
    }
    file_bytes = sum(file.stat().st_size for file in checkpoint.files)
    plan = Plan(title(found.values()) or "unknown", file_bytes, checkpoint.unmapped_bytes, spectrum)
    matrices: dict[str, Place | None] = {}
    for name, info in checkpoint.tensors.items():
        place = found.get(name)
        packed = place is not None and place.role in ("E1", "E2") and len(info.shape) == 3
        if len(info.shape) != 2 and not packed:
            plan.skipped[name] = f"not a matrix (shape {list(info.shape)})"
        elif info.dtype is None:
            plan.skipped[name] = "not of floating-point numbers"
        elif 0 in info.shape:
            plan.skipped[name] = f"empty (shape {list(info.shape)})"
        elif place is not None or not found or name in by_name:
            matrices[name] = place
        else:
            plan.skipped[name] = f"no role in {plan.architecture}"
    if not matrices:
        raise UserError(
            f"{checkpoint.place} holds no matrix to scan, only {len(plan.skipped)} other tensors; give a checkpoint"
            " with floating-point matrices"
        )
    for group in groups_of(checkpoint, form, matrices):
        plan.groups.append(group)
        _account(plan, group, [checkpoint.tensors[name] for name in group.names])
    entries = {name: math.prod(info.shape) for name, info in checkpoint.tensors.items()}
    plan.skipped_share = sum(entries[name] for name in plan.skipped) / max(1, sum(entries.values()))
    return plan


def places_of(checkpoint: Checkpoint, form: Form, *, verified: bool = False) -> dict[str, Place]:
    """Places of the tensors that have one, part by part.

    Args:
        checkpoint: The checkpoint.
        form: Its form.
        verified: Whether a part of a known class has roles only if its type was verified.
    """
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, info in checkpoint.tensors.items():
        parts.setdefault(form.part_of(name), {})[name] = info.shape
    found: dict[str, Place] = {}
    for part, shapes in parts.items():
        if not verified or not form.class_name or _is_verified(form, part):
            found |= places(shapes, form.parts[part].model_type if part in form.parts else "")
    return found


def _is_verified(form: Form, part: str) -> bool:
    return part in form.parts and form.parts[part].model_type in verified_types()


def groups_of(checkpoint: Checkpoint, form: Form, matrices: Mapping[str, Place | None]) -> list[Group]:
    """Matrices by the groups in which they are read, in the order of layers.

    Args:
        checkpoint: The checkpoint.
        form: Its form.
        matrices: Names of the matrices, and their places; none for those without a role.
    """
    layers: dict[Key, dict[str, list[str]]] = {}
    for name in sorted(matrices, key=_natural):
        place = matrices[name]
        part = form.part_of(name)
        key: Key
        if place is None:
            layers[name, 0, -1, None, part] = {"matrix": [name]}
        else:
            key = (place.stack.rstrip("."), place.layer, place.expert, place.scheme, part)
            layers.setdefault(key, {}).setdefault(place.role, []).append(name)
    groups = []
    for key in sorted(layers, key=lambda key: (_natural(key[0]), *key[1:3], str(key[3]))):
        stack, number, _, scheme, part = key
        roles = layers[key]
        attention = {role: names for role, names in roles.items() if role in ("Q", "K", "V", "QKV")}
        others = [{role: names} for role, names in roles.items() if role not in attention]
        config = form.parts.get(part) or _part_of(checkpoint.config, scheme)
        groups += [
            Group(stack, number, parts, scheme, config)
            for parts in ([attention, *others] if attention else others)
        ]
    return groups


def _part_of(config: Mapping[str, Any], scheme: Scheme | None) -> Part:
    """Numbers of heads as a config states them, where no class is known and the scheme needs them.

    Raises:
        UserError: a number of heads is no whole number above 0.
    """
    if scheme is None or (scheme.fused in ("no", "stacked") and not scheme.gated):
        return Part()
    numbers = [config.get(key) for key in ("num_attention_heads", "num_key_value_heads")]
    for number in numbers:
        if number is not None and (type(number) is not int or number < 1):
            raise UserError(
                f"config.json states {number!r} heads; it must be a whole number above 0 to split QKV"
            )
    return Part(heads=numbers[0], key_value_heads=numbers[1])


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts ``block2`` before ``block10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _account(plan: Plan, group: Group, tensors: Sequence[TensorInfo]) -> None:
    """Add a group's bytes to the plan."""
    stored = sum(tensor.nbytes for tensor in tensors)
    converted = sum(4 * math.prod(tensor.shape) for tensor in tensors if tensor.dtype not in MEASURED_TYPES)
    reordered = stored if group.scheme and (group.scheme.fused == "interleaved" or group.scheme.gated) else 0
    vectors = MOST_VECTORS * 4 * max(max(tensor.shape) for tensor in tensors)
    entries = [math.prod(tensor.shape) for tensor in tensors]
    # In float64: a copy, a work space and vectors.
    decomposition = 4 * 8 * sum(entries) if plan.spectrum else 0
    if max(entries) >= COMPILED_ENTRIES:
        plan.process_bytes = PROCESS_BYTES + COMPILER_BYTES
    plan.bytes_to_read += stored
    plan.group_bytes.append(decomposition + stored + converted + reordered + vectors)
