"""Measure the time around the computation: starts of commands, a run with nothing to do, and a run's overhead.

usage: python benchmarks/pipeline.py [--small]

It makes the whole default run in a new folder below ``runs``; ``--small`` makes the smoke run instead.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from comparison import HERE, REPEATS, Row, medians, on_one_thread, row, seconds, show
from decaymerge import store, tasks
from training import experiment, tasks_job, train_job

SMALL = "--small" in sys.argv
CHECKOUT = HERE.parent
CONFIG = CHECKOUT / "config" / ("smoke.yaml" if SMALL else "config.yaml")
BIN = Path(sys.executable).parent


def run(*command: str) -> None:
    """Run a command of this environment; if it fails, the benchmark stops."""
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def starts(folder: Path) -> list[Row]:
    """Time of commands with the smallest of jobs, and of the imports that they cannot do without."""
    settings = experiment([2], 1, {"dim": 4, "samples": 4})
    job = tasks_job(settings)
    data, network = (str(folder / f"{name}.nc") for name in ("tasks", "train"))
    store.write(tasks.make(job, []), Path(data), job)
    train_settings = train_job(settings).model_dump_json()
    commands = {
        "start of a command with PyTorch": (
            ["decaymerge", "train", data, network, "--settings", train_settings],
            "import torch, xarray, netCDF4",
            1.5,
        ),
        "start of a command with xarray": (
            ["decaymerge", "inspect", data],
            "import xarray, netCDF4",
            0.3,
        ),
        "start of a command with neither": (
            ["decaymerge", "check", str(CHECKOUT / "config/config.yaml")],
            "import pydantic, typer, yaml",
            0.3,
        ),
    }
    rows = []
    for name, (command, imports, goal) in commands.items():
        command_time, import_time = medians(
            lambda command=command: seconds(lambda: run(*command)),  # type: ignore[misc]
            lambda imports=imports: seconds(lambda: run("python", "-c", imports)),  # type: ignore[misc]
        )
        rows.append(
            row(
                name,
                goal / command_time,
                f"{goal:g} s: {command_time:.2f} s, a job with next to nothing to do",
                f"'{imports}' alone takes {import_time:.2f} s, and its end",
                1,
            )
        )
    return rows


def whole_run(folder: Path) -> list[Row]:
    """Time of a run, and of the same command again, when nothing is left to do."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}"}
    measured = folder / "time.json"
    command = [sys.executable, str(HERE / "snakemake_time.py"), str(measured)]
    command += ["--directory", str(folder), "--configfile", str(CONFIG), "--quiet"]

    def snakemake() -> None:
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    snakemake()
    first = json.loads(measured.read_text())
    share = first["commands"] / first["cores"]
    (repeat_time,) = medians(lambda: seconds(snakemake), repeats=REPEATS)
    return [
        row(
            "smoke run" if SMALL else "default run",
            share / first["wall"],
            f"processor time of its commands on {first['cores']} cores, {share:.0f} s against"
            f" {first['wall']:.0f} s from Snakemake's start to its end",
            "1, where no core waits and Snakemake takes no time",
            1 / 1.15,
        ),
        row(
            "Snakemake's own process",
            0.05 * first["wall"] / first["main"],
            f"a goal of 5% of a core: {first['main']:.0f} s of {first['wall']:.0f} s, with"
            f" {first['threads']} threads",
            "its start alone takes a second",
            1,
        ),
        row(
            "run with nothing to do",
            3 / repeat_time,
            f"3 s: {repeat_time:.2f} s",
            "Snakemake's start and a look at each file",
            1,
        ),
    ]


def main() -> None:
    """Run all comparisons, print them as a table and write them to ``pipeline.json``."""
    on_one_thread()
    (CHECKOUT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKOUT / "runs") as scratch:
        rows = [*starts(Path(scratch)), *whole_run(Path(scratch))]
    show(rows, None if SMALL else "pipeline")


if __name__ == "__main__":
    main()
