"""Shared fixtures: Snakemake on a copy of the checkout, the finished smoke run, a browser, real Fashion-MNIST."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import xarray as xr

from builders import smoke_config
from commands import SnakemakeServer
from decaymerge import store
from decaymerge.fetch import fashion_mnist
from decaymerge.workflow.parts import STAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parent.parent
CACHE = Path(os.environ.setdefault("DECAYMERGE_CACHE", str(REPOSITORY / "resources")))
# Commands run as a user's do: with buffers, and with bytecode beside imported files.
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
sys.dont_write_bytecode = False
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by the fixtures that it uses, and put it into the group of those that share a run or a module."""
    fixtures = getattr(item, "fixturenames", ())
    if "smoke" in fixtures:
        item.add_marker("workflow")
    if "browser" in fixtures:
        item.add_marker("browser")
    item.add_marker(pytest.mark.xdist_group("smoke" if "smoke" in fixtures else item.path.stem))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the smoke run first: one process makes it, while the others go on with the rest."""
    items.sort(key=lambda item: "smoke" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to make the smoke run once in every process, as happens where pytest-xdist cannot mark groups."""
    if session.config.getoption("loadgroup", False):
        assert all("@" in item.nodeid for item in session.items), "pytest-xdist ignores the groups of tests"


def copy_checkout(folder: Path) -> None:
    """Copy the files of the working tree, without what git ignores; all of them where there is no git."""
    if not (REPOSITORY / ".git").exists():  # an unpacked source distribution
        ignore = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(REPOSITORY, folder, dirs_exist_ok=True, ignore=ignore)
        return
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


@cache
def snakemake_server() -> SnakemakeServer:
    """Snakemake on a copy of the checkout, which tests may edit; the copy goes when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="decaymerge-checkout-")
    atexit.register(folder.cleanup)
    copy_checkout(Path(folder.name))
    return SnakemakeServer(Path(folder.name))


class Workflow:
    """Snakemake on one configuration in one folder."""

    def __init__(self, folder: Path, config: dict[str, Any], server: SnakemakeServer | None = None) -> None:
        self.folder, self.config = folder, config
        self.server = server or snakemake_server()

    def _arguments(self, *arguments: str) -> list[str]:
        config, checkout = self.folder / "config.yaml", self.server.checkout
        config.write_text(json.dumps(self.config))
        options = {
            "configfile": config,
            "snakefile": checkout / "Snakefile",
            "workflow-profile": checkout / "profiles/default",
            "directory": self.folder,
        }
        return [*(word for name, place in options.items() for word in (f"--{name}", str(place))), *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Snakemake as a process of its own, for tests that disturb it."""
        command = [sys.executable, "-m", "snakemake", *self._arguments(*arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=self.server.environment(), **options)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.server(self._arguments(*arguments), self.folder)

    def run(self, *arguments: str) -> None:
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def dry_run(self, *arguments: str) -> str:
        """Output of a dry run, with the commands."""
        done = self.snakemake("--dry-run", "--printshellcmds", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> Counter[str]:
        """Number of jobs by rule that a run would start, target rules left out."""
        return jobs_by_rule(self.dry_run(*arguments))

    def planned_outputs(self) -> set[str]:
        """Files that a run would write."""
        return outputs(self.dry_run())


def jobs_by_rule(output: str) -> Counter[str]:
    """Number of jobs by rule in the output of a dry run, target rules left out; all parts of a stage together."""
    jobs = re.findall(r"^([\w+.-]+) +(\d+)$", output, flags=re.MULTILINE)
    assert jobs or "Nothing to be done" in output, output
    counts: Counter[str] = Counter()
    for rule, count in dict(jobs).items():  # the table is printed twice
        if rule not in ("total", "all"):
            stage = rule.split("_")[0]
            counts[stage if stage in STAGES else rule] += int(count)
    return counts


def outputs(output: str) -> set[str]:
    """Files that the commands in the output of a dry run would write."""
    commands = re.findall(r"^Shell command: .*decaymerge [\w-]+ (.*)$", output, re.MULTILINE)
    words = (word.strip("'") for command in commands for word in command.split())
    return {word for word in words if word.startswith("results/")}


def assert_same_results(folder: Path, expected: Path) -> None:
    """Every tensor, verdict and table is bit by bit the same, and there is no file too many or too few."""

    def results(where: Path) -> set[str]:
        return {str(file.relative_to(where)) for file in (where / "results").rglob("*") if file.is_file()}

    assert results(folder) == results(expected)
    for name in results(expected):
        if name.endswith(".nc"):
            xr.testing.assert_identical(store.read(folder / name), store.read(expected / name))
        elif name.endswith((".json", ".md")):
            assert (folder / name).read_text() == (expected / name).read_text(), name


@pytest.fixture(scope="session")
def smoke() -> Workflow:
    """The smoke configuration, run to its end in ``runs/smoke`` of the copied checkout."""
    folder = snakemake_server().checkout / "runs/smoke"
    folder.mkdir(parents=True, exist_ok=True)
    workflow = Workflow(folder, smoke_config())
    workflow.run()
    return workflow


@pytest.fixture
def copied(smoke: Workflow) -> Iterator[Workflow]:
    """A copy of the finished smoke run with the dates of all files, beside it: paths of the code are relative."""
    folder = smoke.folder.with_name("copied")
    shutil.copytree(smoke.folder, folder, symlinks=True)
    yield Workflow(folder, smoke_config(), smoke.server)
    shutil.rmtree(folder)


@pytest.fixture
def finished(smoke: Workflow) -> Iterator[Workflow]:
    """The finished smoke run, whose configuration a test may change: it is put back afterwards."""
    yield smoke
    smoke.config = smoke_config()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium of the system, or else of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        places = [shutil.which(name) for name in BROWSERS] + [own if Path(own).exists() else None]
        executable = next(filter(None, places), None)
        assert executable, "Chromium is needed to look at pages; on Debian: apt-get install chromium"
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
