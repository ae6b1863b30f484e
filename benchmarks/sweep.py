"""Run sweeps of tiny trainings, and write what each job of Snakemake costs around its command.

usage: python benchmarks/sweep.py FILE.json MINUTES_PER_JOB EXPERIMENTS,EXPERIMENTS,... [SNAKEMAKE-ARGUMENTS]

Each experiment has two tasks and two λ: 11 files, its summary included. MINUTES_PER_JOB is the configuration's: at
0 each file has a job of its own. Sizes run one after the other, each in a new folder, and FILE.json grows by a row
after each of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison import HERE

CHECKOUT = HERE.parent


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


def run(folder: Path, config: dict[str, Any], arguments: list[str]) -> dict[str, float]:
    """Seconds, memory and threads of one run, and its number of jobs."""
    configfile, measured = folder / "config.json", folder / "time.json"
    configfile.write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    command = [sys.executable, str(HERE / "snakemake_time.py"), str(measured), "--directory", str(folder)]
    command += ["--configfile", str(configfile), "--quiet", "all", *arguments]
    command += ["--", *(f"results/{name}/summary.nc" for name in config["experiments"])]
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log)
    assert done.returncode == 0, (folder / "log").read_text()[-2000:]
    jobs = len(list((folder / "benchmarks").rglob("*.tsv")))
    return {"jobs": jobs, **json.loads(measured.read_text())}


def main(output: Path, minutes_per_job: float, sizes: list[int], arguments: list[str]) -> None:
    """Run the sizes, print a line for each of them, and keep the rows."""
    (CHECKOUT / "runs").mkdir(exist_ok=True)
    rows = []
    for experiments in sizes:
        with tempfile.TemporaryDirectory(dir=CHECKOUT / "runs") as scratch:
            row = run(Path(scratch), sweep(experiments, minutes_per_job), arguments)
        rows.append({"experiments": experiments, "minutes_per_job": minutes_per_job, **row})
        output.write_text(json.dumps(rows, indent=2) + "\n")
        print(
            f"{experiments} experiments, {row['jobs']} jobs: {60 * row['jobs'] / row['wall']:.0f} a minute,"
            f" {row['wall']:.0f} s, main process {row['main']:.0f} s ({row['main'] / row['jobs']:.3f} s a job),"
            f" {row['megabytes']:.0f} MB, {row['threads']} threads; commands {row['commands']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), [int(size) for size in sys.argv[3].split(",")], sys.argv[4:])
