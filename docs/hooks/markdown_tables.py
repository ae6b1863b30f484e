"""Tables in Markdown, and numbers with their intervals."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from decaymerge import store

PERCENT = 100.0


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_interval(row: pd.Series, name: str = "mean", factor: float = 1.0) -> str:
    """A mean and half the width of its interval, which has two digits; the mean alone where all seeds agree.

    Two seeds have an interval that says nothing: their number is given in its place. A rate of 0 has an upper
    limit.
    """
    low, high, n = (f"{name}_{part}".removeprefix("mean_") for part in ("low", "high", "n"))
    mean, half = factor * row[name], factor * (row[high] - row[low]) / 2
    if not np.isfinite(mean):
        return ""
    if row.get(n, 3) < 3:
        return f"{mean:.2g} ({row[n]:g} seeds)"
    if mean == 0 and factor * row[low] == 0 and half > 0:
        return f"0 (< {factor * row[high]:.1g})"
    if not half > 1e-9 * abs(mean):
        return f"{mean:.3g}"
    decimals = max(0, 1 - int(np.floor(np.log10(half))))
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"


class Table:
    """The rows of one experiment, by quantity and model.

    Args:
        run: Folder of ``docs/numbers``.
        experiment: Its name.
        merge_set: Its merge set; the last one, that of all tasks, if none is given.
    """

    def __init__(self, run: Path, experiment: str, merge_set: str | None = None) -> None:
        table = store.read_table(run / f"{experiment}.csv")
        table = table[table.merge_set == (merge_set or table.merge_set.iloc[-1])]
        self.rows = {(row.quantity, row.model, row.weight_decay): row for _, row in table.iterrows()}
        self.sweep = sorted(table.weight_decay.unique())

    def cell(self, quantity: str, model: str, weight_decay: float, factor: float = 1.0) -> str:
        """Mean and interval of a quantity, or a dash where there is none."""
        row = self.rows.get((quantity, model, weight_decay))
        return "-" if row is None else with_interval(row, factor=factor)

    def networks(self, weight_decay: float) -> str:
        """Number of seeds whose networks have not collapsed, and how many networks have."""
        row = self.rows.get(("loss", "own", weight_decay))
        if row is None:
            return "all collapsed"
        return f"{row.n:g}" + (f" ({row.collapsed:g} networks collapsed)" if row.collapsed else "")
