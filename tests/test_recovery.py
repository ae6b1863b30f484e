"""Runs that are killed, and disks that are full: the next run ends as an undisturbed one.

`make test-all` tries a few moments; `make fault-test` ten of each kind, every time on a smoke run from its start.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import xarray as xr

from builders import smoke_config
from conftest import Workflow, assert_same_results
from decaymerge import store


def start(workflow: Workflow) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return workflow.start(stdout=quiet, stderr=quiet, start_new_session=True)


def kill_snakemake(run: subprocess.Popen[bytes]) -> str:
    """Snakemake and its jobs at once, as a node's end does."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return "Snakemake and its jobs"


def running_commands(run: subprocess.Popen[bytes]) -> list[tuple[psutil.Process, str]]:
    """Jobs and their stages, without those that end while they are looked at: a zombie has no command line."""
    commands = []
    for child in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            match child.cmdline():
                case [_, program, stage, *_] if Path(program).name == "decaymerge":
                    commands.append((child, stage))
    return commands


def kill_a_job(run: subprocess.Popen[bytes]) -> str:
    """The command of a job, as a system that is out of memory does; Snakemake goes on with what it can."""
    while run.poll() is None:
        if commands := running_commands(run):
            victim, stage = random.choice(commands)
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended between the look and the kill
                victim.kill()
                run.wait()
                return stage
        time.sleep(0.05)
    return "no job: the run had ended"


KINDS = {"snakemake": kill_snakemake, "job": kill_a_job}


def disturb(workflow: Workflow, kind: str, seconds: float) -> str:
    """Start a run, kill after ``seconds``, and look at what is there: every result is whole."""
    run = start(workflow)
    try:
        run.wait(seconds)
        return "the run had ended"
    except subprocess.TimeoutExpired:
        killed = KINDS[kind](run)
    for path in (workflow.folder / "results").rglob("[!.]*.nc"):
        store.read(path)
    return killed


def finish(workflow: Workflow) -> None:
    """What `make` does: takes off the lock that stays, and goes on."""
    workflow.run("--unlock")
    workflow.run()


@pytest.mark.slow
def test_killed_runs_go_on_and_end_the_same(smoke: Workflow, tmp_path: Path) -> None:
    moments = random.Random(0)
    workflow = Workflow(tmp_path, smoke_config())
    for kind in ("snakemake", "job", "snakemake"):
        seconds = moments.uniform(5, 30)
        print(f"after {seconds:.0f} s: {disturb(workflow, kind, seconds)}")
        workflow.run("--unlock")
    workflow.run()
    assert_same_results(tmp_path, smoke.folder)
    assert not workflow.planned()


@pytest.mark.faults
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_at_a_random_moment(smoke: Workflow, tmp_path: Path, kind: str, number: int) -> None:
    seconds = random.Random(f"{kind} {number}").uniform(3, 75)
    workflow = Workflow(tmp_path, smoke_config())
    killed = disturb(workflow, kind, seconds)
    made = len(list((tmp_path / "results").rglob("[!.]*.nc")))
    finish(workflow)
    assert_same_results(tmp_path, smoke.folder)
    print(f"{kind} {number}: killed {killed} after {seconds:.0f} s with {made} files made")
    shutil.rmtree(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.workflow
def test_full_disk_is_told_and_harms_nothing(small_disk: Path, tmp_path: Path) -> None:
    config = smoke_config()
    config["experiments"] = {
        "sweep": {
            "tasks": {"dataset": "gaussian", "dim": 100, "samples": 100},
            "task_count": 1,
            "network": {"hidden": [100, 100]},
            "training": {"step_size": 0.1, "steps": 100, "weight_decay": [0, 0.001, 0.002, 0.003]},
            "seeds": 2,
        }
    }
    del config["figures"], config["scan"]
    targets = [
        f"results/sweep/train/a/weight_decay={decay}/seeds=0-1.nc" for decay in (0, 0.001, 0.002, 0.003)
    ]
    workflow = Workflow(small_disk, config)
    done = workflow.snakemake(*targets, "--cores", "1")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "cannot be written" in output and "make room" in output and "Traceback" not in output
    made = [target for target in targets if (small_disk / target).exists()]
    assert 0 < len(made) < 4
    before = {target: store.read(small_disk / target) for target in made}
    assert not list(small_disk.rglob(".seeds*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert workflow.planned(*targets) == {"train": 1}  # which keeps what is there
    workflow.run(*targets)
    for target in made:
        xr.testing.assert_identical(store.read(small_disk / target), before[target])
    elsewhere = Workflow(tmp_path / "elsewhere", config)
    elsewhere.folder.mkdir()
    elsewhere.run(*targets)
    for target in targets:
        xr.testing.assert_identical(store.read(small_disk / target), store.read(elsewhere.folder / target))


@pytest.mark.slow
def test_number_of_cores_changes_no_bit(smoke: Workflow, tmp_path: Path) -> None:
    """The smoke run has all cores."""
    workflow = Workflow(tmp_path, smoke_config())
    targets = [f"results/{name}/summary.nc" for name in ("independent", "fashion_mnist", "labels_quadratic")]
    targets += [f"results/{name}/claims.nc" for name in ("linear_gf", "overlap_100")]
    workflow.run("--cores", "1", *targets)
    for target in targets:
        xr.testing.assert_identical(store.read(tmp_path / target), store.read(smoke.folder / target))
