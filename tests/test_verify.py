"""`decaymerge verify`: members made anew from the settings in their files."""

import shutil
import subprocess
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from conftest import CACHE, Workflow
from decaymerge import store
from decaymerge.verify import compare


def verify(results: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["decaymerge", "verify", str(results), f"--cache={CACHE}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_members_of_the_smoke_run_are_made_anew_bit_by_bit(smoke: Workflow) -> None:
    done = verify(smoke.folder / "results", "--members", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) > 100 and all(line.endswith(": identical") for line in lines)
    assert {line.split("/")[1] for line in lines} == {"tasks", "train", "merge", "evaluate"}
    assert done.stdout.endswith("members verified, largest deviation 0\n")


def test_the_draw_is_random_and_repeatable(smoke: Workflow) -> None:
    one, same, other = (
        verify(smoke.folder / "results", "--members=2", f"--seed={seed}").stdout for seed in (1, 1, 2)
    )
    assert one == same != other and one.startswith("member 1 of 2: ")


@pytest.fixture
def copy(smoke: Workflow, tmp_path: Path) -> Path:
    shutil.copytree(smoke.folder / "results/linear_gf", tmp_path / "linear_gf")
    return tmp_path


def test_a_changed_number_is_found(copy: Path) -> None:
    network = copy / "linear_gf/train/a/weight_decay=0.03/seeds=0-1.nc"
    with netCDF4.Dataset(network, "a") as file:
        file["W1"][:] *= 1 + 1e-6
    done = verify(copy, "--members=4")
    assert done.returncode == 1 and "train/a/weight_decay=0.03/seeds=0-1.nc: deviates by 1e-06" in done.stdout
    assert "\nerror: the largest deviation, 1e-06, is above --tolerance 0;" in done.stderr
    assert verify(copy, "--members=4", "--tolerance=1e-5").returncode == 0


def test_what_cannot_be_verified_is_said_in_one_line(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / "empty").stderr.startswith(
        f"error: {tmp_path}/empty holds no <experiment>/train/"
    )
    (copy / "linear_gf/tasks/a/seeds=0-1.nc").unlink()
    assert "linear_gf/tasks/a/seeds=0-1.nc is missing" in verify(copy, "--members=4").stderr
    network = copy / "linear_gf/train/a/weight_decay=0.03/seeds=0-1.nc"
    with netCDF4.Dataset(network, "a") as file:
        file.delncattr("settings")
    shutil.copytree(copy / "linear_gf/tasks/b", copy / "linear_gf/tasks/a", dirs_exist_ok=True)
    assert "seeds=0-1.nc does not say its settings" in verify(copy, "--members=4").stderr


def test_a_file_of_fewer_seeds_than_its_name(copy: Path) -> None:
    data = copy / "linear_gf/tasks/a/seeds=0-1.nc"
    whole = store.read(data)
    whole.isel(seed=[0]).to_netcdf(data)
    assert "tasks/a/seeds=0-1.nc holds no seed 1: remove it" in verify(copy, "--members=4").stderr


def test_what_is_not_a_number_in_both_is_the_same_and_coordinates_count(tmp_path: Path) -> None:
    def saved(values: list[float], steps: list[int]) -> xr.Dataset:
        return xr.Dataset({"x": (("seed", "step"), [values])}, coords={"seed": [0], "step": steps})

    stored = saved([np.nan, 1.0], [0, 1])
    stored.to_netcdf(tmp_path / "x.nc")
    assert compare(tmp_path / "x.nc", 0, stored).deviation == 0
    assert compare(tmp_path / "x.nc", 0, saved([np.nan, 1 + 1e-9], [0, 1])).deviation == pytest.approx(1e-9)
    assert compare(tmp_path / "x.nc", 0, saved([0.0, 1.0], [0, 1])).deviation == np.inf
    assert compare(tmp_path / "x.nc", 0, saved([np.nan, 1.0], [0, 50])).deviation == np.inf
