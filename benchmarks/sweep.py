"""Run sweeps of tiny trainings, and write what each job of Snakemake costs around its command.

usage: python benchmarks/sweep.py [--empty] FILE.json MINUTES_PER_JOB EXPERIMENTS,... [SNAKEMAKE-ARGUMENTS]

Each experiment has two tasks and two λ: 11 files, its summary included. MINUTES_PER_JOB is the configuration's: at
0 each file has a job of its own. Sizes run one after the other, each in a new folder, and FILE.json grows by a row
after each of them. With --empty the commands make empty files: this takes little more than Snakemake's own time.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

from comparison import HERE

CHECKOUT = HERE.parent
EMPTY = """#!/bin/sh
for path; do
  case "$path" in
    */summary.nc) : > "$path"; : > "${path%summary.nc}table.csv" ;;
    results/*.nc) test -e "$path" || : > "$path" ;;
  esac
done
"""
"""Of its arguments, a command's outputs are the files that are not there."""


def sweep(experiments: int, minutes_per_job: float) -> dict[str, Any]:
    """The configuration of a sweep; the experiments differ by their step sizes."""
    return {
        "minutes_per_job": minutes_per_job,
        "experiments": {
            f"sweep_{i:04}": {
                "tasks": {"dataset": "gaussian", "dim": 8, "samples": 8},
                "network": {"hidden": [4, 4]},
                "training": {
                    "step_size": 0.1 + 1e-4 * i,
                    "steps": 10,
                    "kept_steps": 2,
                    "weight_decay": [0.001, 0.01],
                },
                "seeds": 2,
            }
            for i in range(experiments)
        },
    }


def empty_commands(folder: Path) -> Path:
    """Python of an environment with this one's packages, and with a `decaymerge` that makes empty files."""
    venv.create(folder, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(packages) / "here.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    command = folder / "bin/decaymerge"
    command.write_text(EMPTY)
    command.chmod(0o755)
    return folder / "bin/python"


def run(folder: Path, python: Path, config: dict[str, Any], arguments: list[str]) -> dict[str, float]:
    """Seconds, memory and threads of one run, and its number of jobs."""
    configfile, measured = folder / "config.json", folder / "time.json"
    configfile.write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PATH": f"{python.parent}:{environment['PATH']}"}
    command = [str(python), str(HERE / "snakemake_time.py"), str(measured), "--directory", str(folder)]
    command += ["--configfile", str(configfile), "--quiet", "all", *arguments]
    command += ["--", *(f"results/{name}/summary.nc" for name in config["experiments"])]
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log)
    assert done.returncode == 0, (folder / "log").read_text()[-2000:]
    jobs = len(list((folder / "benchmarks").rglob("*.tsv")))
    return {"jobs": jobs, **json.loads(measured.read_text())}


def main(
    output: Path, minutes_per_job: float, sizes: list[int], arguments: list[str], *, is_empty: bool
) -> None:
    """Run the sizes, print a line for each of them, and keep the rows."""
    (CHECKOUT / "runs").mkdir(exist_ok=True)
    rows = []
    for experiments in sizes:
        with tempfile.TemporaryDirectory(dir=CHECKOUT / "runs") as scratch:
            python = empty_commands(Path(scratch) / "programs") if is_empty else Path(sys.executable)
            row = run(Path(scratch), python, sweep(experiments, minutes_per_job), arguments)
        rows.append({"experiments": experiments, "minutes_per_job": minutes_per_job, **row})
        output.write_text(json.dumps(rows, indent=2) + "\n")
        print(
            f"{experiments} experiments, {row['jobs']} jobs: {60 * row['jobs'] / row['wall']:.0f} a minute,"
            f" {row['wall']:.0f} s, main process {row['main']:.0f} s ({row['main'] / row['jobs']:.3f} s a job),"
            f" {row['megabytes']:.0f} MB, {row['threads']} threads; commands {row['commands']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    IS_EMPTY = sys.argv[1] == "--empty"
    FILE, MINUTES, SIZES, *ARGUMENTS = sys.argv[1 + IS_EMPTY :]
    main(
        Path(FILE),
        float(MINUTES),
        [int(size) for size in SIZES.split(",")],
        ARGUMENTS,
        is_empty=IS_EMPTY,
    )
