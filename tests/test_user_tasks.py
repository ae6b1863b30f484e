"""Tasks with your own data: files, functions, what is refused, and a whole run."""

import os
import py_compile
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders_runs import write_networks, write_summaries
from builders_tasks import file_job, function_job
from commands import decaymerge
from conftest import Workflow
from decaymerge import store, tasks
from decaymerge.config import parse
from decaymerge.digests import content_digest
from decaymerge.errors import UserError
from decaymerge.tasks.function import load_function

SPIRALS = """
import numpy as np

def spirals(rng, samples, turns=1.0):
    labels = rng.integers(0, 2, samples)
    angle = rng.uniform(0, 2 * np.pi * turns, samples)
    return angle[:, None] * np.stack([np.cos(angle + np.pi * labels), np.sin(angle + np.pi * labels)], 1), labels

def short(rng, samples):
    return np.ones((samples - 1, 2)), np.arange(samples - 1) % 2

def fails(rng, samples):
    raise RuntimeError("no\\nluck")

def ragged(rng, samples):
    return [[1.0, 2.0], [3.0]], [0, 1]

def alone(rng, samples):
    return np.ones((samples, 2))

NUMBER = 1
"""


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"inputs": rng.standard_normal((50, 2)), "labels": rng.integers(0, 2, 50)}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SPIRALS)
    return path


def test_npz_and_netcdf_give_the_same(data: dict[str, np.ndarray], tmp_path: Path) -> None:
    save(tmp_path / "data.npz", data)
    dims = {"inputs": ("sample", "feature"), "labels": ("sample",)}
    xr.Dataset({name: (dims[name], array) for name, array in data.items()}).to_netcdf(tmp_path / "data.nc")
    task, same = (tasks.make(file_job(), [tmp_path / name]) for name in ("data.npz", "data.nc"))
    xr.testing.assert_identical(task, same)
    signs = {tuple(x): 2 * y - 1 for x, y in zip(data["inputs"], data["labels"], strict=True)}
    for x, y in zip(task.inputs.values[0], task.labels.values[0], strict=True):
        assert signs[tuple(x)] == y
    assert len(np.unique(task.inputs.values[0], axis=0)) == 20
    assert not np.array_equal(task.inputs[0], task.inputs[1])


