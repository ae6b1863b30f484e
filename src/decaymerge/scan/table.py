"""What a scan prints: the plan before it reads, and the norms and ranks after."""

from collections import Counter

import numpy as np
import xarray as xr

from decaymerge.scan.checkpoint import Checkpoint
from decaymerge.scan.plan import Plan

SHOWN = 4
"""Names that are listed of what is left out, for each reason."""


def of_plan(checkpoint: Checkpoint, plan: Plan) -> str:
    """Architecture, shapes by role, bytes and memory, and what is left out and why."""
    kind = plan.architecture.name if plan.architecture else "unknown; every matrix is scanned by its name"
    matrices = sum(len(names) for group in plan.groups for names in group.parts.values())
    lines = [
        f"architecture: {kind}",
        f"to read: {matrices} matrices, {plan.bytes_to_read / 1e6:.1f} MB",
        f"memory: {plan.memory_bytes / 1e9:.2f} GB, for {plan.largest} and the program itself",
    ]
    shapes: dict[str, Counter[str]] = {}
    for group in plan.groups:
        for role, names in group.parts.items():
            for name in names:
                info = checkpoint.tensors[name]
                shown = f"{' x '.join(map(str, info.shape))} {str(info.dtype).removeprefix('torch.')}"
                shapes.setdefault(role, Counter())[shown] += 1
    lines += [
        f"  {role}: {', '.join(f'{n} of {s}' for s, n in counts.items())}" for role, counts in shapes.items()
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in plan.skipped.items():
        reasons.setdefault(reason.split(" (")[0], []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"left out, {reason}: {', '.join(names[:SHOWN])}{more}")
    return "\n".join(lines)


def of_scan(scanned: xr.Dataset) -> str:
    """One line a layer: Frobenius norm and stable rank of each role."""
    width = max(len(name) for name in scanned.layer_name.values)
    cell = 17
    lines = [
        name.ljust(width) + "".join(text.rjust(cell) for text in cells)
        for name, *cells in (["", *scanned.role.values.tolist()], *rows_of(scanned))
    ]
    return "\n".join(["Frobenius norm / stable rank".rjust(width + cell), *lines])


def rows_of(scanned: xr.Dataset) -> list[list[str]]:
    """A row for each layer: its name, and norm and stable rank of each role."""
    return [
        [
            str(name),
            *(
                f"{norm:.4g} / {rank:.3g}" if np.isfinite(norm) else "-"
                for norm, rank in zip(norms, ranks, strict=True)
            ),
        ]
        for name, norms, ranks in zip(
            scanned.layer_name.values,
            scanned.frobenius_norm.transpose("layer", "role").values,
            scanned.stable_rank.transpose("layer", "role").values,
            strict=True,
        )
    ]
