"""Merge methods that look at the tasks' inputs, against numpy; how many tasks fit; the claims about them."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import RELU, data_and_networks, gaussian_job
from decaymerge import config
from decaymerge.capacity import capacity, first_above
from decaymerge.claims import CLAIMS
from decaymerge.claims.networks import Run
from decaymerge.config.experiment import Network
from decaymerge.config.merging import merge_name
from decaymerge.errors import UserError
from decaymerge.evaluate.effective_dimension import RIDGES, effective_dimensions
from decaymerge.merge import merge
from decaymerge.store import weights_of
from decaymerge.workflow.jobs import ClaimsJob, MergeJob
from test_claims_trained import NETWORKS, backwards, rescaled, run_of, verdict_on

FORMS: dict[str, dict[str, Any]] = {
    "ReLU": RELU,
    "fixed outer layer": RELU | {"fixed_outer_layer": True},
    "linear": {"activation": "linear", "hidden": [6]},
    "linear predictor": {"activation": "linear", "hidden": []},
}


def solved(activations: str, ridge: float) -> dict[str, Any]:
    return {"method": "least_squares", "activations": activations, "ridge": ridge}


def merged_by(
    method: Any, data: Sequence[xr.Dataset], networks: Sequence[xr.Dataset], network: dict[str, Any]
) -> xr.Dataset:
    job = MergeJob.model_validate({"methods": [method], "network": network})
    return merge(job, networks, data).isel(model=0, drop=True)


def reference(
    data: Sequence[xr.Dataset],
    networks: Sequence[xr.Dataset],
    network: dict[str, Any],
    activations: str,
    ridge: float,
    *,
    towards_sum: bool = False,
) -> list[np.ndarray]:
    """W_k of seed 1 at the last step by numpy, from the normal equations or, without a ridge, by pseudo-inverse."""
    own = [[weight[1, -1].astype(float) for weight in weights_of(one)] for one in networks]
    own_h = [task.inputs.values[1].astype(float) for task in data]
    merged_h = list(own_h)
    layers: list[np.ndarray] = []
    for k, layer in enumerate(zip(*own, strict=True)):
        if network.get("fixed_outer_layer") and k == len(own[0]) - 1:
            return [*layers, layer[0]]
        inputs = merged_h if activations == "merged" else own_h
        targets = [h @ weight.T for h, weight in zip(own_h, layer, strict=True)]
        if ridge:
            gram = sum(h.T @ h / len(h) for h in inputs)
            cross = sum(h.T @ y / len(h) for h, y in zip(inputs, targets, strict=True))
            rho = ridge * np.diag(gram).mean()
            drawn = rho * sum(layer).T if towards_sum else 0
            matrix = (np.linalg.inv(gram + rho * np.eye(len(gram))) @ (cross + drawn)).T
        else:
            matrix = (np.linalg.pinv(np.concatenate(inputs), rcond=1e-13) @ np.concatenate(targets)).T
        layers.append(matrix)
        least = 0 if network["activation"] == "relu" else -np.inf
        own_h = [np.maximum(y, least) for y in targets]
        merged_h = [np.maximum(h @ matrix.T, least) for h in merged_h]
    return layers


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("activations", ["own", "merged"])
@pytest.mark.parametrize("ridge", [0, 0.1])
def test_least_squares_is_that_of_numpy(name: str, activations: str, ridge: float) -> None:
    network = FORMS[name]
    data, networks = data_and_networks(3, network=network, dtype="float64", steps=40, kept_steps=3)
    merged = merged_by(solved(activations, ridge), data, networks, network)
    expected = reference(data, networks, network, activations, ridge)
    for k, matrix in enumerate(expected, start=1):
        np.testing.assert_allclose(merged[f"W{k}"][1, -1], matrix, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("activations", ["own", "merged"])
def test_the_corrected_sum_is_that_of_numpy(name: str, activations: str) -> None:
    network = FORMS[name]
    data, networks = data_and_networks(3, network=network, dtype="float64", steps=40, kept_steps=3)
    method = {"method": "corrected_sum", "activations": activations, "ridge": 0.7}
    merged = merged_by(method, data, networks, network)
    expected = reference(data, networks, network, activations, 0.7, towards_sum=True)
    for k, matrix in enumerate(expected, start=1):
        np.testing.assert_allclose(merged[f"W{k}"][1, -1], matrix, rtol=1e-6, atol=1e-9)


def test_the_corrected_sum_acts_as_the_sum_where_there_are_no_inputs() -> None:
    """And as the own networks on their inputs; with a large ridge it is the sum."""
    data, networks = data_and_networks(2, network=RELU, dtype="float64", steps=40, kept_steps=3)
    merged = merged_by({"method": "corrected_sum", "ridge": 1e-9}, data, networks, RELU)
    total = networks[0].W1 + networks[1].W1
    for task, network in zip(data, networks, strict=True):
        x = task.inputs.values[:, None]
        np.testing.assert_allclose(
            x @ np.swapaxes(merged.W1.values, -1, -2), x @ np.swapaxes(network.W1.values, -1, -2), atol=1e-6
        )
    outside = rejections(data[0]) @ rejections(data[1])
    np.testing.assert_allclose(merged.W1.values @ outside, total.values @ outside, atol=1e-6)
    drawn = merged_by({"method": "corrected_sum", "ridge": 1e6}, data, networks, RELU)
    np.testing.assert_allclose(drawn.W1, total, rtol=1e-4, atol=1e-5)


def test_without_a_ridge_one_task_is_reproduced_and_float32_stays_float32() -> None:
    data, networks = data_and_networks(1, network=RELU, steps=40, kept_steps=3)
    merged = merged_by(solved("merged", 0), data, networks, RELU)
    assert merged.W1.dtype == np.float32
    h = own_h = data[0].inputs.values[0]
    for k in (1, 2, 3):
        h = np.maximum(h @ merged[f"W{k}"].values[0, -1].T, 0)
        own_h = np.maximum(own_h @ networks[0][f"W{k}"].values[0, -1].T, 0)
    np.testing.assert_allclose(h, own_h, atol=1e-5)


def test_the_projected_sum_forgets_what_is_outside_the_inputs() -> None:
    data, networks = data_and_networks(2, network=RELU, dtype="float64", steps=40, kept_steps=3)
    merged = merged_by("projected_sum", data, networks, RELU)
    outside = [
        network.assign(W1=network.W1 + np.random.default_rng(0).standard_normal(network.W1.shape) @ rejection)
        for network, rejection in zip(networks, map(rejections, data), strict=True)
    ]
    np.testing.assert_allclose(merged_by("projected_sum", data, outside, RELU).W1, merged.W1, atol=1e-9)
    for task, network in zip(data, networks, strict=True):
        x = task.inputs.values[:, None]
        np.testing.assert_allclose(
            x @ np.swapaxes(merged.W1.values, -1, -2), x @ np.swapaxes(network.W1.values, -1, -2), atol=1e-9
        )
    np.testing.assert_allclose(merged.W2, networks[0].W2 + networks[1].W2)


def rejections(task: xr.Dataset) -> np.ndarray:
    """I - P with P the projection on the span of a task's inputs, (seed, 1, d, d)."""
    x = task.inputs.values
    return (np.eye(x.shape[-1]) - np.linalg.pinv(x) @ x)[:, None]


