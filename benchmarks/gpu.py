"""Compare training on a GPU with two cores of the same machine: its time, and how far its weights are off.

usage: python benchmarks/gpu.py [--small]

The time of two cores is that of one core, halved. Without a GPU, the benchmark says so and does not touch
``gpu.json``. ``--small`` takes few steps: it shows that the benchmark works.
"""

import sys
from functools import partial

import numpy as np
import torch

from comparison import Row, medians, on_one_thread, row, show
from decaymerge import store, train
from training import CPU, data_of, experiment, flops_of, products_of, step_of, train_job

SMALL = "--small" in sys.argv
STEPS = 20 if SMALL else 1000
REPEATS = 1 if SMALL else 5
DIMS = [50, 100, 100, 1]
PAPER_SIZE = {"dim": 100, "samples": 1000}


def paper_size(device: torch.device, blocks: tuple[int, ...]) -> list[Row]:
    """Time of a seed at the paper's size, in blocks of different numbers of seeds, against half of one core's."""
    settings = experiment([100, 100], 10, PAPER_SIZE)
    (core,) = medians(step_of(settings, data_of(settings), max(1, STEPS // 10)), repeats=REPEATS)
    rows = []
    for seeds in blocks:
        settings = experiment([100, 100], seeds, PAPER_SIZE)
        step, products = medians(
            step_of(settings, data_of(settings), STEPS, device),
            partial(products_of, 1000, DIMS, seeds, STEPS, device),
            repeats=REPEATS,
        )
        rate = seeds * flops_of(1000, DIMS) / step / 1e12
        rows.append(
            row(
                f"the paper's size on a GPU, {seeds} seeds",
                core / 20 * seeds / step,
                f"one core halved, {core / 20 * seeds * 1e3:.2f} ms a step against {step * 1e3:.3f},"
                f" {rate:.1f} TFLOP/s",
                f"{core / 20 * seeds / products:.1f}, the products alone",
            )
        )
    return rows


def small_networks(device: torch.device, blocks: tuple[int, ...]) -> list[Row]:
    """Time of a network of Figure 2, in blocks of different numbers of networks, against half of one core's."""
    sizes = {"dim": 20, "samples": 1000, "overlap": "same"}
    training = {"optimiser": "sgd", "step_size": 0.1, "batch_size": 100}
    settings = experiment([10, 10], 50, sizes, training)
    (core,) = medians(step_of(settings, data_of(settings), STEPS), repeats=REPEATS)
    rows = []
    for members in blocks:
        settings = experiment([10, 10], members, sizes, training)
        (step,) = medians(step_of(settings, data_of(settings), STEPS, device), repeats=REPEATS)
        rows.append(
            row(
                f"small networks on a GPU, {members} members",
                core / 100 * members / step,
                f"one core halved, {core / 100 * members * 1e6:.0f} us a step against {step * 1e6:.0f}",
                "minibatches, which are drawn on the processor",
            )
        )
    return rows


def deviation(device: torch.device, dtype: str) -> Row:
    """Largest difference of a weight at a kept step from the CPU's, relative to the largest weight of its layer."""
    training = {"steps": 2 * STEPS, "kept_steps": 10, "dtype": dtype}
    settings = experiment([100, 100], 3, PAPER_SIZE, training)
    job, data = train_job(settings), data_of(settings)
    on_cpu, on_gpu = (
        store.with_whole_first_layer(train.train(job, data, processor)) for processor in (CPU, device)
    )
    largest = max(
        float(np.abs(on_gpu[name] - on_cpu[name]).max() / np.abs(on_cpu[name]).max())
        for name in ("W1", "W2", "W3")
    )
    return row(
        f"weights after {2 * STEPS} steps in {dtype}",
        None,
        f"those of the CPU, {largest:.1e} off",
        "rounding",
    )


def main() -> None:
    """Run all comparisons if there is a GPU."""
    if not torch.cuda.is_available():
        print("no GPU: nothing is measured; benchmarks/gpu.json has the numbers of an earlier run")
        return
    on_one_thread()
    torch.set_flush_denormal(True)
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    rows = [
        *paper_size(device, (1, 10, 30, 100, 300)),
        *small_networks(device, (10, 50, 500)),
        deviation(device, "float32"),
        deviation(device, "float64"),
    ]
    show(rows, None if SMALL else "gpu")


if __name__ == "__main__":
    main()
