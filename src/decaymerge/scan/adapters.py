"""Scan of a LoRA adapter: norms and ranks of what it adds to each matrix, beside the matrix of its base.

An adapter is of low rank by construction. Its stable rank says how much of that rank it uses, and the shares say
whether it changes the base where the base acts most, in its leading singular directions, or elsewhere.
"""

import numpy as np
import xarray as xr
from torch import Tensor

from decaymerge import store
from decaymerge.checkpoint.adapted import Adapted
from decaymerge.errors import UserError
from decaymerge.low_rank import LowRank
from decaymerge.merge_checkpoints.matrices import matrices_of
from decaymerge.merge_checkpoints.predicted_interference import leading_inputs
from decaymerge.merge_checkpoints.table import aligned
from decaymerge.progress import progress_bar
from decaymerge.scan.spectral import frobenius_norm, spectral_norm
from decaymerge.workflow.jobs import AdapterScanJob

LONG_NAMES = {
    "rank": "r, number of columns of B",
    "frobenius_norm": "Frobenius norm of Δ, which the adapter adds",
    "spectral_norm": "spectral norm of Δ",
    "stable_rank": "squared Frobenius norm over squared spectral norm of Δ",
    "base_frobenius_norm": "Frobenius norm of the base's matrix",
    "base_spectral_norm": "spectral norm of the base's matrix",
    "base_stable_rank": "stable rank of the base's matrix",
    "input_share": "‖Δ V‖_F² / ‖Δ‖_F², with V the r leading right singular vectors of the base's matrix",
    "output_share": "‖Uᵀ Δ‖_F² / ‖Δ‖_F², with U the r leading left singular vectors of the base's matrix",
    "input_share_by_chance": "r over the input dimension: the share of a Δ that knows nothing of the base",
    "output_share_by_chance": "r over the output dimension",
}


def scan(job: AdapterScanJob, adapted: Adapted) -> xr.Dataset:
    """The variables of ``LONG_NAMES`` over ``matrix``, with role and layer of each matrix that the adapter changes.

    Args:
        job: Tolerance of the base's spectral norms.
        adapted: The adapter with its base.

    Raises:
        UserError: the adapter changes no matrix by factors, or an entry is infinite or NaN.
    """
    factored = adapted.modules.keys() - adapted.replaced.keys()
    matrices = [matrix for matrix in matrices_of(adapted) if matrix.name in factored]
    if not matrices:
        raise UserError(
            f"{adapted.place} adds factors to no matrix of two dimensions; there is nothing to scan"
        )
    rows: list[dict[str, float]] = []
    with progress_bar("scanning the adapter", len(matrices), "matrix") as bar:
        for matrix in matrices:
            stored = adapted.base.read([matrix.name])[0]
            base = stored.double() if stored.element_size() == 8 else stored.float()
            change = adapted.change(matrix.name, base)
            if not base.isfinite().all():
                raise UserError(f"{matrix.name} of {adapted.base.place} has an infinite or NaN entry")
            assert isinstance(change, LowRank)
            if matrix.stored_inputs_first:
                base, change = base.mT, change.mT
            rows.append(measure(change, base.contiguous(), job.tolerance))
            bar.update()
    dataset = xr.Dataset(
        {name: ("matrix", np.array([row[name] for row in rows])) for name in LONG_NAMES},
        {
            "matrix": [matrix.name for matrix in matrices],
            "role": ("matrix", [matrix.role for matrix in matrices]),
            "layer_name": ("matrix", [matrix.layer for matrix in matrices]),
        },
    )
    return store.describe(dataset, LONG_NAMES)


def measure(change: LowRank, base: Tensor, tolerance: float) -> dict[str, float]:
    """The variables of ``LONG_NAMES`` of one matrix.

    Args:
        change: Δ (out, in).
        base: The base's matrix (out, in).
        tolerance: Of the base's spectral norm.
    """
    _, values, _ = change.svd()
    squares = float(values.square().sum())
    norm = frobenius_norm([base])
    spectral = spectral_norm([base], norm, tolerance).value
    rank = min(change.rank, *base.shape)
    inputs, outputs = (leading_inputs(matrix.contiguous().numpy(), rank) for matrix in (base, base.T))
    left, right = change.left.numpy(), change.right.numpy()
    shares = [
        float(np.linalg.norm(part) ** 2) / squares if squares else np.nan
        for part in (left @ (right @ inputs), (outputs.T @ left) @ right)
    ]
    return {
        "rank": change.rank,
        "frobenius_norm": squares**0.5,
        "spectral_norm": float(values[0]),
        "stable_rank": squares / float(values[0]) ** 2 if squares else np.nan,
        "base_frobenius_norm": norm,
        "base_spectral_norm": spectral,
        "base_stable_rank": (norm / spectral) ** 2 if spectral else np.nan,
        "input_share": shares[0],
        "output_share": shares[1],
        "input_share_by_chance": rank / base.shape[1],
        "output_share_by_chance": rank / base.shape[0],
    }


def table(scanned: xr.Dataset) -> str:
    """Medians over the matrices of each role."""
    columns = {
        "r": ("rank",),
        "‖Δ‖_F": ("frobenius_norm",),
        "of base": ("base_frobenius_norm",),
        "stable rank": ("stable_rank",),
        "of base ": ("base_stable_rank",),
        "share of Δ in base's inputs": ("input_share", "input_share_by_chance"),
        "in its outputs": ("output_share", "output_share_by_chance"),
    }
    rows = [["role", "matrices", *columns]]
    for role in dict.fromkeys(scanned.role.values.tolist()):
        chosen = scanned.where(scanned.role == role, drop=True).median("matrix")
        cells = [
            f"{float(chosen[names[0]]):.3g}"
            + "".join(f" (chance {float(chosen[name]):.2g})" for name in names[1:])
            for names in columns.values()
        ]
        rows.append([str(role), str(int((scanned.role == role).sum())), *cells])
    return f"medians over matrices\n{aligned(rows)}"
