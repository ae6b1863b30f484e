"""Where every file of a run lies: the one place that knows, for the rules and for Python.

A place is a format string with the workflow's wildcards. Below ``results`` it is a file's path without its ending;
a job's log and its benchmark have the same place below ``logs`` and ``benchmarks``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

TASKS = "{experiment}/tasks/{task}/seeds={block}"
TRAINED = "{experiment}/train/{task}/weight_decay={weight_decay}/seeds={block}"
MERGED = "{experiment}/merge/{merge_set}/weight_decay={weight_decay}/seeds={block}"
EVALUATED = "{experiment}/evaluate/{merge_set}/weight_decay={weight_decay}/seeds={block}"
SUMMARY = "{experiment}/summary"
TABLE = "{experiment}/table"
CLAIMS = "{experiment}/claims"
SCAN = "scan/{model}"
FIGURE = "figures/{figure}"


def result(place: str, ending: str = ".nc") -> str:
    """A place below ``results``, as a rule's output."""
    return f"results/{place}{ending}"


def log(place: str) -> str:
    """Where a job that writes to ``place`` says what it does."""
    return f"logs/{place}.log"


def benchmark(place: str) -> str:
    """Where Snakemake writes time and memory of a job that writes to ``place``."""
    return f"benchmarks/{place}.tsv"


def path(results: Path, place: str, **wildcards: str) -> Path:
    """The NetCDF file of a place in a folder of results."""
    return results / f"{place.format_map(wildcards)}.nc"


def find(results: Path, place: str, **wildcards: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Files of a place in a folder of results, sorted, each with its wildcards; those given are fixed."""
    names = re.findall(r"{(\w+)}", place)
    pattern = re.compile(
        "".join(
            f"(?P<{part}>[^/]+)" if i % 2 else re.escape(part)
            for i, part in enumerate(re.split(r"{(\w+)}", place))
        )
    )
    anything = {name: wildcards.get(name, "*") for name in names}
    for file in sorted(results.glob(f"{place.format_map(anything)}.nc")):
        match = pattern.fullmatch(str(file.relative_to(results).as_posix()).removesuffix(".nc"))
        if match and wildcards.items() <= match.groupdict().items():
            yield file, match.groupdict()
