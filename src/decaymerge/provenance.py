"""The origin of a result. It is written into every result, and ``decaymerge inspect`` prints it."""

import functools
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from decaymerge import __version__

PACKAGES = ("torch", "numpy", "scipy", "xarray", "netCDF4")
CPUS = Path("/proc/cpuinfo")
"""The processor's model on Linux."""


@functools.cache
def provenance() -> dict[str, str]:
    """Code revision, whether its code is unchanged (``yes``, ``no``, ``unknown``), versions, and kind of host."""
    revision, clean = _revision()
    versions = {name.lower(): version(name) for name in PACKAGES}
    return {
        "code_revision": revision,
        "code_clean": clean,
        "decaymerge": __version__,
        **versions,
        "python": platform.python_version(),
        "host": _host(),
    }


def made_by(attributes: Mapping[str, str] | None = None) -> str:
    """The provenance in one line, from a result's attributes, or of this process if none are given."""
    origin = provenance() if attributes is None else attributes
    state = {"yes": "clean", "no": "with changes", "unknown": "unknown"}[origin["code_clean"]]
    versions = ", ".join(f"{name} {origin[name.lower()]}" for name in PACKAGES)
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
    parts = [f"{platform.system()} {platform.machine()}", _processor(), f"{os.cpu_count()} cores"]
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    """Model of the processor as the system names it; Python's own ``platform`` knows at most its family."""
    if CPUS.is_file():
        models = [line for line in CPUS.read_text().splitlines() if line.startswith("model name")]
        if models:
            return models[0].partition(":")[2].strip()
    elif platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor()
