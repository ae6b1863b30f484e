"""The workflow on a real SLURM, and what clusters do to it (`make slurm-test`)."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from builders import smoke_config
from cluster import ACCOUNT, PARTITION, Cluster, wait_until
from conftest import REPOSITORY, Workflow, assert_same_results
from decaymerge import store

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]

# What a test may not wait for; all else is the profile's.
OPTIONS = f"""
    --profile {REPOSITORY}/profiles/slurm
    --default-resources slurm_partition={PARTITION} slurm_account={ACCOUNT}
    --slurm-init-seconds-before-status-checks 2 --seconds-between-status-checks 2 --latency-wait 15
""".split()
WEIGHTS = "results/trained/train/a/weight_decay={}/seeds=0-{}.nc"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


def trainings(steps: int, weight_decay: list[float], seeds: int) -> dict[str, Any]:
    """A configuration of one task, whose trainings are jobs of their own, and take as long as ``steps`` say."""
    return {
        "minutes_per_job": 0,
        "experiments": {
            "trained": {
                "tasks": {"dataset": "gaussian", "dim": 100, "samples": 1000},
                "task_count": 1,
                "network": {"hidden": [100, 100]},
                "training": {
                    "step_size": 0.5,
                    "steps": steps,
                    "kept_steps": 10,
                    "weight_decay": weight_decay,
                },
                "seeds": seeds,
            }
        },
    }


def locally(folder: Path, config: dict[str, Any], *targets: str) -> list[xr.Dataset]:
    workflow = Workflow(folder / "local", config)
    workflow.folder.mkdir()
    workflow.run(*targets)
    return [store.read(workflow.folder / target) for target in targets]


def test_smoke_run_is_the_local_one(cluster: Cluster, smoke: Workflow, tmp_path: Path) -> None:
    on_cluster = Workflow(tmp_path, smoke_config())
    on_cluster.run(*OPTIONS)
    assert_same_results(tmp_path, smoke.folder)


def test_job_killed_for_its_memory_comes_back_with_more(cluster: Cluster, tmp_path: Path) -> None:
    config, target = trainings(100, [0.001], 2), WEIGHTS.format("0.001", 1)
    (local,) = locally(tmp_path, config, target)
    workflow = Workflow(tmp_path, config)
    workflow.run(target, *OPTIONS, "--set-resources", "train:mem_mb=attempt*250")
    assert cluster.logged("exceeded memory limit")
    xr.testing.assert_identical(store.read(tmp_path / target), local)


@contextmanager
def started(workflow: Workflow, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Snakemake while something happens; then it has to end well, within ten minutes: it asks ever more rarely."""
    log = workflow.folder / "snakemake.log"
    with log.open("w") as stream:
        running = workflow.start(*arguments, stdout=stream, stderr=stream)
        try:
            yield running
            assert running.wait(600) == 0, log.read_text()
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not ended after {error.timeout} s:\n{log.read_text()}") from error
        finally:
            running.kill()


def test_training_killed_for_its_time_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM's limits are whole minutes, and it is late by half of one: the training is made to last two."""
    target = WEIGHTS.format("0.001", 9)
    trial = Workflow(tmp_path / "trial", trainings(2500, [0.001], 10))
    trial.folder.mkdir()
    trial.run(target)
    took = float(
        (trial.folder / "benchmarks" / target.removeprefix("results/"))
        .with_suffix(".tsv")
        .read_text()
        .split()[10]
    )
    config = trainings(int(2500 / (took - 2) * 120), [0.001], 10)  # two seconds for the start
    workflow = Workflow(tmp_path, config)
    log = tmp_path / "logs/trained/train/a/weight_decay=0.001/seeds=0-9.log"

    def goes_on() -> bool:
        """Looked for while it runs: a job that is killed after its file was written is followed by an empty log."""
        start = re.search(r"continuing from step (\d+)", log.read_text()) if log.exists() else None
        return start is not None and int(start[1]) > 0

    with started(workflow, target, *OPTIONS, "--retries", "5", "--set-resources", "train:runtime=1"):
        wait_until("the training goes on", goes_on, 300)
    assert cluster.logged("Time limit exhausted")
    (local,) = locally(tmp_path, config, target)
    xr.testing.assert_identical(store.read(tmp_path / target), local)


def test_node_that_goes_down_while_a_job_runs(cluster: Cluster, tmp_path: Path) -> None:
    config, target = trainings(6000, [0.001], 4), WEIGHTS.format("0.001", 3)
    (local,) = locally(tmp_path, config, target)
    workflow = Workflow(tmp_path, config)
    workflow.run("results/trained/tasks/a/seeds=0-3.nc")
    with started(workflow, target, *OPTIONS):
        wait_until("a job runs", lambda: bool(cluster.jobs("running")))
        (job,) = cluster.jobs("running")
        node = cluster.node_of(job)
        cluster.take_down(node)
        wait_until("another runs", lambda: bool(set(cluster.jobs("running")) - {job}))
        (again,) = cluster.jobs("running")
        assert cluster.node_of(again) != node
    cluster.bring_back(node)
    xr.testing.assert_identical(store.read(tmp_path / target), local)


def test_controller_and_accounting_that_are_restarted_while_jobs_are_queued(
    cluster: Cluster, tmp_path: Path
) -> None:
    decays = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]
    config, targets = trainings(8000, decays, 2), [WEIGHTS.format(decay, 1) for decay in decays]
    local = locally(tmp_path, config, *targets)
    workflow = Workflow(tmp_path, config)
    workflow.run("results/trained/tasks/a/seeds=0-1.nc")
    with started(workflow, *targets, *OPTIONS) as running:
        wait_until("four jobs run", lambda: len(cluster.jobs("running")) == 4)
        wait_until("two are queued", lambda: len(cluster.jobs("pending")) == 2)
        cluster.stop_controller()
        cluster.stop_accounting()
        time.sleep(20)  # some questions of Snakemake meet no answer
        assert running.poll() is None
        cluster.start_accounting()
        cluster.start_controller()
    for target, expected in zip(targets, local, strict=True):
        xr.testing.assert_identical(store.read(tmp_path / target), expected)
