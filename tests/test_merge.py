"""Merging: against plain numpy, methods that a test adds, and networks that do not belong together."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from unittest import mock

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from builders import RELU, data_and_networks, trained
from commands import decaymerge
from decaymerge import config, merge_methods
from decaymerge.config import Config, merging
from decaymerge.config.experiment import Network
from decaymerge.errors import UserError
from decaymerge.merge import apply, merge
from decaymerge.merge_methods import MERGE_METHODS, REQUESTS, merge_method
from decaymerge.workflow.jobs import MergeJob

SCALED = {"method": "scaled", "coefficient": 0.7}
LAYERS = (1, 2, 3)


def merged_by(methods: list[Any], networks: Sequence[xr.Dataset], **settings: Any) -> xr.Dataset:
    return merge(MergeJob.model_validate({"methods": methods, "network": RELU} | settings), networks)


def config_of(*methods: Any) -> Config:
    task = {"dataset": "gaussian", "dim": 12, "samples": 50}
    training = {"step_size": 0.5, "steps": 200, "weight_decay": [1e-3]}
    experiment = {"tasks": task, "network": RELU, "training": training, "seeds": 2}
    return config.parse({"experiments": {"x": experiment | {"merge": list(methods)}}})


@pytest.fixture(scope="module")
def data() -> list[xr.Dataset]:
    return data_and_networks(3)[0]


@pytest.fixture(scope="module")
def networks() -> list[xr.Dataset]:
    return data_and_networks(3)[1]


def test_coefficients_of_tasks_and_layers(networks: list[xr.Dataset]) -> None:
    method = {"method": "scaled", "coefficient": {"a": 0.7, "W2": 0.5, "all": 0.9}}
    merged = merged_by([method], networks[:2], task_names=["a", "b"])
    assert merged.model.values.tolist() == ["scaled=a:0.7;W2:0.5;all:0.9"]
    for layer in LAYERS:
        first, second = (network[f"W{layer}"] for network in networks[:2])
        expected = 0.9 * (0.5 if layer == 2 else 1.0) * (0.7 * first + second)
        np.testing.assert_allclose(merged[f"W{layer}"].isel(model=0), expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(UserError, match="coefficient: q is none of a, b, W1, W2, W3, all"):
        config_of({"method": "scaled", "coefficient": {"q": 0.5}})
    job = MergeJob.of(config_of(method), "x", "a+b", "0.001", "0-1")
    assert (
        job.task_names == ["a", "b"]
        and MergeJob.of(config_of("sum"), "x", "a+b", "0.001", "0-1").task_names == []
    )


def test_methods(networks: list[xr.Dataset]) -> None:
    merged = merged_by(["sum", "average", SCALED], networks[:2])
    assert merged.model.values.tolist() == ["sum", "average", "scaled=0.7"]
    assert merged.W2.dims == ("model", "seed", "step", "out_2", "in_2")
    total = networks[0].W2 + networks[1].W2
    for model, factor in (("sum", 1), ("average", 0.5), ("scaled=0.7", 0.7)):
        np.testing.assert_allclose(merged.W2.sel(model=model), factor * total, rtol=1e-6)
    assert merged.W1.dtype == np.float32


def test_methods_with_parameters_reach_a_job_from_the_configuration() -> None:
    job = MergeJob.of(config_of(SCALED), "x", "a+b", "0.001", "0-1")
    assert MergeJob.parse(job.model_dump_json()) == job
    assert [merging.method_of(method) for method in job.methods] == [("scaled", {"coefficient": 0.7})]


def test_sum_of_all_and_of_one(networks: list[xr.Dataset]) -> None:
    total = networks[0].W1 + networks[1].W1 + networks[2].W1
    np.testing.assert_allclose(merged_by(["sum"], networks).W1[0], total, rtol=1e-6)
    alone = merged_by(["sum", "average"], networks[:1])
    np.testing.assert_array_equal(alone.W1[1], networks[0].W1)


def test_networks_of_other_seeds_are_refused(networks: list[xr.Dataset]) -> None:
    with pytest.raises(UserError, match="do not merge"):
        merged_by(["sum"], [networks[0], trained(seeds=(1, 2))])
    with pytest.raises(UserError, match="do not merge"):
        merged_by(["sum"], [networks[0], trained(steps=100)])


# Methods that a test adds


@pytest.fixture
def registry() -> Iterator[None]:
    """Methods of a test are forgotten after it."""
    with mock.patch.dict(MERGE_METHODS):
        yield


def job_of(name: str, parameters: dict[str, Any], network: dict[str, Any]) -> MergeJob:
    """A job of a method that is not in the configuration, which is made at import."""
    model = merging._model(name, MERGE_METHODS[name])
    settings = model.model_validate({"method": name} | parameters)
    return MergeJob.model_construct(methods=[settings], network=Network.model_validate(network))


def ridge_regression(
    weights: Sequence[Tensor],
    *,
    own_inputs: Sequence[Tensor],
    merged_inputs: Sequence[Tensor],
    ridge: Annotated[float, Field(gt=0)],
) -> Tensor:
    """The matrix that comes nearest to each network's own outputs, on the merged network's inputs."""
    inputs = torch.cat(list(merged_inputs))
    targets = torch.cat([h @ weight.mT for h, weight in zip(own_inputs, weights, strict=True)])
    gram = inputs.mT @ inputs + ridge * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    return torch.linalg.solve(gram, inputs.mT @ targets).mT


def reference_least_squares(
    data: Sequence[xr.Dataset], networks: Sequence[xr.Dataset], ridge: float, trained_layers: int
) -> xr.Dataset:
    """Layer by layer in numpy, one seed and step at a time."""
    merged = {f"W{k}": np.empty(networks[0][f"W{k}"].shape) for k in LAYERS}
    for seed, step in np.ndindex(*networks[0].loss.shape):
        own_inputs = [task.inputs.values[seed] for task in data]
        merged_inputs = [task.inputs.values[seed] for task in data]
        for k in LAYERS:
            weights = [network[f"W{k}"].values[seed, step] for network in networks]
            x = np.concatenate(merged_inputs)
            y = np.concatenate([h @ w.T for h, w in zip(own_inputs, weights, strict=True)])
            matrix = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y).T
            merged[f"W{k}"][seed, step] = matrix if k <= trained_layers else weights[0]
            own_inputs = [np.maximum(h @ w.T, 0) for h, w in zip(own_inputs, weights, strict=True)]
            merged_inputs = [np.maximum(h @ matrix.T, 0) for h in merged_inputs]
    return xr.Dataset({name: (networks[0][name].dims, values) for name, values in merged.items()})


@pytest.mark.parametrize("fixed_outer_layer", [False, True])
@pytest.mark.usefixtures("registry")
def test_a_method_gets_the_inputs_that_the_merged_layers_below_give(fixed_outer_layer: bool) -> None:
    network = RELU | {"fixed_outer_layer": fixed_outer_layer}
    data, networks = data_and_networks(2, network=network, dtype="float64", steps=50, kept_steps=3)
    merge_method("ridge_regression")(ridge_regression)
    merged = merge(job_of("ridge_regression", {"ridge": 0.1}, network), networks, data)
    assert merged.model.values.tolist() == ["ridge_regression=0.1"]
    reference = reference_least_squares(data, networks, 0.1, trained_layers=3 - fixed_outer_layer)
    xr.testing.assert_allclose(merged.isel(model=0, drop=True).drop_vars(["seed", "step"]), reference)


@pytest.mark.usefixtures("registry")
def test_a_method_that_needs_data_says_so(networks: list[xr.Dataset]) -> None:
    merge_method("ridge_regression")(ridge_regression)
    assert MERGE_METHODS["ridge_regression"].needs == {"own_inputs", "merged_inputs"} < REQUESTS
    with pytest.raises(UserError, match=r"ridge_regression=1 needs the tasks' data; give them with --tasks"):
        merge(job_of("ridge_regression", {"ridge": 1.0}, RELU), networks)


@pytest.mark.usefixtures("registry")
def test_a_method_with_the_base(networks: list[xr.Dataset]) -> None:
    """Which networks of an experiment do not have: each starts from weights of its own."""

    @merge_method("half_way")
    def half_way(weights: Sequence[Tensor], *, base: Tensor, share: float = 0.5) -> Tensor:
        """A part of the way from the base to the mean."""
        return base + share * (sum(weights[1:], start=weights[0]) / len(weights) - base)

    assert MERGE_METHODS["half_way"].needs == {"base"} and MERGE_METHODS["half_way"].plain
    assert MERGE_METHODS["half_way"].description == "A part of the way from the base to the mean."
    ones = torch.ones(2, 3)
    torch.testing.assert_close(apply("half_way", [4 * ones, 8 * ones], base=2 * ones), 4 * ones)
    with pytest.raises(UserError, match="merge method half_way needs base"):
        merge(job_of("half_way", {}, RELU), networks)


# A configuration is made from the methods that there are when it is imported, so that this needs a new interpreter.
IN_A_NEW_INTERPRETER = """
import json, sys
from typing import Annotated
from pydantic import Field
from decaymerge.merge_methods import merge_method

