"""Where the time of a finished run went: python benchmarks/overhead.py [folder of the run] [cores].

From Snakemake's records of when each job began and ended, and the jobs' own benchmark files. A run that was
interrupted, or went on later, has a gap in its records: measure one that ran through.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Overhead(NamedTuple):
    """Seconds of a run."""

    of_rule: dict[str, list[float]]
    """Of each job, by rule."""
    wall: float
    """From the first job's start to the last one's end."""
    commands: float
    """Of all commands."""
    processor: float
    """Processor time of all commands."""
    cores: int


def overhead_of(folder: Path, cores: int) -> Overhead:
    """Of the run in ``folder``."""
    records = [json.loads(path.read_text()) for path in (folder / ".snakemake/metadata").iterdir()]
    # One record for each output; a job's outputs share their log.
    jobs = {tuple(record["log"]): record for record in records if record["starttime"]}.values()
    measured: list[dict[str, str]] = []
    for path in (folder / "benchmarks").rglob("*.tsv"):
        with path.open() as stream:
            measured += csv.DictReader(stream, delimiter="\t")
    of_rule: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        of_rule[job["rule"]].append(job["endtime"] - job["starttime"])
    return Overhead(
        of_rule=of_rule,
        wall=max(job["endtime"] for job in jobs) - min(job["starttime"] for job in jobs),
        commands=sum(float(row["s"]) for row in measured),
        processor=sum(float(row["cpu_time"]) for row in measured),
        cores=cores,
    )


def main(folder: Path, cores: int) -> None:
    """Print job time and processor time by rule, and the wall time beside the least that the jobs allow."""
    found = overhead_of(folder, cores)
    print(f"{'rule':24}{'jobs':>6}{'s':>9}")
    for rule, times in sorted(found.of_rule.items(), key=lambda item: -sum(item[1])):
        print(f"{rule:24}{len(times):6}{sum(times):9.0f}")
    held = sum(map(sum, found.of_rule.values()))
    print(
        f"\nwall time from the first job's start to the last one's end: {found.wall:.0f} s on {cores} cores"
    )
    print(
        f"commands (benchmark files): {found.commands:.0f} s, of which {found.processor:.0f} s processor time"
    )
    print(
        f"around them, in the jobs: {held - found.commands:.0f} s;"
        f" cores without a job: {cores * found.wall - held:.0f} s"
    )
    print(f"ratio of wall time to commands / {cores}: {cores * found.wall / found.commands:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
