"""Test data: held out from training, by the same rule as training data, and none where a user gives none."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import gaussian_data, gaussian_job
from decaymerge import tasks
from decaymerge.config import parse
from decaymerge.errors import UserError
from decaymerge.seeding import generator
from decaymerge.tasks.file import read
from decaymerge.tasks.gaussian import subspace
from decaymerge.workflow.jobs import TasksJob

FUNCTIONS = """
import numpy as np

def without(rng, samples):
    inputs = rng.standard_normal((samples, 2))
    return inputs, inputs[:, 0] > inputs[:, 1]

def told(rng, samples, test_samples, factor=1.0):
    inputs, labels = without(rng, samples)
    test_inputs = factor * rng.standard_normal((test_samples, 2))
    return inputs, labels, test_inputs, test_inputs[:, 0] > test_inputs[:, 1]

def as_many(rng, samples):
    return told(rng, samples, samples)

def short(rng, samples, test_samples):
    return told(rng, samples, test_samples - 1)

def three(rng, samples):
    return (*without(rng, samples), 1)

def sometimes(rng, samples):
    return as_many(rng, samples)[:2 + 2 * (rng.uniform() < 0.5)]
"""
DIGESTS = {
    ("linear", "orthogonal"): "7ceb48bb67893c983bbf44dd7f4e9e68cceb3a643f511600ab0015d8fdaeaee2",
    ("quadratic", "same"): "4aca147742b61dacdfb5e7ace53f48e3a5bb44e4abb95c3950c8698faf84f046",
    ("random", 0.3): "edf0904dafa7eb3a6b2e39025236358c4745918201b3cdd0a9c9f20fc1df5da5",
    "without": "ac1e85161554a012a5d62c5c71d1e0ae7f75d66bb8420133f2968a95aae5446f",
    "file": "8760a9a075fb44bea72890c2aa07730887e6a742a8d19f8220e01854895785dd",
}
"""SHA-256 of training inputs and labels in the last version without test data."""


def digest(task: xr.Dataset) -> str:
    return hashlib.sha256(task.inputs.values.tobytes() + task.labels.values.tobytes()).hexdigest()


def training_data(task: xr.Dataset) -> xr.Dataset:
    return task[["inputs", "labels"]]


@pytest.mark.parametrize(("labels", "overlap"), [key for key in DIGESTS if isinstance(key, tuple)])
@pytest.mark.parametrize("test_samples", [0, 7, None])
def test_training_data_are_bitwise_those_without_test_data(
    labels: str, overlap: Any, test_samples: int | None
) -> None:
    task = gaussian_data(1, labels=labels, overlap=overlap, test_samples=test_samples)
    assert digest(task) == DIGESTS[labels, overlap]
    assert task.sizes.get("test_sample") == {0: None, 7: 7, None: 50}[test_samples]
    assert ("test_inputs" in task) == ("test_labels" in task) == (test_samples != 0)


@pytest.mark.parametrize("overlap", ["orthogonal", "same", 0.3])
def test_test_inputs_are_others_in_the_same_subspace(overlap: Any) -> None:
    a, b = (gaussian_data(index, overlap=overlap) for index in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(b.test_inputs, axis=-1), 1, rtol=1e-12)
    basis = subspace(gaussian_job(1, overlap=overlap).data, 1, 2)  # type: ignore[arg-type]
    projected = b.test_inputs.values @ basis.T @ basis
    np.testing.assert_allclose(projected, b.test_inputs, atol=1e-14)
    cosines = b.test_inputs.values @ b.inputs.values.mT
    assert cosines.max() < 1 - 1e-6
    if overlap == "orthogonal":
        assert np.abs(a.test_inputs.values @ b.inputs.values.mT).max() == 0
        assert np.abs(a.test_inputs.values @ b.test_inputs.values.mT).max() == 0


def training_rule(job: TasksJob, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The vector v of a Gaussian task, and the scores ⟨v, x⟩ of its training inputs."""
    rng = generator(job.experiment, job.task, seed, "data")
    basis = subspace(job.data, job.index, job.task_count)  # type: ignore[arg-type]
    inputs = rng.standard_normal((job.data.samples, len(basis))) @ basis
    vector = rng.standard_normal((basis.shape[1],))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    scores: np.ndarray = inputs @ vector
    return vector, scores