@merge_method("trimmed")
def trimmed(weights, *, base, share: Annotated[float, Field(ge=0, le=1)], largest: bool = True):
    "The largest changes of the base."

@merge_method("halved")
def halved(weights, *, factor: Annotated[float, Field(gt=0)] = 0.5):
    "Half of the sum."

from decaymerge import config, merge_methods
from decaymerge.config.merging import merge_name
from decaymerge.errors import UserError

task = {"dataset": "gaussian", "dim": 4, "samples": 5}
training = {"step_size": 1, "steps": 1, "weight_decay": [0]}
experiment = {"tasks": task, "network": {"hidden": [3]}, "training": training, "seeds": 1}

def answer(method):
    try:
        merges = config.parse({"experiments": {"x": experiment | {"merge": [method]}}}).experiments["x"].merges
        return merge_name(merges[0])
    except UserError as error:
        return str(error)

answers = [answer(method) for method in json.loads(sys.argv[1])]
schema = config.json_schema()["$defs"]["TrimmedMerge"]
sys.argv = ["decaymerge", "merge-checkpoints", "--help"]
print(json.dumps({"answers": answers, "schema": schema}))
from decaymerge.cli import app
app()
"""


def test_a_method_follows_into_the_configuration_its_schema_and_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = [
        {"method": "trimmed", "share": 0.2},
        {"method": "trimmed", "share": "2e-1", "largest": False},
        "halved",
        {"method": "halved", "factor": 0.25},
        {"method": "trimmed", "share": 2},
        "trimmed",
    ]
    monkeypatch.setenv("COLUMNS", "200")
    command = [sys.executable, "-c", IN_A_NEW_INTERPRETER, json.dumps(methods)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    content, _, usage = output.partition("\n")
    answers, schema = json.loads(content).values()
    assert answers[:4] == ["trimmed=0.2,True", "trimmed=0.2,False", "halved", "halved=0.25"]
    assert answers[4] == "experiments.x.merge[0].share = 2: Input should be less than or equal to 1"
    assert answers[5].endswith("trimmed has parameters; write {method: trimmed, share: …, largest: …}")
    assert schema["description"] == "The largest changes of the base." and schema["required"] == [
        "method",
        "share",
    ]
    assert schema["properties"]["share"]["maximum"] == 1
    for option, name in (("--share", "trimmed"), ("--factor", "halved"), ("--coefficient", "scaled")):
        assert any(option in line and f"of --method {name}" in line for line in usage.splitlines()), option


def test_the_parameter_of_a_method_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    usage = decaymerge("merge-checkpoints", "--help").stdout
    assert any("--coefficient" in line and "of --method scaled" in line for line in usage.splitlines())


def test_systems_are_solved_some_columns_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    gram, product = inputs.mT @ inputs, torch.randn(6, 11, generator=torch.Generator().manual_seed(1))
    exact = torch.linalg.solve(gram.double() + 0.5 * torch.eye(6), product.double()).mT
    for most in (1, 4, 11, 4096):
        monkeypatch.setattr(merge_methods, "MOST_COLUMNS", most)
        solved = merge_methods.solution(gram, torch.tensor(0.5), product)
        assert solved.dtype == torch.float32
        torch.testing.assert_close(solved, exact.float(), rtol=1e-6, atol=1e-7)


def test_a_system_is_solved_without_a_change_of_its_gram_matrix() -> None:
    gram = torch.eye(3, dtype=torch.float64)
    merge_methods.solution(gram, torch.tensor(0.5), torch.ones(3, 2, dtype=torch.float64))
    assert torch.equal(gram, torch.eye(3, dtype=torch.float64))
