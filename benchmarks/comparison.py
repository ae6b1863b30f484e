"""Functions that all benchmarks share: run on one thread, take medians of timings, and print rows of a table."""

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
"""Number of rounds in which each timing is repeated."""

Row = dict[str, Any]
"""One comparison: name, ratio, what it is compared with, the limit of the ratio, and the goal."""


def on_one_thread() -> None:
    """Start this process again with one thread, because libraries read the number when they are loaded."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(*timings: Callable[[], float], repeats: int = REPEATS) -> list[float]:
    """Median of the results of each function, such as seconds.

    The functions take turns, so that a slow moment of the machine hits all of them. The first round does not count.
    """
    for timing in timings:
        timing()
    rounds = [[timing() for timing in timings] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def row(name: str, ratio: float | None, against: str, limit: str, goal: float | None = None) -> Row:
    """One comparison.

    Args:
        name: What is measured.
        ratio: The result, of which higher is better; none if no ratio is asked for.
        against: What it is compared with, and the measured numbers.
        limit: The ratio that could be reached at best, and why.
        goal: The ratio that is aimed at, or none.
    """
    return {"name": name, "ratio": ratio, "against": against, "limit": limit, "goal": goal}


def show(rows: Sequence[Row], keep_as: str | None) -> None:
    """Print the rows as a table and, unless ``keep_as`` is none, write them to ``benchmarks/{keep_as}.json``."""
    print(f"{'':46}{'ratio':>9}{'goal':>7}  against; limit")
    for entry in rows:
        ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f}"
        goal = "" if entry["goal"] is None else f"{entry['goal']:.2f}"
        print(f"{entry['name']:46}{ratio:>9}{goal:>7}  {entry['against']}; limit: {entry['limit']}")
    if keep_as is not None:
        (HERE / f"{keep_as}.json").write_text(json.dumps(list(rows), indent=2) + "\n")
