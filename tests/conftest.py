"""Shared fixtures: Snakemake in a folder of its own, the finished smoke run, and the real Fashion-MNIST."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml
from playwright.sync_api import Browser, sync_playwright

from decaymerge import store
from decaymerge.fetch import fashion_mnist

REPOSITORY = Path(__file__).parent.parent
CACHE = Path(os.environ.setdefault("DECAYMERGE_CACHE", str(REPOSITORY / "resources")))


class Workflow:
    """Snakemake on one configuration in one folder."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config

    def command(self, *arguments: str) -> list[str]:
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(self.config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--workflow-profile", str(REPOSITORY / "profiles/default"), "--configfile", str(path)]
        return [*command, "--directory", str(self.folder), *arguments]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)

    def run(self, *arguments: str) -> None:
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def planned(self, *arguments: str) -> Counter[str]:
        """Number of jobs by rule that a run would start, target rules left out."""
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout + done.stderr
        jobs = re.findall(r"^(\w+) +(\d+)$", text, flags=re.MULTILINE)
        assert jobs or "Nothing to be done" in text, text
        return Counter({rule: int(count) for rule, count in jobs if rule not in ("total", "all")})

    def planned_outputs(self) -> set[str]:
        """Files that a run would write."""
        done = self.snakemake("--dry-run")
        commands = re.findall(
            r"^Shell command: decaymerge \w+ (.*)$", done.stdout + done.stderr, re.MULTILINE
        )
        return {word for command in commands for word in command.split() if word.startswith("results/")}


def smoke_config() -> dict[str, Any]:
    config = yaml.safe_load((REPOSITORY / "config/smoke.yaml").read_text())
    assert isinstance(config, dict)
    config["scan"]["models"]["tiny_bert"]["source"] = f"path:{REPOSITORY}/tests/data/tiny_bert"
    return config


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The configuration, a copy of its own, with the setting at ``a/b/c`` set."""
    *parents, last = path.split("/")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def assert_same_results(folder: Path, expected: Path) -> None:
    """Every tensor, check and table is bit by bit the same, and there is no file too many or too few."""

    def results(where: Path) -> set[str]:
        return {str(file.relative_to(where)) for file in (where / "results").rglob("*") if file.is_file()}

    assert results(folder) == results(expected)
    for name in results(expected):
        if name.endswith(".nc"):
            xr.testing.assert_identical(store.read(folder / name), store.read(expected / name))
        elif name.endswith((".json", ".md")):
            assert (folder / name).read_text() == (expected / name).read_text(), name


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The smoke configuration, run to its end."""
    workflow = Workflow(tmp_path_factory.mktemp("smoke"), smoke_config())
    workflow.run()
    return workflow


@pytest.fixture
def finished(smoke: Workflow) -> Iterator[Workflow]:
    """The finished smoke run, whose configuration a test may change: it is put back afterwards."""
    yield smoke
    smoke.config = smoke_config()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    assert executable, "Chromium is needed to look at pages; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def fashion_mnist_files() -> list[Path]:
    """The four real files, fetched where they are missing, in the order train images, train labels, test …"""
    folder = CACHE / "fashion_mnist"
    if not all((folder / name).is_file() for name in fashion_mnist.SHA256):
        fashion_mnist.fetch(folder, None)
    return [folder / name for name in fashion_mnist.SHA256]