def test_networks_that_diverged_merge_to_nan_and_collapsed_ones_to_zero() -> None:
    data, networks = data_and_networks(2, network=RELU, dtype="float64", steps=40, kept_steps=3)
    networks[0].W2[0, -1, 0, 0] = np.nan
    for network in networks:
        network.W1[1] = 0
    merged = merged_by("least_squares", data, networks, RELU)
    assert merged.W1[0, -1].isnull().all() and merged.W1[0, 0].notnull().all()
    assert not merged.W1[1].any()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("least_squares", "least_squares"),
        ("projected_sum", "projected_sum"),
        ({"method": "least_squares", "activations": "own"}, "least_squares=own,1e-06,0"),
        (
            {"method": "least_squares", "ridge": -1},
            "merge[0].ridge = -1: Input should be greater than or equal",
        ),
        ({"method": "least_squares", "ridge": "yes"}, "merge[0].ridge = 'yes'"),
        (
            {"method": "least_squares", "activations": "mine"},
            "merge[0].activations = 'mine': Input should be",
        ),
        ({"method": "projected_sum"}, "projected_sum has no parameters; write its name alone"),
    ],
)
def test_settings(method: Any, answer: str) -> None:
    task = {"dataset": "gaussian", "dim": 4, "samples": 5}
    training = {"step_size": 1, "steps": 1, "weight_decay": [0]}
    experiment = {"tasks": task, "network": {"hidden": [3]}, "training": training, "seeds": 1}
    try:
        merges = (
            config.parse({"experiments": {"x": experiment | {"merge": [method]}}}).experiments["x"].merges
        )
        assert merge_name(merges[0]) == answer
    except UserError as error:
        assert answer in str(error)


# How many tasks fit


def test_effective_dimensions_are_those_of_the_formula() -> None:
    import torch

    data, networks = data_and_networks(2, network=RELU, dtype="float64", steps=40, kept_steps=3)
    weights = [[torch.from_numpy(weight) for weight in weights_of(network)] for network in networks]
    inputs = [torch.from_numpy(task.inputs.values) for task in data]
    dimensions = effective_dimensions(Network.model_validate(RELU), weights, inputs)
    hidden = [
        np.maximum(task.inputs.values[1] @ network.W1.values[1, -1].T, 0)
        for task, network in zip(data, networks, strict=True)
    ]
    grams = [h.T @ h / len(h) for h in hidden]
    for (task, gram), (r, ridge) in itertools.product(enumerate(grams), enumerate(RIDGES)):
        rho = ridge * np.diag(gram).mean()
        expected = np.trace(gram @ np.linalg.inv(gram + rho * np.eye(len(gram))))
        assert float(dimensions[task, 1, -1, 1, r]) == pytest.approx(expected, rel=1e-8)
    assert float(dimensions[0, 1, -1, 0, 0]) == pytest.approx(6, abs=0.01)  # half of the coordinates