def test_padded_tasks_are_orthogonal_and_normalised_ones_on_the_sphere(
    data: dict[str, np.ndarray], tmp_path: Path
) -> None:
    save(tmp_path / "data.npz", data)
    files = [tmp_path / "data.npz"]
    a, b = (tasks.make(file_job(i, padded=True, normalised=True), files).inputs.values for i in (0, 1))
    assert a.shape == (2, 20, 4)
    assert np.abs(a @ b.mT).max() == 0
    np.testing.assert_allclose(np.linalg.norm([a, b], axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("values", [(False, True), (-1.0, 1.0), (3, 7)])
def test_the_larger_label_is_1(values: tuple[Any, Any], data: dict[str, np.ndarray], tmp_path: Path) -> None:
    labels = np.where(data["labels"] == 1, values[1], values[0])
    save(tmp_path / "plain.npz", data)
    np.savez(tmp_path / "other.npz", inputs=data["inputs"], labels=labels)
    plain, other = (tasks.make(file_job(), [tmp_path / f"{name}.npz"]) for name in ("plain", "other"))
    np.testing.assert_array_equal(plain.labels, other.labels)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": np.arange(50) % 10}, r"labels must be binary, but have 10 values \(0, 1, 2, 3, …\)"),
        ({"labels": np.linspace(0, 1, 50)}, "labels must be binary, but have 50 values"),
        ({"labels": np.ones(50)}, r"labels must be binary, but have 1 values \(1\)"),
        ({"labels": np.array(["a", "b"] * 25)}, "labels are of type <U1, not numbers"),
        ({"labels": np.ones((50, 2))}, r"have the shapes \(50, 2\) and \(50, 2\)"),
        ({"labels": np.arange(49) % 2}, r"have the shapes \(50, 2\) and \(49,\)"),
        ({"inputs": np.full((50, 2), np.nan)}, "inputs hold nan or inf"),
        ({"inputs": np.ones((50, 3))}, "dim: 2, but the inputs of .*data.npz have 3 features"),
        ({"inputs": np.zeros((50, 2))}, "normalised: true, but some inputs of .* are zero"),
        ({"inputs": np.full((50, 2), 1e300)}, "normalised: true, but norms of inputs of .* overflow"),
        ({"inputs": np.ones((10, 2)), "labels": np.arange(10) % 2}, "samples: 20, but .*data.npz has 10"),
        ({"labels": None}, "has no array 'labels'; it holds: inputs"),
        ({"labels": np.array([None] * 50)}, "cannot be read"),
    ],
)
def test_wrong_files_are_one_line(
    change: dict[str, Any], expected: str, data: dict[str, np.ndarray], tmp_path: Path
) -> None:
    arrays = {name: array for name, array in (data | change).items() if array is not None}
    save(tmp_path / "data.npz", arrays)
    with pytest.raises(UserError, match=expected) as refusal:
        tasks.make(file_job(normalised=True), [tmp_path / "data.npz"])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["data.npz", "data.nc"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off", b"\x89HDF\r\n\x1a\n cut off"])
def test_damaged_file(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        tasks.make(file_job(), [tmp_path / name])


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_archive_with_damaged_content(write: Any, data: dict[str, np.ndarray], tmp_path: Path) -> None:
    write(tmp_path / "data.npz", **data)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[300:320] = bytes(255 - byte for byte in content[300:320])
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        tasks.make(file_job(), [tmp_path / "data.npz"])


def test_damaged_netcdf_content(tmp_path: Path) -> None:
    path, rng = tmp_path / "data.nc", np.random.default_rng(0)
    inputs = xr.DataArray(rng.standard_normal((5000, 2)), dims=("sample", "feature"))
    labels = xr.DataArray(rng.integers(0, 2, 5000), dims="sample")
    packed = {"inputs": {"zlib": True}}
    xr.Dataset({"inputs": inputs, "labels": labels}).to_netcdf(path, encoding=packed, engine="netcdf4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 1000 : middle + 1000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        tasks.make(file_job(), [path])


def test_function(code: Path) -> None:
    task = tasks.make(function_job(arguments={"turns": 0.5}), [code])
    assert task.inputs.shape == (2, 20, 2) and set(task.labels.values.flat) == {-1, 1}
    assert np.linalg.norm(task.inputs, axis=-1).max() <= np.pi
    xr.testing.assert_identical(
        task.sel(seed=[1]), tasks.make(function_job(seeds=(1,), arguments={"turns": 0.5}), [code])
    )
    assert not np.array_equal(task.inputs[0], task.inputs[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", "returned 19 samples, but samples: 20 were asked for"),
        ("fails", "mine.py:fails raised RuntimeError: no luck"),
        ("ragged", "mine.py:ragged: .* cannot be made arrays \\(setting an array element"),
        ("alone", r"returned ndarray; it must return \(inputs, labels\) or"),
        ("spiral", "has no function 'spiral'; it has: spirals, short, fails, ragged, alone"),
        ("NUMBER", "has no function 'NUMBER'"),
    ],
)
def test_wrong_functions_are_one_line(name: str, expected: str, code: Path) -> None:
    with pytest.raises(UserError, match=expected) as refusal:
        tasks.make(function_job(name), [code])
    assert "\n" not in str(refusal.value)


def test_unknown_argument_and_code_that_does_not_load(code: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raised TypeError: .*unexpected keyword argument 'turn'"):
        tasks.make(function_job(arguments={"turn": 1}), [code])
    other = tmp_path / "other.py"
    other.write_text("import nowhere_to_be_found")
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        tasks.make(function_job(), [other])
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(0)")
    with pytest.raises(UserError, match=r"script\.py: SystemExit: 0"):
        tasks.make(function_job(), [script])


def test_bytecode_is_neither_read_nor_written(tmp_path: Path) -> None:
    """Of a file that changes twice in a second, it would be that of the old file."""
    code, other = tmp_path / "mine.py", tmp_path / "other.py"
    code.write_text("def make(): return 1")
    os.utime(code, (1e9, 1e9))
    py_compile.compile(str(code))
    for path in (code, other):
        path.write_text("def make(): return 2")
        os.utime(path, (1e9, 1e9))
        assert load_function(path, "make")() == 2
    assert [path.name.split(".")[0] for path in tmp_path.glob("__pycache__/*")] == ["mine"]


def settings_of_a_run() -> dict[str, Any]:
    """An experiment with a task from a file and one from a function."""
    file = {"dataset": "file", "path": "data.npz", "dim": 2, "samples": 40, "padded": True}
    function = {"dataset": "function", "function": "mine.py:spirals", "dim": 2, "samples": 30, "padded": True}
    training = {"step_size": 0.1, "steps": 30, "weight_decay": [0.01]}
    network = {"activation": "relu", "hidden": [8]}
    mine = {"tasks": {"a": file, "b": function}, "network": network, "training": training, "seeds": 2}
    return {"experiments": {"mine": mine}}


@pytest.fixture
def folder(data: dict[str, np.ndarray], code: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with the user's files."""
    save(code.parent / "data.npz", data)
    monkeypatch.chdir(code.parent)
    return code.parent


@pytest.mark.slow
@pytest.mark.workflow
def test_a_run_with_a_file_and_a_function(folder: Path) -> None:
    workflow = Workflow(folder, settings_of_a_run())
    workflow.run()
    summary = store.read(folder / "results/mine/summary.nc")
    assert summary.task.values.tolist() == ["a", "b"] and np.isfinite(summary.loss).all()
    assert (folder / "results/figures/mine.png").is_file()
    assert not workflow.planned()
    (folder / "mine.py").write_text(SPIRALS.replace("2 * np.pi", "3 * np.pi"))
    assert workflow.planned()["tasks"] == 1 and workflow.planned()["train"] == 1
    paths = {
        (stage, task): next((folder / f"results/mine/{stage}/{task}").rglob("*.nc"))
        for stage in ("tasks", "train")
        for task in "ab"
    }
    before = {key: content_digest(path) for key, path in paths.items()}
    workflow.run()
    assert {key for key, path in paths.items() if content_digest(path) != before[key]} == {
        ("tasks", "b"),
        ("train", "b"),
    }
    np.savez(folder / "data.npz", inputs=np.ones((50, 2)), labels=np.arange(50) % 2)
    assert workflow.planned()["tasks"] == 1


def test_verify_looks_for_the_files_of_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(settings_of_a_run())
    write_networks(config, folder / "results")
    write_summaries(config, folder / "results")
    summary = store.read(folder / "results/mine/summary.nc")
    assert summary.task.values.tolist() == ["a", "b"] and np.isfinite(summary.loss).all()
    monkeypatch.chdir("/")
    answer = decaymerge("verify", folder / "results", "--members", "4")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (folder / "mine.py").unlink()
    answer = decaymerge("verify", folder / "results", "--members", "4")
    assert answer.returncode == 1 and "mine.py, which is missing" in answer.stderr


@pytest.mark.parametrize("path", ["data.csv", "{x}.npz"])
def test_a_path_that_does_not_work(path: str) -> None:
    settings = settings_of_a_run()
    settings["experiments"]["mine"]["tasks"]["a"]["path"] = path
    with pytest.raises(UserError, match=rf"mine\.tasks\.a\.path = '{re.escape(path)}': String should match"):
        parse(settings)


@pytest.mark.slow
@pytest.mark.workflow
def test_a_missing_file_is_told_before_any_job_starts(folder: Path) -> None:
    (folder / "data.npz").unlink()
    dry_run = Workflow(folder, settings_of_a_run()).snakemake("--dry-run")
    assert dry_run.returncode != 0
    assert "task a needs data.npz, and there is no such file" in dry_run.stdout + dry_run.stderr
