"""Compare the speed of training and evaluation with other ways to compute the same, in one run on one thread.

usage: python benchmarks/train.py [--small]

``--small`` takes few steps: it shows that the benchmark works.
"""

import os
import sys
from pathlib import Path

import torch

from comparison import HERE, Row, medians, on_one_thread, row, seconds, show
from decaymerge import network
from decaymerge.fetch import fashion_mnist
from training import data_of, experiment, flops_of, plain_step_of, products_of, step_of

SMALL = "--small" in sys.argv
LARGE_STEPS = 2 if SMALL else 500
"""Number of steps of the paper's size in one timing."""
SMALL_STEPS = 20 if SMALL else 5000
"""Number of steps of Figure 2's networks in one timing."""


def paper_size() -> list[Row]:
    """Training at the paper's size: n = 1000, d = 100, of which a task has 50, widths 100, 10 seeds."""
    settings = experiment([100, 100], 10, {"dim": 100, "samples": 1000})
    data = data_of(settings)
    flops = 10 * flops_of(1000, [50, 100, 100, 1])
    plain, step, products = medians(
        plain_step_of(settings, data, LARGE_STEPS),
        step_of(settings, data, LARGE_STEPS),
        lambda: products_of(1000, [50, 100, 100, 1], 10, LARGE_STEPS),
    )
    return [
        row(
            "training at the paper's size",
            products / step,
            f"its products alone, {flops / products / 1e9:.0f} GFLOP/s against {flops / step / 1e9:.0f}",
            "1, where activations and memory take no time",
            0.8,
        ),
        row(
            "training at the paper's size",
            10 * plain / step,
            f"a plain PyTorch loop over ten networks, {10 * plain * 1e3:.1f} ms against {step * 1e3:.1f}",
            f"{10 * plain / products:.2f}, the products alone",
            1.3,
        ),
    ]


def padded_images(samples: int, goal: float) -> Row:
    """Training on Fashion-MNIST with two tasks: 1568 coordinates, of which the inputs of one task span few."""
    cache = Path(os.environ.get("DECAYMERGE_CACHE", HERE.parent / "resources")) / "fashion_mnist"
    fashion_mnist.fetch(cache, None)
    files = tuple(cache / name for name in fashion_mnist.SHA256)
    settings = experiment([100, 100], 2, {"dataset": "fashion_mnist", "samples": samples})
    data = data_of(settings, files)
    rank = int(torch.linalg.matrix_rank(torch.from_numpy(data.inputs.values)).max())
    full, span = medians(
        step_of(settings, data, LARGE_STEPS, full_space=True), step_of(settings, data, LARGE_STEPS)
    )
    flops_ratio = flops_of(samples, [1568, 100, 100, 1]) / flops_of(samples, [rank, 100, 100, 1])
    return row(
        f"first layer in {rank} of 1568 coordinates, n = {samples}",
        full / span,
        f"all coordinates, {full * 1e3:.1f} ms a step of two networks against {span * 1e3:.1f}",
        f"{flops_ratio:.2f}, floating-point operations",
        goal,
    )


def small_networks(members: int, goal: float) -> Row:
    """Training of Figure 2's networks: widths 10, minibatches of 100 of 1000 samples with d = 20."""
    training = {"optimiser": "sgd", "step_size": 0.1, "batch_size": 100}
    settings = experiment([10, 10], members, {"dim": 20, "samples": 1000, "overlap": "same"}, training)
    data = data_of(settings)
    plain, step, products = medians(
        plain_step_of(settings, data, SMALL_STEPS),
        step_of(settings, data, SMALL_STEPS),
        lambda: products_of(100, [20, 10, 10, 1], members, SMALL_STEPS),
    )
    return row(
        f"{members} small networks in minibatches",
        members * plain / step,
        f"a plain PyTorch loop, {plain * 1e6:.0f} us a step of one against {step * 1e6:.0f} of all",
        f"{members * plain / products:.0f}, the products alone",
        goal,
    )


def evaluation() -> Row:
    """Evaluation at the paper's size: outputs of 10 seeds at 40 kept steps."""
    settings = experiment([100, 100], 10, {"dim": 100, "samples": 1000})
    inputs = torch.randn(10, 1000, 100)
    weights = [torch.randn(10, 40, above, below) for below, above in ((100, 100), (100, 100), (100, 1))]

    def one_by_one() -> None:
        for seed in range(10):
            for step in range(40):
                hidden = inputs[seed]
                for weight in weights[:-1]:
                    hidden = torch.relu(hidden @ weight[seed, step].T)
                _ = hidden @ weights[-1][seed, step].T

    plain, tiled = medians(
        lambda: seconds(one_by_one),
        lambda: seconds(lambda: network.outputs(settings.network, weights, inputs)),
    )
    flops = 2.0 * 10 * 40 * 1000 * (2 * 100 * 100 + 100)
    return row(
        "outputs of 10 seeds at 40 kept steps",
        plain / tiled,
        f"one network after the other, {plain:.3f} s against {tiled:.3f}",
        f"at {flops / tiled / 1e9:.0f} GFLOP/s",
        1.0,
    )


def main() -> None:
    """Run all comparisons, print them as a table and write them to ``train.json``."""
    on_one_thread()
    torch.set_flush_denormal(True)
    rows = [
        *paper_size(),
        padded_images(1000, 1.6),
        padded_images(500, 2.2),
        small_networks(10, 5),
        small_networks(50, 12),
        evaluation(),
    ]
    show(rows, None if SMALL else "train")


if __name__ == "__main__":
    main()
