"""``decaymerge verify``: members made again from the settings in their files."""

import shutil
import subprocess
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from builders import smoke_config
from builders_runs import write_networks, write_summaries
from commands import decaymerge
from conftest import CACHE, Workflow
from decaymerge import store
from decaymerge import verify as verification
from decaymerge.config import parse
from decaymerge.errors import UserError
from decaymerge.verify import compare

NETWORK = "linear_gf/train/a/weight_decay=0.03/seeds=0-1.nc"
DATA = "linear_gf/tasks/a/seeds=0-1.nc"


def verify(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return decaymerge("verify", results, f"--cache={CACHE}", *arguments)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments: merged networks, and one of a single task."""
    folder, experiments = tmp_path_factory.mktemp("results"), smoke_config()["experiments"]
    config = parse({"experiments": {name: experiments[name] for name in ("linear_gf", "labels_linear")}})
    write_networks(config, folder)
    write_summaries(config, folder)
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    shutil.copytree(results / "linear_gf", tmp_path / "linear_gf")
    return tmp_path


def test_all_members_are_made_again_bit_by_bit(results: Path) -> None:
    answer = verify(results, "--members", "1000")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = [line for line in answer.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) == 4 * 4 + 2 * 3 and all(line.endswith(": identical") for line in lines)
    assert {line.split("/")[1] for line in lines} == {"tasks", "train", "merge", "evaluate"}
    assert answer.stdout.endswith("6 members verified, largest deviation 0\n")


@pytest.mark.slow
def test_all_members_of_the_smoke_run_are_made_again_bit_by_bit(smoke: Workflow) -> None:
    """By a process of one thread, as the workflow's jobs are."""
    command = ["decaymerge", "verify", f"{smoke.folder}/results", f"--cache={CACHE}", "--members=1000"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = [line for line in answer.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) > 100 and all(line.endswith(": identical") for line in lines)
    assert {line.split("/")[1] for line in lines} == {"tasks", "train", "merge", "evaluate"}
    assert answer.stdout.endswith("members verified, largest deviation 0\n")


def test_the_draw_is_random_and_repeatable(results: Path) -> None:
    first, same, other = (verify(results, "--members=2", f"--seed={seed}").stdout for seed in (1, 1, 2))
    assert first == same != other and first.startswith("member 1 of 2: ")


def test_a_changed_number_is_found(copy: Path) -> None:
    with netCDF4.Dataset(copy / NETWORK, "a") as file:
        file["W1"][:] *= 1 + 1e-6
    answer = verify(copy, "--members=4")
    assert answer.returncode == 1 and f"{NETWORK}: deviates by 1e-06" in answer.stdout
    assert "error: the largest deviation, 1e-06, is above --tolerance 0;" in answer.stderr
    assert verify(copy, "--members=4", "--tolerance=1e-5").returncode == 0


def test_what_cannot_be_verified_is_said_in_one_line(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty").stderr.startswith(
        f"error: {tmp_path}/empty holds no <experiment>/train/"
    )
    (copy / DATA).unlink()
    assert f"{DATA} is missing" in verify(copy, "--members=4").stderr
    with netCDF4.Dataset(copy / NETWORK, "a") as file:
        file.delncattr("settings")
    shutil.copytree(copy / "linear_gf/tasks/b", copy / "linear_gf/tasks/a", dirs_exist_ok=True)
    assert "seeds=0-1.nc does not say its settings" in verify(copy, "--members=4").stderr


def test_a_file_of_fewer_seeds_than_its_name(copy: Path) -> None:
    store.read(copy / DATA).isel(seed=[0]).to_netcdf(copy / DATA)
    with pytest.raises(UserError, match=r"tasks/a/seeds=0-1\.nc holds no seed 1: remove it"):
        next(verification.verify(copy, copy / NETWORK, 1, CACHE))


def test_what_is_not_a_number_in_both_is_the_same_and_coordinates_count(tmp_path: Path) -> None:
    def saved(values: list[float], steps: list[int]) -> xr.Dataset:
        return xr.Dataset({"x": (("seed", "step"), [values])}, coords={"seed": [0], "step": steps})

    stored = saved([np.nan, 1.0], [0, 1])
    stored.to_netcdf(tmp_path / "x.nc")
    assert compare(tmp_path / "x.nc", 0, stored).deviation == 0
    assert compare(tmp_path / "x.nc", 0, saved([np.nan, 1 + 1e-9], [0, 1])).deviation == pytest.approx(1e-9)
    assert compare(tmp_path / "x.nc", 0, saved([0.0, 1.0], [0, 1])).deviation == np.inf
    assert compare(tmp_path / "x.nc", 0, saved([np.nan, 1.0], [0, 50])).deviation == np.inf
