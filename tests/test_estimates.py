"""Memory that jobs ask a scheduler for, against the peaks that they have."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from decaymerge.config import check
from decaymerge.config.base import load
from decaymerge.config.experiment import Experiment, merge_sets
from decaymerge.workflow import estimates, jobs

BASE = 250
"""MB: up to twice the measured peak, and this."""

# Not the shapes that the constants of estimates.py were chosen with.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "wide": {
        "tasks": {"dataset": "gaussian", "dim": 50, "samples": 2000, "overlap": "same"},
        "network": {"hidden": [64, 256]},
        "training": {"step_size": 0.1, "steps": 60, "weight_decay": [1e-3]},
        "seeds": 6,
    },
    "power": {
        "tasks": {"dataset": "gaussian", "dim": 60, "samples": 1500},
        "task_count": 3,
        "gap_by_layer": True,
        "network": {"hidden": [50, 50], "power": 2},
        "training": {
            "method": "sgd",
            "batch_size": 50,
            "step_size": 0.01,
            "steps": 300,
            "weight_decay": [1e-3],
        },
        "seeds": 5,
    },
    "shallow": {
        "tasks": {"dataset": "gaussian", "dim": 60, "samples": 300, "overlap": 0.5},
        "network": {"hidden": [150], "fixed_outer_layer": True},
        "training": {"step_size": 0.1, "steps": 60, "weight_decay": [1e-3, 1e-2], "dtype": "float64"},
        "seeds": 6,
    },
    "flow": {
        "tasks": {"dataset": "gaussian", "dim": 40, "samples": 150, "overlap": 0.5},
        "network": {"activation": "linear", "hidden": [128, 128], "initialisation": "balanced"},
        "training": {
            "method": "gf",
            "step_size": 0.1,
            "steps": 100,
            "weight_decay": [1e-2],
            "dtype": "float64",
        },
        "seeds": 4,
    },
}


# A process starts with the peak of the one that started it, so that a small one has to be between it and pytest.
LAUNCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*arguments: object) -> float:
    """MB that a command had at most, from the system's own count: sampling misses short peaks."""
    command = [sys.executable, "-S", "-c", LAUNCH, "decaymerge", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024 / estimates.MEGABYTE


def measure(name: str, experiment: Experiment, folder: Path) -> dict[str, tuple[float, estimates.Demand]]:
    """Peak and demand of each stage's job; of several jobs of a stage, the larger peak."""
    found: dict[str, tuple[float, estimates.Demand]] = {}

    def run(asked: estimates.Demand, stage: str, *arguments: object) -> None:
        found[stage] = max(found.get(stage, (0.0, asked)), (peak(stage, *arguments), asked))

    decays = jobs.weight_decays(experiment.training)
    for task in experiment.named_tasks:
        for block in jobs.seed_blocks(experiment):
            data = folder / "tasks" / task / f"seeds={block}.nc"
            settings = jobs.tasks_job(name, experiment, task, block).model_dump_json()
            run(estimates.tasks(experiment), "tasks", data, "--settings", settings)
            for decay in decays:
                network = folder / "train" / task / f"weight_decay={decay}" / f"seeds={block}.nc"
                settings = jobs.train_job(name, experiment, task, decay).model_dump_json()
                run(estimates.train(experiment), "train", data, network, "--settings", settings)
    pair, members = list(merge_sets(experiment).items())[-1]
    one = f"weight_decay={decays[0]}/seeds={jobs.seed_blocks(experiment)[0]}.nc"
    own = [folder / "train" / task / one for task in members]
    merged, evaluated = folder / "merge" / pair / one, folder / "evaluate" / pair / one
    settings = jobs.merge_job(experiment).model_dump_json()
    run(estimates.merge(experiment, len(members)), "merge", merged, *own, "--settings", settings)
    files = [f"--tasks={folder / 'tasks' / task / Path(one).name}" for task in members]
    files += [f"--own={file}" for file in own] + [f"--merged={merged}"]
    settings = jobs.evaluate_job(experiment, pair, decays[0]).model_dump_json()
    asked = estimates.evaluate(experiment, len(members))
    run(asked, "evaluate", evaluated, *files, "--settings", settings)
    if experiment.training.dtype == "float64":
        settings = jobs.claims_job(name, experiment).model_dump_json()
        written = [folder / "claims.json", f"--experiment={folder}", f"--traces={folder / 'claims.nc'}"]
        run(estimates.claims(experiment), "claims", *written, "--settings", settings)
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_memory_is_never_under_and_at_most_twice_over(name: str, tmp_path: Path) -> None:
    found = measure(name, Experiment.model_validate(EXPERIMENTS[name]), tmp_path)
    for stage, (measured, asked) in found.items():
        print(f"{name} {stage}: measured {measured:.0f} MB, asked {asked.megabytes - estimates.SNAKEMAKE} MB")
    for stage, (measured, asked) in found.items():
        assert measured <= asked.megabytes - estimates.SNAKEMAKE <= 2 * measured + BASE, stage


def test_demand_grows_with_every_size() -> None:
    given = EXPERIMENTS["wide"]
    small = Experiment.model_validate(given)
    larger: dict[str, dict[str, Any]] = {
        "samples": {"tasks": {**given["tasks"], "samples": 20_000}},
        "dim": {"tasks": {**given["tasks"], "dim": 5000}},
        "widths": {"network": {"hidden": [640, 2560]}},
        "kept steps": {"training": {**given["training"], "steps": 6000, "checkpoints": 400}},
        "seeds a job": {"seeds": 60, "seeds_per_job": 60},
    }
    for change in larger.values():
        large = Experiment.model_validate({**given, **change})
        assert estimates.train(large).megabytes > estimates.train(small).megabytes
        assert estimates.evaluate(large, 2).megabytes > estimates.evaluate(small, 2).megabytes
    long = Experiment.model_validate({**given, "training": {**given["training"], "steps": 10**6}})
    assert estimates.train(long).minutes > 10 * estimates.train(small).minutes


@pytest.mark.default_run
def test_jobs_of_the_default_run_stayed_within_their_demand() -> None:
    """Measured by ``benchmark:``, which samples: a peak may be missed, so this is only half of the test above."""
    config = check(load(REPOSITORY / "config/config.yaml"))
    checked = 0
    for name, experiment in config.experiments.items():
        asked = {
            "tasks": estimates.tasks(experiment),
            "train": estimates.train(experiment),
            "merge": estimates.merge(experiment, len(experiment.named_tasks)),
            "evaluate": estimates.evaluate(experiment, len(experiment.named_tasks)),
            "gather": estimates.gather(experiment),
            "claims": estimates.claims(experiment),
        }
        folder = REPOSITORY / "benchmarks" / name
        for stage, of_stage in asked.items():
            for file in [*(folder / stage).rglob("*.tsv"), *folder.glob(f"{stage}.tsv")]:
                checked += 1
                _within(file, of_stage)
    for stage, fixed in {"scan": estimates.SCAN, "claims/scan": estimates.SCAN_CLAIMS}.items():
        for file in (REPOSITORY / "benchmarks" / stage).glob("*.tsv"):
            checked += 1
            _within(file, fixed)
    shown = [config.experiments[name] for name in (*config.figure2, *config.figure3)]
    for file in (REPOSITORY / "benchmarks/figures").glob("*.tsv"):
        checked += 1
        _within(file, estimates.figure(shown))
    assert checked > 200


def _within(file: Path, asked: estimates.Demand) -> None:
    with file.open() as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert float(row["max_rss"]) <= asked.megabytes - estimates.SNAKEMAKE, file
    assert float(row["s"]) <= 60 * asked.minutes, file
