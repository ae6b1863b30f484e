"""NetCDF files: whole or not at all, and an error that says how to remake a damaged one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from builders import gaussian_job
from decaymerge import store
from decaymerge.atomic import atomic_file
from decaymerge.errors import UserError


def example(size: int = 1000) -> xr.Dataset:
    losses = xr.Dataset(
        {"loss": (("seed", "step"), np.arange(2.0 * size).reshape(2, size))}, coords={"seed": [0, 1]}
    )
    return store.describe(losses, {"loss": "loss"})


def test_round_trip(tmp_path: Path) -> None:
    store.write(example(), tmp_path / "deep/er/x.nc", gaussian_job())
    stored = store.read(tmp_path / "deep/er/x.nc")
    xr.testing.assert_equal(stored, example())
    assert stored.loss.attrs == {"long_name": "loss", "units": "1"}
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["x.nc"]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_says_which_and_how_to_remake_it(tmp_path: Path, part: float) -> None:
    path = tmp_path / "x.nc"
    store.write(example(), path, gaussian_job())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UserError) as refusal:
        store.read(path)
    assert f"{path} cannot be read as NetCDF" in str(refusal.value)
    assert f"rm -f {path}, then give the same command again" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; remake it: rm -f"):
        store.read(tmp_path / "x.nc")


def test_a_new_file_takes_the_place_of_the_old_one_at_once(tmp_path: Path) -> None:
    """Somebody who reads the old file goes on reading it: nothing is written into it."""
    path, seen = tmp_path / "x.json", tmp_path / "seen.json"
    path.write_text('"made_by": "decaymerge old"')
    seen.hardlink_to(path)
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == seen.read_text()
    assert path.read_text() == "new" and seen.read_text().endswith('old"')


def test_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.nc"
    store.write(example(), path, gaussian_job())
    monkeypatch.setattr(
        xr.Dataset, "to_netcdf", lambda *_, **__: (_ for _ in ()).throw(OSError("no space left"))
    )
    with pytest.raises(UserError, match=r"x.nc cannot be written: no space left; .* MB free: make room"):
        store.write(example(2000), path, gaussian_job())
    assert store.read(path).sizes["step"] == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["x.nc"]


WRITER = """
import sys
from pathlib import Path
import numpy as np, xarray as xr
from decaymerge import store
from decaymerge.config.scan import Scan

data = xr.Dataset({"loss": (("seed", "step"), np.arange(4e6).reshape(2, -1))})
print("ready", flush=True)
store.write(data, Path(sys.argv[1]), Scan())
"""


@pytest.mark.slow
def test_killed_writer_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    """SIGKILL at moments spread over the write: the file is absent or whole."""
    outcomes = []
    for delay in (0.0, 0.02, 0.04, 0.06, 0.08):
        path = tmp_path / f"{delay}.nc"
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        outcomes.append(path.exists())
        if path.exists():
            assert store.read(path).sizes["step"] == 2_000_000
    assert not all(outcomes)


def test_file_of_another_stage_says_what_it_holds(tmp_path: Path) -> None:
    store.write(example(), tmp_path / "x.nc", gaussian_job())
    with pytest.raises(UserError, match=r"x.nc has the variables .*loss, but not W1"):
        store.read(tmp_path / "x.nc", "W1")
