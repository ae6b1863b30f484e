"""What merging prints: the predicted interference of every matrix, and a summary."""

import numpy as np
import xarray as xr


def of_prediction(predicted: xr.Dataset) -> str:
    """One line a matrix, with a number for each model."""
    what = "Δ" if predicted.attrs["summed"] == "task vectors" else "W"
    columns = {
        f"‖{what}‖_F": predicted.frobenius_norm,
        "spectral norm": predicted.spectral_norm,
        "stable rank": predicted.stable_rank,
        "overlap": predicted.overlap,
        f"⟨{what}_A, {what}_B⟩": predicted.inner_product,
        "interference": predicted.interference,
    }
    models = predicted.model.values.tolist()
    head = ["matrix", "role", *columns, ""]
    rows = [head]
    for i in range(predicted.sizes["matrix"]):
        at = predicted.isel(matrix=i)
        cells = [
            " ".join(_number(value) for value in values.isel(matrix=i).values) for values in columns.values()
        ]
        rows.append(
            [str(at["matrix"].values), str(at.role.values), *cells, "collides" if at.collides.any() else ""]
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [f"predicted interference; in each column: {', '.join(models)}", *lines, summary(predicted)]
    )


def summary(predicted: xr.Dataset) -> str:
    """How many matrices collide, and how many nobody has changed."""
    collide = int(predicted.collides.any("model").sum())
    still = int((predicted.frobenius_norm == 0).all("model").sum())
    lines = f"{collide} of {predicted.sizes['matrix']} matrices collide: interference of at least"
    lines += f" {predicted.attrs['collides_from']:g}, a threshold of ours"
    return lines + (f"; {still} are unchanged in all models" if still else "")


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "-"
