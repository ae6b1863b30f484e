"""Memory that jobs ask a scheduler for, against their peaks."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders import REPOSITORY
from decaymerge.config import parse
from decaymerge.config.base import load
from decaymerge.config.experiment import Experiment
from decaymerge.workflow import estimates, jobs, layout, parts
from decaymerge.workflow.estimates import Estimate

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
    "tested": {
        "tasks": {"dataset": "gaussian", "dim": 80, "samples": 100, "test_samples": 15_000},
        "network": {"hidden": [32, 32]},
        "training": {"step_size": 0.1, "steps": 60, "weight_decay": [1e-3]},
        "seeds": 4,
    },
    "power": {
        "tasks": {"dataset": "gaussian", "dim": 60, "samples": 1500},
        "task_count": 3,
        "gap_by_layer": True,
        "network": {"hidden": [50, 50], "power": 2},
        "training": {
            "optimiser": "sgd",
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
            "optimiser": "gf",
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
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return int(answer.stdout) * 1024 / estimates.MEGABYTE


def measure(experiment: Experiment, results: Path) -> dict[str, tuple[float, Estimate]]:
    """Peak and estimate of each stage's job; of several jobs of a stage, the larger peak."""
    config = parse({"experiments": {"x": experiment.model_dump(exclude_none=True)}})
    peaks: dict[str, tuple[float, Estimate]] = {}

    def run(stage: str, estimate: Estimate, job: jobs.Job, *arguments: object) -> None:
        measured = peak(stage, *arguments, "--settings", job.model_dump_json())
        peaks[stage] = max(peaks.get(stage, (0.0, estimate)), (measured, estimate))

    def file(place: str, **wildcards: str) -> Path:
        return layout.path(results, place, experiment="x", **wildcards)

    decays, blocks = jobs.weight_decays(experiment.training), jobs.seed_blocks(experiment)
    for task in experiment.named_tasks:
        for block in blocks:
            data = file(layout.TASKS, task=task, block=block)
            run("tasks", estimates.tasks(experiment), jobs.TasksJob.of(config, "x", task, block), data)
            for decay in decays:
                job = jobs.TrainJob.of(config, "x", task, decay, block)
                network = file(layout.TRAINED, task=task, weight_decay=decay, block=block)
                run("train", estimates.train(experiment), job, data, network)
    merge_set, members = list(experiment.merge_sets.items())[-1]
    place = {"weight_decay": decays[0], "block": blocks[0]}
    own = [file(layout.TRAINED, task=task, **place) for task in members]
    merged, evaluated = (
        file(stage, merge_set=merge_set, **place) for stage in (layout.MERGED, layout.EVALUATED)
    )
    merging = jobs.MergeJob.of(config, "x", merge_set, **place)
    run("merge", estimates.merge(experiment, len(members)), merging, merged, *own)
    files = [f"--tasks={file(layout.TASKS, task=task, block=blocks[0])}" for task in members]
    files += [f"--own={path}" for path in own] + [f"--merged={merged}"]
    evaluation = jobs.EvaluateJob.of(config, "x", merge_set, **place)
    run("evaluate", estimates.evaluate(experiment, len(members)), evaluation, evaluated, *files)
    if experiment.training.dtype == "float64":
        claims = file(layout.CLAIMS)
        output = [claims.with_suffix(".json"), f"--traces={claims}"]
        run("check-claims", estimates.claims(experiment), jobs.ClaimsJob.of(config, "x"), results, *output)
    return peaks


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_memory_is_never_under_and_at_most_twice_over(name: str, tmp_path: Path) -> None:
    peaks = measure(Experiment.model_validate(EXPERIMENTS[name]), tmp_path)
    for stage, (measured, estimate) in peaks.items():
        asked = estimate.megabytes - estimates.SNAKEMAKE
        print(f"{name} {stage}: measured {measured:.0f} MB, asked {asked} MB")
    for stage, (measured, estimate) in peaks.items():
        assert measured <= estimate.megabytes - estimates.SNAKEMAKE <= 2 * measured + BASE, stage


def test_estimates_grow_with_every_size() -> None:
    given = EXPERIMENTS["wide"]
    small = Experiment.model_validate(given)
    changes: dict[str, dict[str, Any]] = {
        "samples": {"tasks": {**given["tasks"], "samples": 20_000}},
        "test samples": {"tasks": {**given["tasks"], "test_samples": 20_000}},
        "dim": {"tasks": {**given["tasks"], "dim": 5000}},
        "widths": {"network": {"hidden": [640, 2560]}},
        "kept steps": {"training": {**given["training"], "steps": 6000, "kept_steps": 400}},
        "seeds a job": {"seeds": 60, "seeds_per_job": 60},
    }
    for change in changes.values():
        large = Experiment.model_validate({**given, **change})
        assert estimates.train(large).megabytes > estimates.train(small).megabytes
        assert estimates.evaluate(large, 2).megabytes > estimates.evaluate(small, 2).megabytes
    long = Experiment.model_validate({**given, "training": {**given["training"], "steps": 10**6}})
    assert estimates.train(long).minutes() > 10 * estimates.train(small).minutes()


@pytest.mark.default_run
def test_jobs_of_the_default_run_stayed_within_their_estimates() -> None:
    """Measured by ``benchmark:``, which samples: a peak may be missed, so this is only half of the test above."""
    config = parse(load(REPOSITORY / "config/config.yaml"))
    measured: dict[Path, Estimate] = {}
    for name, experiment in config.experiments.items():
        of_stage = {
            "tasks": estimates.tasks(experiment),
            "train": estimates.train(experiment),
            "merge": estimates.merge(experiment, len(experiment.named_tasks)),
            "evaluate": estimates.evaluate(experiment, len(experiment.named_tasks)),
            "summary": estimates.gather(experiment),
            "claims": estimates.claims(experiment),
        }
        folder = REPOSITORY / "benchmarks" / name
        for stage, estimate in of_stage.items():
            files = [*(folder / stage).rglob("*.tsv"), *folder.glob(f"{stage}.tsv")]
            measured |= dict.fromkeys(files, estimate)
    fixed = {"scan": estimates.SCAN, "claims/scan": estimates.VERDICTS}
    for stage, estimate in fixed.items():
        measured |= dict.fromkeys((REPOSITORY / "benchmarks" / stage).glob("*.tsv"), estimate)
    for figure, picture in config.pictures.items():
        experiments = [config.experiments[name] for name in picture.names if name in config.experiments]
        files = list((REPOSITORY / "benchmarks").glob(f"figures/{figure}.tsv"))
        measured |= dict.fromkeys(files, estimates.figure(experiments))
    for file, estimate in measured.items():
        check_within(file, estimate)
    assert len(measured) > 100


def check_within(file: Path, estimate: Estimate) -> None:
    with file.open() as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert float(row["max_rss"]) <= estimate.megabytes - estimates.SNAKEMAKE, file
    assert float(row["s"]) <= 60 * estimate.minutes(parts.MOST), file
