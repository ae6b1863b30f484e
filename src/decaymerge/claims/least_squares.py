"""Claims about merging by least squares on inputs, exactly: by pseudo-inverse, in float64 (ours)."""

import numpy as np
import torch
from torch import Tensor

from decaymerge.claims.interference import NO_OVERLAP, shrinkage
from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Claim, Measured
from decaymerge.config.merging import MODELS, MergeSettings
from decaymerge.merge import merged_layers
from decaymerge.network import activations
from decaymerge.workflow.jobs import ClaimsJob

EXACT = 1e-10
"""Relative deviation up to which the equalities hold."""
RIDGE = 1e-6
"""Ridge whose deviation stands beside the exact one; the default of the merge method."""

METHOD = {"method": "least_squares"}


def _solved(ridge: float) -> MergeSettings:
    """Least squares on the merged layers below."""
    return MODELS["least_squares"].model_validate({"activations": "merged", "ridge": ridge, **METHOD})


def _own(run: Run, seed: int, step: int) -> list[list[Tensor]]:
    """W_k of each task's network."""
    return [[weight[seed, step] for weight in task.weights] for task in run.tasks]


def _inputs(run: Run, seed: int) -> list[Tensor]:
    """Inputs (sample, d) of each task."""
    return [task.inputs[seed] for task in run.tasks]


