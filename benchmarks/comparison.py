"""What all benchmarks share: one thread, medians of works that take turns, and rows of a table."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
REPEATS = 7

Row = dict[str, Any]


def on_one_thread() -> None:
    """Start this process anew with one thread, which libraries read when they are loaded."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(*works: Callable[[], float], repeats: int = REPEATS) -> list[float]:
    """Median of what each returns, such as its seconds; they take turns, after one round that does not count."""
    for work in works:
        work()
    rounds = [[work() for work in works] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def row(name: str, ratio: float | None, against: str, limit: str, goal: float | None = None) -> Row:
    """One comparison; ``ratio`` is such that higher is better, and none where none is asked for."""
    return {"name": name, "ratio": ratio, "against": against, "limit": limit, "goal": goal}


def show(rows: Sequence[Row], keep_as: str | None) -> None:
    """Print rows as a table and keep them as ``benchmarks/{keep_as}.json``."""
    print(f"{'':46}{'ratio':>9}{'goal':>7}  against; limit")
    for entry in rows:
        ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        goal = "" if entry["goal"] is None else f"{entry['goal']:.2f}"
        print(f"{entry['name']:46}{ratio:>9}{goal:>7}  {entry['against']}; limit: {entry['limit']}")
    if keep_as is not None:
        (HERE / f"{keep_as}.json").write_text(json.dumps(list(rows), indent=2) + "\n")