@pytest.mark.parametrize("overlap", ["orthogonal", 0.3])
@pytest.mark.parametrize("labels", ["linear", "quadratic"])
def test_test_labels_follow_the_rule_of_training_labels(labels: str, overlap: Any) -> None:
    job = gaussian_job(1, labels=labels, overlap=overlap, test_samples=1000)
    task = tasks.make(job, [])
    for seed in (0, 1):
        v, scores = training_rule(job, seed)
        other, _ = training_rule(job, seed + 2)
        power, threshold = {"linear": (1, 0.0), "quadratic": (2, float(np.median(scores**2)))}[labels]
        np.testing.assert_array_equal(task.labels[seed], np.where(scores**power >= threshold, 1, -1))
        x, y = task.test_inputs.values[seed], task.test_labels.values[seed]
        assert (y * ((x @ v) ** power - threshold) > 0).all()
        assert (y * ((x @ other) ** power - threshold) <= 0).mean() > 0.1


def test_random_test_labels_are_a_fair_coin() -> None:
    task = gaussian_data(labels="random", seeds=(0,), samples=20, test_samples=10_000)
    assert abs(task.test_labels.values.mean()) < 0.03
    correlation = np.abs(task.test_labels.values[0] @ task.test_inputs.values[0]).max() / 10_000
    assert correlation < 0.02


def test_test_data_depend_on_the_seed_alone() -> None:
    together = gaussian_data(seeds=(0, 1, 2))
    xr.testing.assert_identical(together.sel(seed=[1]), gaussian_data(seeds=(1,)))
    assert not np.array_equal(together.test_inputs[0], together.test_inputs[1])
    fewer = gaussian_data(samples=20, test_samples=50)  # a stream of their own, whatever training draws
    np.testing.assert_array_equal(fewer.test_inputs, together.test_inputs[:2])


def test_settings_of_test_samples() -> None:
    def test_size(**settings: Any) -> int:
        network = {"hidden": [4]}
        training = {"step_size": 0.1, "steps": 5, "weight_decay": [0]}
        x = {"tasks": settings, "network": network, "training": training, "seeds": 1}
        return parse({"experiments": {"x": x}}).experiments["x"].named_tasks["a"].test_size

    assert test_size(dataset="fashion_mnist", samples=300) == 300
    assert test_size(dataset="fashion_mnist", samples=60_000) == 10_000
    assert test_size(dataset="gaussian", dim=4, samples=300, test_samples=0) == 0
    with pytest.raises(UserError, match=r"x\.tasks\.test_samples = 10001: .* less than or equal to 10000"):
        test_size(dataset="fashion_mnist", samples=300, test_samples=10_001)
    with pytest.raises(UserError, match=r"x\.tasks\.test_samples = -1: .* greater than or equal to 0"):
        test_size(dataset="gaussian", dim=4, samples=300, test_samples=-1)


def user_job(index: int = 0, **settings: Any) -> TasksJob:
    base = {"dim": 2, "samples": 20}
    return TasksJob.model_validate(
        {"experiment": "x", "task": "ab"[index], "seeds": [0, 1], "index": index, "task_count": 2}
        | {"data": base | settings}
    )


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    training = {"inputs": rng.standard_normal((50, 2)), "labels": rng.integers(0, 2, 50)}
    return training | {"test_inputs": rng.standard_normal((30, 2)), "test_labels": rng.integers(0, 2, 30)}


def file_task(folder: Path, data: dict[str, Any], index: int = 0, **settings: Any) -> xr.Dataset:
    np.savez(folder / "data.npz", **data)
    job = user_job(index, dataset="file", path="data.npz", **settings)
    read.cache_clear()  # the file changes within a test
    return tasks.make(job, [folder / "data.npz"])


