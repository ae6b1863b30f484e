"""Measure how the time of training grows with seeds, λ, samples, dimension, width and depth.

usage: python benchmarks/cost.py [--small]

The results are docs/cost.png and benchmarks/cost.json. ``--small`` takes few steps: it shows that the benchmark
works, and writes nothing.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comparison import HERE, medians, on_one_thread
from training import data_of, experiment, flops_of, step_of

SMALL = "--small" in sys.argv
FLOPS = 2e7 if SMALL else 1e11
"""Floating-point operations of one timing."""
BASE: dict[str, Any] = {"seeds": 10, "weight_decays": 1, "n": 1000, "d": 100, "width": 100, "depth": 3}
SWEEPS: dict[str, tuple[str, Sequence[int]]] = {
    "seeds": ("seeds", (1, 2, 5, 10, 20, 50)),
    "weight_decays": ("values of λ", (1, 2, 4, 8)),
    "n": ("samples n", (100, 300, 1000, 3000, 10_000)),
    "d": ("dimension d (a task has half)", (50, 100, 200, 400, 800)),
    "width": ("widths", (10, 30, 100, 300, 1000)),
    "depth": ("layers K", (2, 3, 4, 6, 8)),
}


def timed_step(sizes: dict[str, Any]) -> tuple[Callable[[], float], float]:
    """A function that returns the seconds of one step for all seeds and λ, and the operations of this step.

    Args:
        sizes: The keys of ``BASE``.
    """
    seeds, samples, dim, width = (sizes[name] for name in ("seeds", "n", "d", "width"))
    hidden = [width] * (sizes["depth"] - 1)
    settings = experiment(hidden, seeds, {"dim": dim, "samples": samples}, {"step_size": 0.01})
    flops = seeds * flops_of(samples, [min(samples, dim // 2), *hidden, 1])
    step = step_of(settings, data_of(settings), max(1, min(2000, int(FLOPS / flops))))
    return (lambda: sum(step() for _ in range(sizes["weight_decays"]))), sizes["weight_decays"] * flops


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent of the power law that fits the costs."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def sweep(name: str, values: Sequence[int]) -> dict[str, Any]:
    """Seconds of a step at each value of one size; the other sizes are those of ``BASE``."""
    timings, flops = zip(*[timed_step(BASE | {name: value}) for value in values], strict=True)
    times = medians(*timings, repeats=1 if SMALL else 5)
    result = {
        "name": name,
        "values": list(values),
        "seconds": times,
        "flops": list(flops),
        "expected": slope(values, flops),
        "found": slope(values, times),
    }
    print(f"{name:14} expected {result['expected']:.2f}, found {result['found']:.2f}", flush=True)
    return result


def draw(sweeps: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one panel for each sweep: measured time, and the time of its operations at the largest measured rate."""
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import LogLocator

    sns.set_theme(context="paper", style="ticks")
    rate = max(max(np.divide(entry["flops"], entry["seconds"])) for entry in sweeps)
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 4.4), layout="constrained")
    for panel, entry in zip(panels.flat, sweeps, strict=True):
        panel.loglog(entry["values"], np.array(entry["flops"]) / rate, "--", color="0.6")
        panel.loglog(entry["values"], entry["seconds"], "o-")
        panel.set_title(f"slope {entry['expected']:.2f} expected, {entry['found']:.2f} found", fontsize=8)
        panel.set_xlabel(SWEEPS[entry["name"]][0])
        panel.set_xticks(entry["values"], [f"{value:g}" for value in entry["values"]])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda seconds, _: f"{1e3 * seconds:g}")
    for panel in panels[:, 0]:
        panel.set_ylabel("milliseconds a step")
    handles = panels[0, 0].get_lines()[::-1]
    labels = ["measured", f"its operations at {rate / 1e9:.0f} billion a second, the highest rate measured"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    sns.despine(figure)
    figure.savefig(path, dpi=200)


def main() -> None:
    """Run all sweeps, draw them and write them to ``cost.json``."""
    on_one_thread()
    sweeps = [sweep(name, values) for name, (_, values) in SWEEPS.items()]
    if SMALL:
        with tempfile.TemporaryDirectory() as folder:
            draw(sweeps, Path(folder) / "cost.png")
        return
    (HERE / "cost.json").write_text(json.dumps(sweeps, indent=2) + "\n")
    draw(sweeps, HERE.parent / "docs/cost.png")


if __name__ == "__main__":
    main()
