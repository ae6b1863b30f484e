"""Memory and run time that each stage's job asks a scheduler for, computed from an experiment's settings.

Sizes follow the arrays that a stage holds at its peak; ``tests/test_estimates.py`` compares them with measured
ones. A result does not depend on them. Throughout, n samples, d inputs, widths d_k, S seeds a job, T kept steps at
most.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from decaymerge.config.experiment import LBFGS_ITERATIONS, Experiment

MEGABYTE = 1e6
TORCH, XARRAY, DRAWING = 400, 150, 350
"""MB of a process that has imported what it needs, and holds nothing yet; a tenth more than usual, as it varies."""
SNAKEMAKE = 300
"""MB of the two Snakemakes that a cluster's node runs around the command, which its scheduler counts."""
DECOMPOSITIONS = 140
"""MB that PyTorch's eigenvalues and xarray's tables of metrics take beyond the arrays of networks.
Claims about ReLU networks were measured to take half of it as well; what takes it there was not traced."""
SCIPY = 50
SPARE = 1.2
"""What an allocator takes beyond the arrays."""
STAGES_OF_SOLVER = 20
"""Vectors of the size of θ that an adaptive Runge-Kutta method keeps."""
FLOPS = {"float32": 30e9, "float64": 15e9}
"""A second, of one core at small matrix products."""
CLAIMS = 20
"""Passes through the data of an experiment's claims, in gradients."""
STEP = 5e-5
"""Seconds that a layer's kernels take in each step however small they are."""
START = 5
"""Minutes for a start on a busy file system, and for a machine slower than expected."""


class Estimate(NamedTuple):
    """What one attempt of a job may use."""

    megabytes: int
    """Resident memory of the command and the Snakemakes around it, in 10⁶ bytes."""
    seconds: float
    """Wall time of the work for one file, on a slow core."""

    def minutes(self, files: int = 1) -> int:
        """Wall time of a job that makes so many files one after the other."""
        return round(START + files * self.seconds / 60)


def _estimate(base: float, arrays: float, seconds: float) -> Estimate:
    return Estimate(round(SNAKEMAKE + base + SPARE * arrays / MEGABYTE), seconds)


class Sizes:
    """Sizes of one job's arrays, in bytes.

    Attributes:
        itemsize: Bytes of a number of the network.
        parameters: Of one network.
        data: Training inputs of one task, float64.
        test_data: Test inputs of one task, float64.
        loading: Files of real data while they are read.
        kept: Weights at all kept steps of one task's networks.
        first_delta: Gradient of each sample with respect to the first layer's output.
    """

    def __init__(self, experiment: Experiment, seeds: int) -> None:
        tasks = experiment.named_tasks
        self.seeds = seeds
        self.samples = max(task.samples for task in tasks.values())
        self.test_samples = max(task.test_size for task in tasks.values())
        self.loading = max(task.loading_bytes for task in tasks.values())
        self.dims = [
            max(task.input_dim(len(tasks)) for task in tasks.values()),
            *experiment.network.hidden,
            1,
        ]
        self.itemsize = {"float32": 4, "float64": 8}[experiment.training.dtype]
        layers = [above * below for below, above in itertools.pairwise(self.dims)]
        self.parameters, self.largest_layer = sum(layers), max(layers)
        self.steps = min(experiment.training.kept_steps, experiment.training.steps + 1)
        self.data = self.seeds * self.samples * self.dims[0] * 8
        self.test_data = self.seeds * self.test_samples * self.dims[0] * 8
        self.kept = self.seeds * self.steps * self.parameters * self.itemsize
        self.first_delta = self.seeds * self.samples * self.dims[1] * self.itemsize


def block_sizes(experiment: Experiment) -> Sizes:
    """Of a job that has a full block of seeds."""
    return Sizes(experiment, min(experiment.seeds, experiment.seeds_per_job))


def tasks(experiment: Experiment) -> Estimate:
    """Data drawn in float64, stacked, and written."""
    sizes = block_sizes(experiment)
    return _estimate(XARRAY + sizes.loading / MEGABYTE, 4 * (sizes.data + sizes.test_data), 0)


