"""Run Snakemake, and write where its processor time went.

usage: python benchmarks/snakemake_time.py FILE.json SNAKEMAKE-ARGUMENTS

``main`` is Snakemake's own process, ``commands`` all that it has started, starts of Python included. Their sampled
times in the ``benchmark:`` files miss what a command does after its last sample.
"""

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil


def watch(peak: dict[str, Any]) -> None:
    """Keep the largest number of threads of this process, and what they do."""
    while True:
        if (threads := psutil.Process().num_threads()) > peak["threads"]:
            kinds = Counter(f"{type(t).__name__} {t.name.split('-')[0]}" for t in threading.enumerate())
            peak |= {"threads": threads, "kinds": dict(kinds)}
        time.sleep(1)


def processor_time(who: int) -> float:
    """Seconds of processor time, of the user and of the system."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main(output: Path, arguments: list[str]) -> None:
    """Run Snakemake in this process."""
    from snakemake.cli import main as snakemake

    peak: dict[str, Any] = {"threads": 0}
    threading.Thread(target=watch, args=[peak], daemon=True).start()
    sys.argv = ["snakemake", *arguments]
    began = time.monotonic()
    try:
        snakemake()
    finally:
        result = {
            "wall": time.monotonic() - began,
            "main": processor_time(resource.RUSAGE_SELF),
            "commands": processor_time(resource.RUSAGE_CHILDREN),
            "cores": os.cpu_count(),
            **peak,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        }
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