def test_the_number_of_tasks_at_which_a_merge_fails() -> None:
    error = xr.DataArray([[0, 0.005, 0.025], [0, 0, 0], [0.5, 0.5, 0.6]], dims=("seed", "tasks"))
    crossing = first_above(error.assign_coords(tasks=[2, 4, 8]), 0.01)
    np.testing.assert_allclose(crossing, [5, np.inf, 2])


def test_predicted_and_measured_numbers_of_tasks() -> None:
    """Three merge sets of 2, 3 and 4 tasks that take up 4 dimensions each, in a layer of 10."""
    tasks, sets = list("abcd"), ["a+b", "first_3", "all"]
    inside = np.array([[1, 1, np.nan, np.nan], [1, 1, 1, np.nan], [1, 1, 1, 1]])
    dims = ("merge_set", "weight_decay", "seed", "step", "model", "task")
    shape = (3, 1, 1, 1, 3, 4)
    error = np.broadcast_to(inside[:, None, None, None, None], shape) * 0
    error[..., 1, :] += np.array([0.0, 0.02, 0.2])[:, None, None, None, None]
    dimension = np.broadcast_to(inside[:, None, None, None, :, None], (3, 1, 1, 1, 4, 2)) * [50.0, 4.0]
    summary = xr.Dataset(
        {
            "loss": (dims, error),
            "error": (dims, error),
            "effective_dimension": ((*dims[:4], "task", "layer"), dimension),
        },
        {"merge_set": sets, "task": tasks, "model": ["own", "sum", "least_squares"], "weight_decay": [0.0]},
    )
    counts = capacity(summary.assign_coords(layer=[1, 2]), [10])
    assert float(counts.measured.sel(model="sum").squeeze()) == pytest.approx(2.5)
    assert float(counts.measured.sel(model="least_squares").squeeze()) == np.inf
    assert float(counts.predicted.squeeze()) == pytest.approx(2.5) and counts.attrs["most"] == 4


# Claims


def few_samples(seeds: Sequence[int] = (0, 1)) -> Run:
    """Two tasks of six samples each that overlap, in layers of twelve units."""
    data: dict[str, Any] = {"dim": 12, "samples": 6, "overlap": 0.5}
    network, training = RELU | {"hidden": [12, 12]}, NETWORKS["shallow"][1]
    training = training | {"dtype": "float64", "kept_steps": 6}
    samples, networks = data_and_networks(2, seeds, data, network=network, weight_decay=0.01, **training)
    job = ClaimsJob.model_validate(
        {
            "experiment": "few",
            "task_names": ["a", "b"],
            "data": [gaussian_job(0, **data).data] * 2,
            "network": network,
            "training": training | {"weight_decay": [0.01]},
            "blocks": ["0-1"],
        }
    )
    assert [name for name, claim in CLAIMS.items() if "least_squares" in name and claim.applies(job)] == [
        "least_squares_reproduces"
    ]
    return Run(job, 0.01, samples, networks)


def test_claims_hold_on_trained_networks() -> None:
    for name in ("least_squares_projects", "sum_approaches_least_squares"):
        verdict = verdict_on(name, run_of("shallow"))
        assert verdict.outcome == "holds" and verdict.measured is not None and verdict.measured < 1e-12
    verdict = verdict_on("least_squares_reproduces", few_samples())
    assert verdict.outcome == "holds" and "with a ridge of 1e-06: " in verdict.note


def test_the_sum_does_not_approach_least_squares_under_another_decay_or_order_of_time() -> None:
    assert verdict_on("sum_approaches_least_squares", run_of("shallow", 0.5)).outcome == "not supported"
    run = run_of("shallow", networks=backwards)
    assert verdict_on("sum_approaches_least_squares", run).outcome == "not supported"
    assert verdict_on("least_squares_projects", run).outcome == "holds"
    assert "by algebra" in verdict_on("least_squares_projects", run_of("shallow", networks=rescaled)).trivial


def test_least_squares_does_not_reproduce_tasks_that_share_directions() -> None:
    run = few_samples()
    run.tasks[1].inputs = run.tasks[0].inputs + 0  # the same inputs, other networks
    verdict = verdict_on("least_squares_reproduces", run)
    assert (
        verdict.outcome == "assumption unmet"
        and "span 12 dimensions one by one, and 6 together" in verdict.note
    )


def test_evaluations_have_effective_dimensions_where_they_are_asked_for() -> None:
    import torch

    from decaymerge.evaluate import evaluate
    from decaymerge.workflow.jobs import EvaluateJob

    data, networks = data_and_networks(2, network=RELU, steps=40, kept_steps=3)
    job = EvaluateJob(
        merge_set="a+b",
        task_names=["a", "b"],
        weight_decay=0.0,
        network=Network.model_validate(RELU),
        loss="logistic",
        margin=1.0,
        effective_dimension=True,
    )
    evaluation = evaluate(job, data, networks, None, torch.device("cpu"))
    dimension = evaluation.effective_dimension
    assert dimension.dims == ("seed", "step", "task", "ridge", "layer") and dimension.notnull().all()