def train(experiment: Experiment) -> Estimate:
    """Inputs with their basis, test inputs as they are read, and what is kept.

    Activations are those of a tile, but for the checks' δ_1.
    """
    training, sizes = experiment.training, block_sizes(experiment)
    arrays = 4 * sizes.data + sizes.test_data + 3 * sizes.first_delta + 1.3 * sizes.kept
    solver = training.optimiser == "gf" or training.finish is not None
    state = sizes.seeds * sizes.parameters * sizes.itemsize
    if solver:
        arrays += STAGES_OF_SOLVER * state
    samples = training.batch_size or sizes.samples
    spanned = sizes.parameters - sizes.dims[1] * max(0, sizes.dims[0] - sizes.samples)
    flops = 6 * sizes.seeds * samples * spanned / FLOPS[training.dtype]
    overhead = STEP * len(sizes.dims)
    steps = training.steps + LBFGS_ITERATIONS * (training.finish is not None)
    return _estimate(TORCH + SCIPY * solver, arrays, steps * (flops + overhead))


def merge(experiment: Experiment, task_count: int | None = None) -> Estimate:
    """Networks of ``task_count`` tasks, by default of the largest merge set; merged ones, apart and together."""
    sizes, task_count = block_sizes(experiment), task_count or _largest_merge_set(experiment)
    return _estimate(TORCH, (task_count + 2 * len(experiment.merges)) * sizes.kept, 0)


def evaluate(experiment: Experiment, task_count: int | None = None) -> Estimate:
    """Own and merged networks of ``task_count`` tasks, one of them in parts as well, and a layer in float64.

    By default those of the largest merge set.

    Margins of one model, with the loss of each. With ``gap_by_layer``, outputs of the networks between own and sum
    for one task, and their differences.
    """
    sizes, merged = block_sizes(experiment), len(experiment.merges)
    task_count = task_count or _largest_merge_set(experiment)
    networks = (task_count + merged + 1) * sizes.kept + 2 * task_count * (sizes.data + sizes.test_data)
    norms = 16 * sizes.seeds * sizes.steps * sizes.largest_layer
    between = 2 * (experiment.network.depth + 1) * experiment.gap_by_layer
    rows, test_rows = (sizes.seeds * sizes.steps * n for n in (sizes.samples, sizes.test_samples))
    passes = (merged + 1) * (rows + test_rows) + between * rows
    flops = 2 * passes * sizes.parameters * task_count
    margins = max(rows, test_rows, between * rows) * sizes.itemsize
    arrays = networks + max(norms, 5 * margins)
    return _estimate(TORCH + DECOMPOSITIONS, arrays, flops / FLOPS[experiment.training.dtype])


def _largest_merge_set(experiment: Experiment) -> int:
    return max(map(len, experiment.merge_sets.values()))


def gather(experiment: Experiment) -> Estimate:
    """The summary, in which every merge set has all tasks, and the evaluations that it is made from."""
    return _estimate(TORCH, 4 * _summary(experiment), 0)


def figure(experiments: Sequence[Experiment]) -> Estimate:
    """Summaries, and the table of one that is drawn."""
    return _estimate(DRAWING, 4 * sum(map(_summary, experiments)), 0)


def _summary(experiment: Experiment) -> float:
    sizes = Sizes(experiment, experiment.seeds)
    rows = len(experiment.merge_sets) * len(experiment.training.weight_decay) * sizes.seeds * sizes.steps
    tasks, depth = len(experiment.named_tasks), experiment.network.depth
    of_task = (len(experiment.merges) + 1) * (6 + 4 * depth) + 5 * depth * experiment.gap_by_layer
    return 8 * rows * tasks * of_task


def claims(experiment: Experiment) -> Estimate:
    """All seeds in float64: weights and gradients along training, activations, and traces of each claim."""
    sizes = Sizes(experiment, experiment.seeds)
    tasks = len(experiment.named_tasks)
    kept = 8 * sizes.seeds * sizes.steps * sizes.parameters
    hidden = 8 * sizes.seeds * sizes.steps * sizes.samples * sum(sizes.dims[1:])
    flops = CLAIMS * 6 * sizes.seeds * sizes.steps * sizes.samples * sizes.parameters * tasks
    seconds = len(experiment.training.weight_decay) * flops / FLOPS["float64"]
    arrays = tasks * (4 * kept + 2 * hidden + 2 * (sizes.data + sizes.test_data))
    return _estimate(TORCH + SCIPY + DECOMPOSITIONS, arrays, seconds)


FETCH = Estimate(800, 7200)
SCAN = Estimate(2000, 3600)
"""A job has one core, and so one matrix at a time. Settings do not tell how large it is; GPT-J takes a gigabyte."""
VERDICTS = Estimate(800, 0)
"""Of a scan, or gathered."""
CLAIMS_PAGE = Estimate(1600, 900)
"""Two processes draw: 1.34 GB in the default run, of which they share a third, and two Snakemakes around them."""