def _first_layers(run: Run, seed: int, step: int, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """The first layer by least squares, Σ_i W_i P_i with projections from an SVD of the inputs, and Σ_i W_i."""
    own, inputs = _own(run, seed, step), _inputs(run, seed)
    solved = merged_layers(run.job.network, _solved(ridge), own, inputs)[0]
    bases = [torch.linalg.svd(x, full_matrices=False) for x in inputs]
    rows = [v[s > 1e-12 * s[0]] for _, s, v in bases]
    projected = [layers[0] @ v.mT @ v for layers, v in zip(own, rows, strict=True)]
    return solved, torch.stack(projected).sum(0), torch.stack([layers[0] for layers in own]).sum(0)


def least_squares_projects(run: Run) -> Measured:
    """‖W - Σ_i W_i P_i‖_F / ‖Σ_i W_i P_i‖_F, with W the first layer by least squares without a ridge."""
    measured = np.full((1, len(run.seeds), len(run.kept), 1), np.nan)
    with_ridge = 0.0
    for seed, step in np.ndindex(measured.shape[1:3]):
        solved, projected, _ = _first_layers(run, seed, step, 0)
        measured[0, seed, step, 0] = (solved - projected).norm() / projected.norm()
        if step == measured.shape[2] - 1:
            ridged, _, _ = _first_layers(run, seed, step, RIDGE)
            with_ridge = max(with_ridge, float((ridged - projected).norm() / projected.norm()))
    return Measured(
        measured,
        np.full_like(measured, EXACT),
        unmet=_unmet_overlap(run),
        note=f"with a ridge of {RIDGE:g}: {with_ridge:.2g} at the last step",
        trivial="it holds by algebra, for any weights: what is tried is the merge method",
    )


def sum_approaches_least_squares(run: Run) -> Measured:
    """Deviation of D(T) from (1-ηλ)^T D(0), over ‖D(0)‖_F; D is the sum of the W_1 less the least-squares layer."""
    measured = np.full((1, len(run.seeds), len(run.kept), 1), np.nan)
    factor = shrinkage(run.tasks[0])
    last = []
    for seed in range(len(run.seeds)):
        differences = []
        for step in range(len(run.kept)):
            solved, _, total = _first_layers(run, seed, step, 0)
            differences.append(total - solved)
        start = differences[0]
        for step, difference in enumerate(differences):
            error = (difference - float(factor[seed, step]) * start).norm() / start.norm()
            measured[0, seed, step, 0] = error
        last.append(float(differences[-1].norm() / start.norm()))
    note = f"of the difference at the start, a share of {max(last):.2g} is left at the last step"
    return Measured(measured, np.full_like(measured, EXACT), unmet=_unmet_overlap(run), note=note)


def _unmet_overlap(run: Run) -> str:
    """Whether the inputs of two tasks are not orthogonal, in words."""
    largest = max(
        float((one.inputs @ other.inputs.mT).abs().max())
        for i, one in enumerate(run.tasks)
        for other in run.tasks[:i]
    )
    return f"inputs of two tasks overlap by {largest:.2g}" if largest > NO_OVERLAP else ""


def least_squares_reproduces(run: Run) -> Measured:
    """Largest |f_W(x) - f_i(x)| over the inputs of task i, over the largest |f_i(x)|, without a ridge."""
    measured = np.full((len(run.tasks), len(run.seeds), len(run.kept), 1), np.nan)
    with_ridge, dependent = 0.0, ""
    for seed, step in np.ndindex(measured.shape[1:3]):
        own, inputs = _own(run, seed, step), _inputs(run, seed)
        if dependence := _dependence(run, own, inputs):
            dependent = dependence
            continue
        measured[:, seed, step, 0] = _deviations(run, own, inputs, ridge=0)
        if step == measured.shape[2] - 1:
            with_ridge = max(with_ridge, *_deviations(run, own, inputs, RIDGE))
    return Measured(
        measured,
        np.full_like(measured, EXACT),
        unmet=dependent if np.isnan(measured).all() else "",
        note=f"with a ridge of {RIDGE:g}: {with_ridge:.2g} at the last step",
    )


def _deviations(run: Run, own: list[list[Tensor]], inputs: list[Tensor], ridge: float) -> list[float]:
    """Largest |f_W(x) - f_i(x)| over the inputs of each task, over the largest |f_i(x)|, (task)."""
    layers = merged_layers(run.job.network, _solved(ridge), own, inputs)
    deviations = []
    for weights, x in zip(own, inputs, strict=True):
        expected, output = (_output(run, each, x) for each in (weights, layers))
        deviations.append(float((output - expected).abs().max() / expected.abs().max()))
    return deviations


def _output(run: Run, weights: list[Tensor], inputs: Tensor) -> Tensor:
    hidden = activations(run.job.network, weights, inputs)
    return (hidden[-1] if hidden else inputs) @ weights[-1].mT


def _dependence(run: Run, own: list[list[Tensor]], inputs: list[Tensor]) -> str:
    """The first layer whose inputs span dependent spaces in the tasks' own networks, in words, or an empty text."""
    layers = [[x, *activations(run.job.network, weights, x)] for weights, x in zip(own, inputs, strict=True)]
    for k, hidden in enumerate(zip(*layers, strict=True), start=1):
        apart = sum(int(torch.linalg.matrix_rank(h, rtol=1e-8)) for h in hidden)
        together = int(torch.linalg.matrix_rank(torch.cat(list(hidden)), rtol=1e-8))
        if together < apart:
            return (
                f"the tasks' inputs of layer {k} span {apart} dimensions one by one, and {together} together"
            )
    return ""


def _is_apart(job: ClaimsJob) -> bool:
    return job.orthogonal_inputs and job.training.optimiser != "sgd"


def _is_descent_apart(job: ClaimsJob) -> bool:
    return job.orthogonal_inputs and job.training.optimiser == "gd" and job.training.finish is None


def _has_few_samples(job: ClaimsJob) -> bool:
    """Whether the samples of all tasks together are no more than the units of each layer."""
    samples = sum(data.samples for data in job.data)
    few = len(job.data) > 1 and samples <= min(job.network.hidden, default=0)
    return few and job.training.optimiser != "sgd"


LEAST_SQUARES_CLAIMS = [
    Claim(
        name="least_squares_projects",
        brief="least squares is the projected sum",
        statement=r"For inputs in orthogonal spans, the matrix $W$ of least norm with $W x = W_1^{(i)} x$ on the"
        r" inputs of every task is $\sum_i W_1^{(i)} P_i$; $P_i$ projects on the span of task $i$'s inputs",
        source="ours",
        assumptions="inputs of the tasks in orthogonal spans; any weights",
        kind="equality",
        when="every kept step",
        applies=_is_apart,
        measure=least_squares_projects,
    ),
    Claim(
        name="sum_approaches_least_squares",
        brief="weight decay brings the sum to least squares",
        statement=r"For inputs in orthogonal spans, the sum of the first layers is the least-squares layer and"
        r" $(1-\eta\lambda)^T \sum_i W_1^{(i)}(0) (I - P_i)$",
        source="ours",
        assumptions="inputs of the tasks in orthogonal spans; gradient descent, any depth and activation",
        kind="equality",
        when="every kept step",
        applies=_is_descent_apart,
        measure=sum_approaches_least_squares,
    ),
    Claim(
        name="least_squares_reproduces",
        brief="least squares gives every own network's outputs",
        statement=r"Where the spans of the tasks' activations are linearly independent at every layer, least"
        r" squares on the merged layers below gives $f_W(x) = f_i(x)$ on the inputs of every task",
        source="ours",
        assumptions="activations of the tasks in linearly independent spans at every layer",
        kind="equality",
        when="every kept step",
        applies=_has_few_samples,
        measure=least_squares_reproduces,
    ),
]
