"""How the time of training grows with seeds, λ, samples, dimension, width and depth: docs/cost.png and cost.json.

usage: python benchmarks/cost.py [--small]

``--small`` takes few steps: it shows that the benchmark works.
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
"""Of one timing."""
BASE: dict[str, Any] = {"seeds": 10, "weight_decays": 1, "n": 1000, "d": 100, "width": 100, "depth": 3}
SWEEPS: dict[str, tuple[str, Sequence[int]]] = {
    "seeds": ("seeds", (1, 2, 5, 10, 20, 50)),
    "weight_decays": ("values of λ", (1, 2, 4, 8)),
    "n": ("samples n", (100, 300, 1000, 3000, 10_000)),
    "d": ("dimension d (a task has half)", (50, 100, 200, 400, 800)),
    "width": ("widths", (10, 30, 100, 300, 1000)),
    "depth": ("layers K", (2, 3, 4, 6, 8)),
}


def cost_of(sizes: dict[str, Any]) -> tuple[Callable[[], float], float]:
    """What times one step of the sweep's size, and its floating-point operations."""
    seeds, samples, dim, width = (sizes[name] for name in ("seeds", "n", "d", "width"))
    hidden = [width] * (sizes["depth"] - 1)
    made = experiment(hidden, seeds, {"dim": dim, "samples": samples}, {"step_size": 0.01})
    of_one = seeds * flops_of(samples, [min(samples, dim // 2), *hidden, 1])
    step = step_of(made, data_of(made), max(1, min(2000, int(FLOPS / of_one))))
    return (lambda: sum(step() for _ in range(sizes["weight_decays"]))), sizes["weight_decays"] * of_one


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent of the power law through the points."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def sweep(name: str, values: Sequence[int]) -> dict[str, Any]:
    """Seconds of a step at each value, all others as in ``BASE``."""
    works, flops = zip(*[cost_of(BASE | {name: value}) for value in values], strict=True)
    times = medians(*works, repeats=1 if SMALL else 5)
    found = {
        "name": name,
        "values": list(values),
        "seconds": times,
        "flops": list(flops),
        "expected": slope(values, flops),
        "found": slope(values, times),
    }
    print(f"{name:14} expected {found['expected']:.2f}, found {found['found']:.2f}", flush=True)
    return found


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a sweep: time measured, and what the products take at the largest rate that was found."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(context="paper", style="ticks")
    rate = max(max(np.divide(entry["flops"], entry["seconds"])) for entry in found)
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 4.4), layout="constrained")
    for panel, entry in zip(panels.flat, found, strict=True):
        panel.loglog(entry["values"], np.array(entry["flops"]) / rate, "--", color="0.6", label="operations")
        panel.loglog(entry["values"], entry["seconds"], "o-", label="measured")
        panel.set_title(f"slope {entry['expected']:.2f} expected, {entry['found']:.2f} found", fontsize=8)
        panel.set_xlabel(SWEEPS[entry["name"]][0])
        panel.set_xticks(entry["values"], [f"{value:g}" for value in entry["values"]])
        panel.minorticks_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("seconds a step")
    panels[0, 0].legend(frameon=False, title=f"{rate / 1e9:.0f} GFLOP/s", title_fontsize=7, fontsize=7)
    sns.despine(figure)
    figure.savefig(path, dpi=200)


def main() -> None:
    """All sweeps."""
    on_one_thread()
    found = [sweep(name, values) for name, (_, values) in SWEEPS.items()]
    if SMALL:
        with tempfile.TemporaryDirectory() as folder:
            draw(found, Path(folder) / "cost.png")
        return
    (HERE / "cost.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(found, HERE.parent / "docs/cost.png")


if __name__ == "__main__":
    main()
