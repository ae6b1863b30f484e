"""The table that merging prints: the predicted interference of every matrix, and a summary."""

import numpy as np
import xarray as xr


def prediction_table(predicted: xr.Dataset) -> str:
    """One line a matrix, with a number for each model in each column, and the summary at the end."""
    symbol = "Δ" if predicted.attrs["summed"] == "task vectors" else "W"
    columns = {
        f"‖{symbol}‖_F": predicted.frobenius_norm,
        "spectral norm": predicted.spectral_norm,
        "stable rank": predicted.stable_rank,
        "overlap": predicted.overlap,
        f"⟨{symbol}_A, {symbol}_B⟩": predicted.inner_product,
        "interference": predicted.interference,
    }
    models = predicted.model.values.tolist()
    header = ["matrix", "role", *columns, ""]
    rows = [header]
    for i in range(predicted.sizes["matrix"]):
        matrix = predicted.isel(matrix=i)
        cells = [
            " ".join(_number(value) for value in values.isel(matrix=i).values) for values in columns.values()
        ]
        mark = "collides" if matrix.collides.any() else ""
        rows.append([str(matrix["matrix"].values), str(matrix.role.values), *cells, mark])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [f"predicted interference; in each column: {', '.join(models)}", *lines, summary(predicted)]
    )


def summary(predicted: xr.Dataset) -> str:
    """One line: the number of matrices that collide, and of those that no model has changed."""
    colliding = int(predicted.collides.any("model").sum())
    unchanged = int((predicted.frobenius_norm == 0).all("model").sum())
    line = f"{colliding} of {predicted.sizes['matrix']} matrices collide: interference of at least"
    line += f" {predicted.attrs['collides_from']:g}, a threshold of ours that many good merges pass"
    return line + (f"; {unchanged} are unchanged in all models" if unchanged else "")


def _number(value: float) -> str:
    """Three digits, or "-" for NaN."""
    return f"{value:.3g}" if np.isfinite(value) else "-"
