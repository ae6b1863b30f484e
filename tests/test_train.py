"""Training: independence of the block, weight decay, kept steps, divergence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from builders import CPU, gaussian_data, gaussian_job, reference_outputs, train, train_job, trained
from commands import decaymerge
from decaymerge import store
from decaymerge import train as stage
from decaymerge.errors import UserError
from decaymerge.network import initialise
from decaymerge.seeding import generator
from decaymerge.train.recorder import kept_steps
from decaymerge.train.span import InputSpan
from decaymerge.workflow.jobs import TrainJob


def test_minibatch_of_more_samples_than_there_are() -> None:
    with pytest.raises(UserError, match="batch_size: 500 is above the"):
        trained(optimiser="sgd", batch_size=500)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_blocks_of_1_3_and_10_seeds_give_the_same(dtype: str, tolerance: float) -> None:
    whole = trained(tuple(range(10)), dtype=dtype)
    for size in (1, 3):
        blocks = [tuple(range(first, min(first + size, 10))) for first in range(0, 10, size)]
        parts = xr.concat([trained(block, dtype=dtype) for block in blocks], "seed")
        np.testing.assert_allclose(parts.loss, whole.loss, rtol=tolerance)
        assert parts.seed.values.tolist() == list(range(10))


def test_one_step_is_gradient_descent_with_weight_decay() -> None:
    job = train_job(steps=1, kept_steps=2, dtype="float64")
    data = gaussian_data(seeds=(0,))
    network = train(job, data)
    before = [torch.tensor(network[f"W{k}"].values[0, 0], requires_grad=True) for k in (1, 2, 3)]
    x, y = torch.tensor(data.inputs.values[0]), torch.tensor(data.labels.values[0])
    margins = y * (torch.relu(torch.relu(x @ before[0].T) @ before[1].T) @ before[2].T).squeeze(-1)
    loss = torch.log1p(torch.exp(-margins)).mean()
    for k, (weight, gradient) in enumerate(
        zip(before, torch.autograd.grad(loss, before), strict=True), start=1
    ):
        expected = (1 - 0.5 * 1e-3) * weight.detach() - 0.5 * gradient
        np.testing.assert_allclose(network[f"W{k}"].values[0, 1], expected, rtol=1e-12, atol=1e-15)


def reference_gradient_descent(job: TrainJob, data: xr.Dataset) -> list[np.ndarray]:
    """All d coordinates of the first layer, one seed at a time, gradients by autograd."""
    ends = []
    for seed in data.seed.values.tolist():
        dim = data.sizes["feature"]
        start = initialise(job.network, dim, generator(job.experiment, job.task, seed, "weights"))
        weights = [torch.tensor(weight, requires_grad=True) for weight in start]
        x, y = (torch.tensor(data[name].sel(seed=seed).values) for name in ("inputs", "labels"))
        for _ in range(job.steps):
            margins = y * reference_outputs(job.network, weights, x)
            gradients = torch.autograd.grad(torch.log1p(torch.exp(-margins)).mean(), weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.mul_(1 - job.step_size * job.weight_decay).sub_(job.step_size * gradient)
        ends.append([weight.detach().numpy() for weight in weights])
    return [np.stack(layer) for layer in zip(*ends, strict=True)]


@pytest.mark.parametrize(
    ("network", "samples"),
    [
        ({"activation": "relu", "hidden": [10, 8]}, 50),
        ({"activation": "relu", "hidden": [10, 8]}, 4),  # fewer samples than dimensions
        ({"activation": "relu", "power": 2, "hidden": [10]}, 50),
        ({"activation": "linear", "hidden": [10, 8, 6]}, 50),
        ({"activation": "linear", "hidden": []}, 50),
    ],
)
def test_training_in_the_span_of_the_inputs_is_plain_gradient_descent(
    network: dict[str, Any], samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "InputSpan", lambda inputs, first, **_: InputSpan(inputs, first))
    job = train_job(network=network, dtype="float64", steps=100, step_size=0.2)
    data = gaussian_data(samples=samples)
    trained_network = train(job, data)
    for k, expected in enumerate(reference_gradient_descent(job, data), start=1):
        np.testing.assert_allclose(trained_network[f"W{k}"].sel(step=100), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("samples", [50, 4])
def test_the_first_layer_is_kept_in_the_span_and_read_whole(samples: int, tmp_path: Path) -> None:
    job = train_job(steps=50, weight_decay=1e-2)
    data = gaussian_data(samples=samples)
    parts = stage.train(job, data, CPU)
    rank = min(samples, 6)  # half of the 12 coordinates
    assert "W1" not in parts and parts.sizes["rank_1"] == rank
    store.write(parts, tmp_path / "network.nc", job)
    whole = store.read(tmp_path / "network.nc", "W1")
    assert set(whole) == {"W1", "W2", "W3", "loss", "error", "last_step", "stationary"}
    reference = train(train_job(steps=50, weight_decay=1e-2, dtype="float64"), data)  # in all coordinates
    np.testing.assert_allclose(whole.W1, reference.W1, rtol=1e-4, atol=1e-5)
    assert whole.W1.dims == ("seed", "step", "out_1", "in_1") and whole.W1.dtype == np.float32


def test_inputs_that_span_all_coordinates_need_no_basis() -> None:
    data = gaussian_data(overlap="same")
    assert "W1" in stage.train(train_job(steps=1), data, CPU)


def test_first_layer_only_decays_outside_the_span_of_the_inputs() -> None:
    """Off the task's coordinates W_1(T) is (1-ηλ)^T W_1(0), exactly (the identity at ε = 0)."""
    network = trained(dtype="float64", weight_decay=1e-2)  # in all coordinates, so nothing of it is built in
    first = network.W1.values[..., 6:]  # the other task's half of the 12 coordinates
    decay = (1 - 0.5 * 1e-2) ** network.step.values
    np.testing.assert_allclose(first, decay[:, None, None] * first[:, :1], rtol=1e-12, atol=1e-14)


