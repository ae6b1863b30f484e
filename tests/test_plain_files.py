"""Results open where decaymerge is not installed: by plain xarray, and by NetCDF's own tools."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Workflow

PLAIN = """
import sys
sys.modules["decaymerge"] = None
import xarray as xr
for path in sys.argv[1:]:
    with xr.open_dataset(path) as dataset:
        loaded = dataset.load()
        assert loaded.attrs["settings"] and loaded.attrs["code_revision"], path
        assert all(variable.attrs["long_name"] for variable in loaded.data_vars.values()), path
print(len(sys.argv) - 1)
"""
HEADER = "import sys, netCDF4; print(netCDF4.Dataset(sys.argv[1]))"


@pytest.fixture(scope="module")
def files(smoke: Workflow) -> list[Path]:
    return sorted((smoke.folder / "results").rglob("*.nc"))


def test_by_plain_xarray(files: list[Path]) -> None:
    command = [sys.executable, "-c", PLAIN, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(files) > 50


def test_by_ncdump(files: list[Path]) -> None:
    """``ncdump -h`` where it is installed, else what it is made of, through netCDF4."""
    ncdump = shutil.which("ncdump")
    show = [ncdump, "-h"] if ncdump else [sys.executable, "-c", HEADER]
    (summary,) = (path for path in files if path.match("weight_decay/summary.nc"))
    done = subprocess.run([*show, str(summary)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("loss(merge_set, weight_decay, seed, step, model, task)", "stable_rank", "code_revision"):
        assert name in done.stdout, name
