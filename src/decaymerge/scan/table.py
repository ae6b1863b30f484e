"""The tables that a scan prints: its plan before it reads, and the norms and ranks afterwards."""

from collections import Counter

import numpy as np
import xarray as xr

from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import listed, printable
from decaymerge.scan.plan import Plan

LISTED_NAMES = 4
"""Number of names that are listed for each reason to leave tensors out."""
COLUMNS = 100
"""Of the terminal for which the table of norms is made."""
MOST_ROWS = 1000
"""Of the table of norms; files have all."""


def plan_table(checkpoint: Checkpoint, plan: Plan) -> str:
    """Lines with architecture, bytes and memory, the shapes of each role, and the tensors left out, by reason."""
    kind = plan.architecture if plan.has_roles else "unknown; every matrix is scanned by its name"
    matrices = sum(len(names) for group in plan.groups for names in group.parts.values())
    lines = [
        f"names of: {kind}",
        f"to read: {matrices} matrices, {plan.bytes_to_read / 1e6:.1f} MB",
        f"memory: {plan.memory_bytes / 1e9:.2f} GB, for {plan.largest} and the program itself"
        + (f", {plan.threads} at a time" if plan.threads > 1 else ""),
    ]
    shapes: dict[str, Counter[str]] = {}
    for group in plan.groups:
        for role, names in group.parts.items():
            for name in names:
                info = checkpoint.tensors[name]
                shape = f"{' x '.join(map(str, info.shape))} {str(info.dtype).removeprefix('torch.')}"
                shapes.setdefault(role, Counter())[shape] += 1
    lines += [
        f"  {role}: {', '.join(f'{count} of {shape}' for shape, count in counts.items())}"
        for role, counts in shapes.items()
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in plan.skipped.items():
        reasons.setdefault(reason.split(" (")[0], []).append(name)
    for reason, names in reasons.items():
        lines.append(f"left out, {reason}: {listed(names, LISTED_NAMES)}")
    if plan.skipped:
        lines.append(f"left out: {plan.skipped_share:.1%} of all entries")
    return "\n".join(map(printable, lines))


def scan_table(scanned: xr.Dataset) -> str:
    """One line a layer, with Frobenius norm and stable rank of each role; where they are wide, blocks of roles."""
    rows = [[printable(name), *cells] for name, *cells in rows_of(scanned.isel(layer=slice(MOST_ROWS)))]
    rows = [["", *scanned.role.values.tolist()], *rows]
    name_width, *cell_widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    cell_width = 2 + max(cell_widths)
    most = max(1, (COLUMNS - name_width) // cell_width)
    blocks = -(-len(cell_widths) // most)
    size = -(-len(cell_widths) // blocks)
    lines = ["Frobenius norm / stable rank"]
    for first in range(1, len(rows[0]), size):
        lines += [
            name.ljust(name_width) + "".join(cell.rjust(cell_width) for cell in cells[first - 1 :][:size])
            for name, *cells in rows
        ]
    more = scanned.sizes["layer"] - len(rows) + 1
    lines += [f"… and {more} more layers, which --output writes"] if more else []
    return "\n".join(lines)


def rows_of(scanned: xr.Dataset) -> list[list[str]]:
    """A row for each layer: its name, then "norm / stable rank" of each role, or "-" if it has no such matrix."""
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