def test_weight_decay_changes_neither_the_initial_weights_nor_what_is_kept() -> None:
    zero, some = trained(weight_decay=0), trained(weight_decay=0.1)
    np.testing.assert_array_equal(zero.W2.sel(step=0), some.W2.sel(step=0))
    assert zero.step.equals(some.step)
    assert some.W2.sel(step=200).std() < zero.W2.sel(step=200).std()


def test_fixed_outer_layer_stays() -> None:
    network = {"activation": "relu", "hidden": [10, 8], "fixed_outer_layer": True}
    networks = trained(network=network, weight_decay=0.1)
    assert (networks.W3.sel(step=0) == networks.W3).all()
    assert not (networks.W2.sel(step=0) == networks.W2).all()


def test_training_lowers_the_loss_and_the_last_weights_give_it() -> None:
    loss = trained(steps=500).loss
    assert (loss.sel(step=500) < 0.2 * loss.sel(step=0)).all()
    assert loss.dims == ("seed", "step")


@given(st.integers(1, 10**7), st.integers(2, 200))
def test_kept_steps(steps: int, count: int) -> None:
    kept = kept_steps(steps, count)
    assert kept[0] == 0 and kept[-1] == steps
    assert len(kept) <= count
    assert kept == sorted(set(kept))


def test_kept_steps_are_log_spaced() -> None:
    kept = np.array(kept_steps(10_000, 41)[1:])
    late = kept[kept > 100]
    np.testing.assert_allclose(late[1:] / late[:-1], 10 ** (4 / 39), rtol=0.02)


@pytest.mark.parametrize(
    "settings", [{"step_size": 1e4, "weight_decay": 0.1}, {"step_size": 3e3, "weight_decay": 0.0}]
)
def test_divergence_names_all_and_leaves_no_output(tmp_path: Path, settings: dict[str, float]) -> None:
    store.write(gaussian_data(seeds=(4, 5)), tmp_path / "tasks.nc", gaussian_job())
    job = train_job(**settings).model_dump_json()
    answer = decaymerge("train", tmp_path / "tasks.nc", tmp_path / "out.nc", "--settings", job)
    assert answer.returncode == 1
    error = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "Traceback" not in answer.stderr
    for part in ("experiment x", "task a", "weight_decay", "seed 4", "step ", "training.step_size"):
        assert part in error[0]
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.nc"]


def test_progress_in_a_log_is_lines_with_the_loss(tmp_path: Path) -> None:
    store.write(gaussian_data(), tmp_path / "tasks.nc", gaussian_job())
    settings = train_job().model_dump_json()
    answer = decaymerge("train", tmp_path / "tasks.nc", tmp_path / "out.nc", "--settings", settings)
    assert answer.returncode == 0
    assert "\r" not in answer.stderr
    assert "200/200" in answer.stderr.splitlines()[-1] and "loss " in answer.stderr.splitlines()[-1]


def test_output_holds_its_settings_and_versions(tmp_path: Path) -> None:
    store.write(gaussian_data(), tmp_path / "tasks.nc", gaussian_job())
    job = train_job()
    decaymerge("train", tmp_path / "tasks.nc", tmp_path / "out.nc", "--settings", job.model_dump_json())
    network = store.read(tmp_path / "out.nc")
    assert TrainJob.parse(network.attrs["settings"]) == job
    assert network.attrs["seeds"] == "0,1"
    assert {"code_revision", "code_clean", "torch", "numpy", "python"} <= set(network.attrs)
    assert json.loads(network.attrs["settings"])["network"]["hidden"] == [10, 8]
    for name, variable in network.data_vars.items():
        assert variable.attrs["long_name"] and variable.attrs["units"] == "1", name
    assert network.W1.dims == ("seed", "step", "out_1", "in_1")


def test_unknown_settings_of_a_job_are_refused() -> None:
    answer = decaymerge("train", "tasks.nc", "out.nc", "--settings", '{"experiment": "x"}')
    assert answer.returncode == 1 and answer.stderr.startswith("error: --settings step_size: Field required")


def test_member_of_another_experiment_differs() -> None:
    data = gaussian_data()
    x, y = (train(train_job(experiment=name, steps=1), data) for name in ("x", "y"))
    assert not np.array_equal(x.W1, y.W1)


def test_a_diverged_end_is_found_even_where_the_loss_is_finite() -> None:
    with pytest.raises(UserError, match="training diverged"):
        trained(network={"activation": "linear", "hidden": []}, step_size=1e6, weight_decay=0.0, steps=3)
