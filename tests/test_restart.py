"""A training that was killed goes on from the state that it kept, and ends as one that was not."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import BALANCED, gaussian_data, gaussian_job, train, train_job, trained
from decaymerge import store
from decaymerge.train.restart import RestartFile

DATA = gaussian_data()
OPTIMISERS: dict[str, dict[str, Any]] = {
    "gd": {},
    "gd in all coordinates": {"dtype": "float64"},
    "gd of a member that stops before": {
        "dtype": "float64",
        "steps": 3000,
        "network": BALANCED,
        "weight_decay": 0.05,
        "stationarity": 1e-3,
    },
    "sgd": {"optimiser": "sgd", "batch_size": 7},
    "flow": {"optimiser": "gf", "dtype": "float64", "network": BALANCED, "step_size": 1},
    "flow along kinks": {"optimiser": "gf", "dtype": "float64", "step_size": 1},
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the project catches it."""


class KilledAfter(RestartFile):
    """Writes the state at every opportunity, and is killed right after the given write."""

    def __init__(self, path: Path, identity: str, writes: int) -> None:
        super().__init__(path, identity, 0)
        self.writes = writes

    def due(self) -> bool:
        return True

    def write(self, arrays: Any) -> None:
        super().write(arrays)
        self.writes -= 1
        if self.writes == 0:
            raise Killed


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_killed_run_ends_as_one_that_was_not(optimiser: str, tmp_path: Path) -> None:
    job = train_job(**OPTIMISERS[optimiser])
    undisturbed = trained(**OPTIMISERS[optimiser])
    path, identity = tmp_path / "out.nc", "x"
    for writes in (20, 30, 1):  # each run goes on where the one before was killed
        with pytest.raises(Killed):
            train(job, DATA, KilledAfter(path, identity, writes))
    last = RestartFile(path, identity, 30)
    assert last.state is not None and (int(last.state["step"]) == 48 or "flow" in optimiser)
    xr.testing.assert_identical(train(job, DATA, last), undisturbed)


@pytest.mark.parametrize("change", [{"weight_decay": 0.1}, {"steps": 201}, {"dtype": "float64"}, None])
def test_another_run_does_not_take_up_the_state(change: dict[str, Any] | None, tmp_path: Path) -> None:
    job, path, data = train_job(), tmp_path / "out.nc", tmp_path / "data.nc"
    store.write(DATA, data, gaussian_job())
    identity = store.identity_of("train", job, [data])
    with pytest.raises(Killed):
        train(job, DATA, KilledAfter(path, identity, 50))
    assert RestartFile(path, store.identity_of("train", job, [data]), 30).state is not None
    if change is None:
        store.write(DATA.assign(inputs=DATA.inputs * 2), data, gaussian_job())
    other = store.identity_of("train", train_job(**(change or {})), [data])
    assert RestartFile(path, other, 30).state is None


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_torn_state_is_no_state(kept: int, tmp_path: Path) -> None:
    file = RestartFile(tmp_path / "out.nc", "x", 0)
    file.write({"loss": np.arange(1000.0)})
    file.path.write_bytes(file.path.read_bytes()[:kept])
    assert RestartFile(tmp_path / "out.nc", "x", 0).state is None


def test_a_state_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").write_text("a file, where a folder is needed")
    file = RestartFile(tmp_path / "folder/out.nc", "x", 0)
    file.write({"loss": np.zeros(3)})
    assert "warning: the state of this run is not kept" in capsys.readouterr().err


def test_a_large_state_is_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 110.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    file = RestartFile(tmp_path / "out.nc", "x", 30)
    file.write({"loss": np.zeros(3)})  # takes ten seconds
    assert file.next == 110 + 200


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill(tmp_path: Path) -> None:
    job = train_job(steps=8_000, network={"activation": "relu", "hidden": [64, 64]})
    store.write(DATA, tmp_path / "tasks.nc", gaussian_job())
    command = [str(Path(sys.executable).parent / "decaymerge"), "train", "tasks.nc", "out.nc"]
    command += ["--settings", job.model_dump_json(), "--restart-every", "0"]
    state = tmp_path / ".out.nc.restart"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as run:
        while not state.exists():
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out.nc").exists()
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "continuing from step" in answer.stderr
    undisturbed = train(job, DATA)
    continued = store.read(tmp_path / "out.nc")
    for name in undisturbed.data_vars:
        np.testing.assert_array_equal(continued[name], undisturbed[name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.nc", "tasks.nc"]
