"""The origin of a result. It is written into every result, and ``decaymerge inspect`` prints it."""

import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("decaymerge", "torch", "numpy", "scipy", "xarray", "netCDF4")
CPUS = Path("/proc/cpuinfo")


@functools.cache
def provenance() -> dict[str, str]:
    """Code revision, whether its code is unchanged (``yes``, ``no``, ``unknown``), versions, and kind of host."""
    revision, clean = _revision()
    versions = {name.lower(): version(name) for name in PACKAGES}
    return {
        "code_revision": revision,
        "code_clean": clean,
        **versions,
        "python": platform.python_version(),
        "host": _host(),
    }


def made_by(attributes: Mapping[str, str] | None = None) -> str:
    """The provenance in one line, from a result's attributes, or of this process if none are given."""
    origin = provenance() if attributes is None else attributes
    state = {"yes": "clean", "no": "with changes", "unknown": "unknown"}[origin["code_clean"]]
    versions = ", ".join(f"{name} {origin[name.lower()]}" for name in PACKAGES[1:])
    return (
        f"decaymerge {origin['decaymerge']}, revision {origin['code_revision'][:12]} ({state}); {versions},"
        f" Python {origin['python']}; {origin['host']}"
    )


def _revision() -> tuple[str, str]:
    """Git revision of this package and whether its code is clean; both ``unknown`` outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", str(here)):
            return "unknown", "unknown"  # the package is installed inside another repository
        return git("rev-parse", "HEAD"), "no" if git("status", "--porcelain", "--", str(here)) else "yes"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "unknown"


def _host() -> str:
    """System, architecture, processor and number of cores. The machine's name is left out: it decides nothing."""
    processor = platform.processor()
    if CPUS.is_file():
        models = [line for line in CPUS.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].partition(":")[2].strip() if models else processor
    parts = [f"{platform.system()} {platform.machine()}", processor, f"{os.cpu_count()} cores"]
    return ", ".join(part for part in parts if part)
