"""Show how a finished run spent its time.

usage: python benchmarks/overhead.py [FOLDER OF THE RUN] [CORES]

The numbers come from Snakemake's records of the start and end of each job, and from the jobs' benchmark files.
Measure a run that was never interrupted: an interruption leaves a gap in the records.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from decaymerge.workflow.parts import STAGES


class Overhead(NamedTuple):
    """Time of a run, in seconds."""

    seconds_by_rule: dict[str, list[float]]
    """Wall time of each job, by rule; all parts of a stage together."""
    wall: float
    """Time from the first job's start to the last job's end."""
    commands: float
    """Wall time of all commands together."""
    processor: float
    """Processor time of all commands together."""
    cores: int
    """Number of cores that the run could use."""


def overhead_of(folder: Path, cores: int) -> Overhead:
    """Time of the run in ``folder``, which could use ``cores`` cores."""
    records = [json.loads(path.read_text()) for path in (folder / ".snakemake/metadata").iterdir()]
    # One record for each output; a job's outputs share their log.
    jobs = {tuple(record["log"]): record for record in records if record["starttime"]}.values()
    measured: list[dict[str, str]] = []
    for path in (folder / "benchmarks").rglob("*.tsv"):
        with path.open() as stream:
            measured += csv.DictReader(stream, delimiter="\t")
    seconds_by_rule: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        stage = job["rule"].split("_")[0]
        seconds_by_rule[stage if stage in STAGES else job["rule"]].append(job["endtime"] - job["starttime"])
    return Overhead(
        seconds_by_rule=seconds_by_rule,
        wall=max(job["endtime"] for job in jobs) - min(job["starttime"] for job in jobs),
        commands=sum(float(row["s"]) for row in measured),
        processor=sum(float(row["cpu_time"]) for row in measured),
        cores=cores,
    )


def main(folder: Path, cores: int) -> None:
    """Print the time of jobs by rule, of commands and of idle cores, and the wall time relative to the commands."""
    overhead = overhead_of(folder, cores)
    print(f"{'rule':24}{'jobs':>6}{'s':>9}")
    for rule, times in sorted(overhead.seconds_by_rule.items(), key=lambda item: -sum(item[1])):
        print(f"{rule:24}{len(times):6}{sum(times):9.0f}")
    in_jobs = sum(map(sum, overhead.seconds_by_rule.values()))
    print(
        f"\nwall time from the first job's start to the last one's end: {overhead.wall:.0f} s on {cores} cores"
    )
    print(
        f"commands (benchmark files): {overhead.commands:.0f} s, of which {overhead.processor:.0f} s processor time"
    )
    print(
        f"around them, in the jobs: {in_jobs - overhead.commands:.0f} s;"
        f" cores without a job: {cores * overhead.wall - in_jobs:.0f} s"
    )
    print(f"ratio of wall time to commands / {cores}: {cores * overhead.wall / overhead.commands:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
