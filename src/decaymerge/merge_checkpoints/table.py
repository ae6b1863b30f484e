"""The tables that merging prints: what is expected of each role, and the matrices of which most is expected."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from decaymerge.errors import printable

CHANGE = "change of the output"
LARGEST = 5
"""Number of matrices that are named."""


def norms_table(predicted: xr.Dataset) -> str:
    """Median of the norms of what is summed, for each role, and the matrices with the largest change by others.

    Args:
        predicted: ``frobenius_norm (matrix, model)``.
    """
    symbol = "Δ" if predicted.attrs["summed"] == "task vectors" else "W"
    norms = predicted.frobenius_norm
    others = np.sqrt((norms**2).sum("model") - norms**2)
    title = f"median ‖{symbol}‖_F"
    unchanged = int((norms == 0).all("model").sum())
    lines = [
        by_role(predicted, {title: norms}),
        largest(predicted, {f"‖{symbol}‖_F of the others": others}, "largest changes by the other models"),
        "from weights alone nothing ranks matrices better than this norm; --inputs does",
    ]
    if unchanged:
        lines.append(f"{unchanged} of {predicted.sizes['matrix']} matrices are unchanged in all models")
    return "\n".join(lines)


def inputs_table(measured: xr.Dataset) -> str:
    """What the other models do on the inputs, for each role, and the matrices with the largest effect.

    Args:
        measured: ``action_on_inputs`` and ``output_change (matrix, model)``.
    """
    columns = {
        "others' action / own": measured.action_on_inputs,
        CHANGE: measured.output_change,
    }
    return "\n".join(
        [
            by_role(measured, columns),
            largest(measured, columns, "largest changes, to first order", by=CHANGE),
        ]
    )


def by_role(dataset: xr.Dataset, columns: Mapping[str, xr.DataArray]) -> str:
    """A line for each role: the number of its matrices, and medians over them for each model."""
    models = dataset.model.values.tolist()
    rows = [["role", "matrices", *columns]]
    for role in dict.fromkeys(dataset.role.values.tolist()):
        chosen = dataset.role == role
        cells = [_numbers(values.where(chosen, drop=True).median("matrix")) for values in columns.values()]
        rows.append([str(role), str(int(chosen.sum())), *cells])
    return f"medians over matrices; in each column: {', '.join(models)}\n{aligned(rows)}"


def largest(
    dataset: xr.Dataset, columns: Mapping[str, xr.DataArray], title: str, by: str | None = None
) -> str:
    """The matrices with the largest values of a column, in any model."""
    key = columns[by or next(iter(columns))].max("model").fillna(-1)
    order = np.argsort(-key.values, kind="stable")[:LARGEST]
    rows = [[title, *columns]]
    rows += [
        [str(dataset["matrix"].values[i]), *(_numbers(values.isel(matrix=i)) for values in columns.values())]
        for i in order
    ]
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """Cells in columns, the first row being the titles."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _numbers(values: xr.DataArray) -> str:
    """Three digits for each model, or "-" for NaN."""
    return " ".join(f"{value:.3g}" if np.isfinite(value) else "-" for value in values.values)
