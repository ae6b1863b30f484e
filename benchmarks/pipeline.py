"""What surrounds the computation: the start of a command, a run that has nothing to do, and a run's overhead.

usage: python benchmarks/pipeline.py [--small]

Makes the default run anew, in a folder beside other runs; ``--small`` makes the smoke run instead.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from comparison import HERE, REPEATS, Row, medians, on_one_thread, row, seconds, show
from decaymerge import store, tasks
from decaymerge.workflow.jobs import MergeJob
from overhead import overhead_of
from training import experiment, tasks_job, train_job

SMALL = "--small" in sys.argv
CHECKOUT = HERE.parent
CONFIG = CHECKOUT / "config" / ("smoke.yaml" if SMALL else "config.yaml")
BIN = Path(sys.executable).parent


def run(*command: str) -> None:
    """A command of this environment, or the whole benchmark stops."""
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def starts(folder: Path) -> list[Row]:
    """Commands on the smallest of jobs, beside importing what they cannot do without."""
    made = experiment([2], 1, {"dim": 4, "samples": 4})
    of_tasks, of_train = tasks_job(made), train_job(made)
    data, network, merged = (str(folder / f"{name}.nc") for name in ("tasks", "train", "merge"))
    store.write(tasks.make(of_tasks, []), Path(data), of_tasks)
    of_merge = MergeJob(methods=made.merges, network=made.network).model_dump_json()
    commands = {
        "start of a command with PyTorch": (
            ["decaymerge", "train", data, network, "--settings", of_train.model_dump_json()],
            "import torch, xarray, netCDF4",
            1.5,
        ),
        "start of a command with xarray": (
            ["decaymerge", "merge", merged, network, network, "--settings", of_merge],
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
        whole, alone = medians(
            lambda command=command: seconds(lambda: run(*command)),  # type: ignore[misc]
            lambda imports=imports: seconds(lambda: run("python", "-c", imports)),  # type: ignore[misc]
        )
        rows.append(
            row(
                name,
                goal / whole,
                f"{goal:g} s: {whole:.2f} s, a job with next to nothing to do",
                f"'{imports}' alone takes {alone:.2f} s, and its end",
                1,
            )
        )
    return rows


def whole_run(folder: Path) -> list[Row]:
    """All of a run, and the same command again."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}"}
    command = ["snakemake", "--directory", str(folder), "--configfile", str(CONFIG), "--quiet"]

    def snakemake() -> None:
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    took = seconds(snakemake)
    found = overhead_of(folder, os.cpu_count() or 1)
    (again,) = medians(lambda: seconds(snakemake), repeats=REPEATS)
    return [
        row(
            "smoke run" if SMALL else "default run",
            found.commands / found.cores / found.wall,
            f"its commands' own time on {found.cores} cores, {found.commands / found.cores:.0f} s against"
            f" {found.wall:.0f} s, {took:.0f} s with Snakemake's start",
            "1, where no core waits and Snakemake takes no time",
            1 / 1.3,
        ),
        row(
            "run with nothing to do",
            3 / again,
            f"3 s: {again:.2f} s",
            "Snakemake's start and a look at each file",
            1,
        ),
    ]


def main() -> None:
    """All comparisons."""
    on_one_thread()
    (CHECKOUT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKOUT / "runs") as scratch:
        rows = [*starts(Path(scratch)), *whole_run(Path(scratch))]
    show(rows, None if SMALL else "pipeline")


if __name__ == "__main__":
    main()
