"""The lists of packages: pip's, conda's and the lock file name the same."""

import re
import subprocess
import sys
import tomllib

import yaml

from conftest import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text()


def _names(requirements: list[str]) -> set[str]:
    aliases = {"pytorch": "torch"}
    names = {re.split(r"[<>=!~ \[]", line, maxsplit=1)[0].lower().replace("_", "-") for line in requirements}
    return {aliases.get(name, name) for name in names}


def test_dependency_lists_agree() -> None:
    """PyTorch has an index of its own, and is installed next to the lock file."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {*project["dependencies"], *extras["figures"], *extras["workflow"]} - {"decaymerge[figures]"}
    loose = _names(list(needed))
    conda: list[str] = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    lock = re.findall(r"^[a-z].*$", LOCK, re.MULTILINE)
    assert _names(conda) - {"python"} == loose
    others = [*extras["dev"], *extras["examples"], *extras["s3"]]
    assert (loose | _names(others)) - _names(lock) == {"torch"}
    assert all("==" in line for line in lock)
    bounds = {line.replace("pytorch", "torch") for line in conda if not line.startswith("python")}
    assert bounds == needed


def test_lock_names_the_version_of_pytorch_that_is_installed_next_to_it() -> None:
    (version,) = re.findall(r"^TORCH := (torch==.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert f"TORCH={version}" in LOCK


def test_lock_satisfies_the_loose_bounds() -> None:
    command = [sys.executable, "-m", "pip", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