def test_file_with_and_without_test_data(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    task = file_task(tmp_path, data)
    assert task.test_inputs.shape == (2, 20, 2)
    signs = {tuple(x): 2 * y - 1 for x, y in zip(data["test_inputs"], data["test_labels"], strict=True)}
    for inputs, labels in zip(task.test_inputs.values, task.test_labels.values, strict=True):
        assert len(np.unique(inputs, axis=0)) == 20
        assert [signs[tuple(x)] for x in inputs] == labels.tolist()
    assert not np.array_equal(task.test_inputs[0], task.test_inputs[1])
    assert file_task(tmp_path, data, samples=40).sizes["test_sample"] == 30
    assert file_task(tmp_path, data, test_samples=25).sizes["test_sample"] == 25
    without = file_task(tmp_path, {name: data[name] for name in ("inputs", "labels")})
    for others in (without, file_task(tmp_path, data, test_samples=0)):
        assert set(others) == {"inputs", "labels"} and digest(others) == digest(task) == DIGESTS["file"]


def test_test_inputs_of_a_file_are_padded_and_normalised(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    a, b = (file_task(tmp_path, data, index, padded=True, normalised=True) for index in (0, 1))
    assert a.test_inputs.shape == (2, 20, 4)
    assert np.abs(a.test_inputs.values @ b.inputs.values.mT).max() == 0
    np.testing.assert_allclose(np.linalg.norm(a.test_inputs, axis=-1), 1, rtol=1e-12)


def test_test_labels_of_one_value_are_those_of_training(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    for value, sign in ((3, -1), (7, 1)):
        labels = {"labels": 3 + 4 * data["labels"], "test_labels": np.full(30, value)}
        assert (file_task(tmp_path, data | labels).test_labels == sign).all()


@pytest.mark.parametrize(
    ("change", "settings", "expected"),
    [
        ({}, {"test_samples": 31}, "test_samples: 31, but .*data.npz has 30; set test_samples to at most 30"),
        ({"test_inputs": None}, {}, "has no array 'test_inputs'; it holds: inputs, labels, test_labels"),
        (
            {"test_inputs": None, "test_labels": None},
            {"test_samples": 5},
            "test_samples: 5, but .*data.npz has no test data; give test_inputs and test_labels, or leave",
        ),
        ({"test_labels": np.arange(30) % 3}, {}, r"test_labels have values \(2\) that labels do not .*0, 1"),
        (
            {"test_labels": np.arange(29) % 2},
            {},
            r"test_inputs and test_labels have the shapes \(30, 2\) and",
        ),
        ({"test_inputs": np.full((30, 2), np.inf)}, {}, "test_inputs hold nan or inf"),
        ({"test_inputs": np.ones((30, 3))}, {}, "dim: 2, but the test_inputs of .*data.npz have 3 features"),
        ({"test_inputs": np.zeros((30, 2))}, {"normalised": True}, "but some test_inputs of .* are zero"),
        ({"test_inputs": np.ones((0, 2)), "test_labels": np.ones(0)}, {}, "test_labels are empty"),
    ],
)
def test_wrong_test_data_of_a_file_are_one_line(
    change: dict[str, Any],
    settings: dict[str, Any],
    expected: str,
    data: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    arrays = {name: array for name, array in (data | change).items() if array is not None}
    with pytest.raises(UserError, match=expected) as refusal:
        file_task(tmp_path, arrays, **settings)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def function_task(code: Path, name: str, **settings: Any) -> xr.Dataset:
    return tasks.make(user_job(dataset="function", function=f"mine.py:{name}", **settings), [code])


def test_function_with_and_without_test_data(code: Path) -> None:
    without = function_task(code, "without")
    assert set(without) == {"inputs", "labels"} and digest(without) == DIGESTS["without"]
    told = function_task(code, "told", arguments={"factor": 2.0})
    assert told.test_inputs.shape == (2, 20, 2)
    assert (told.test_labels == np.where(told.test_inputs[..., 0] > told.test_inputs[..., 1], 1, -1)).all()
    assert function_task(code, "told", test_samples=35).sizes["test_sample"] == 35
    assert function_task(code, "as_many").sizes["test_sample"] == 20
    for name in ("told", "as_many"):
        xr.testing.assert_identical(training_data(function_task(code, name)), without)
        xr.testing.assert_identical(function_task(code, name, test_samples=0), without)
    xr.testing.assert_identical(function_task(code, "without", test_samples=0), without)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("without", {"test_samples": 5}, "test_samples: 5, but .*mine.py:without has no test data"),
        ("short", {}, "returned 19 test samples, but test_samples: 20 were asked for; return that number"),
        ("as_many", {"test_samples": 5}, "returned 20 test samples, but test_samples: 5 were asked for"),
        ("three", {}, r"returned a tuple of 3; it must return \(inputs, labels\) or \(inputs, labels, test_"),
        ("sometimes", {"seeds": 8}, "a: . of 8 seeds have test data; give them for all seeds or for none"),
    ],
)
def test_wrong_test_data_of_a_function_are_one_line(
    name: str, settings: dict[str, Any], expected: str, code: Path
) -> None:
    job = user_job(
        dataset="function",
        function=f"mine.py:{name}",
        **{key: value for key, value in settings.items() if key != "seeds"},
    )
    job = job.model_copy(update={"seeds": list(range(settings.get("seeds", 2)))})
    with pytest.raises(UserError, match=expected) as refusal:
        tasks.make(job, [code])
    assert "\n" not in str(refusal.value)
