"""The built packages: what their pages show, and commands in an environment that has the wheel alone."""

import email
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from conftest import REPOSITORY

pytestmark = pytest.mark.xdist_group("wheel")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without this environment's packages on its paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def succeeds(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a command that must succeed."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, and the wheel that is made from it."""
    folder = tmp_path_factory.mktemp("dist")
    succeeds(sys.executable, "-m", "build", "--outdir", folder, REPOSITORY)
    return {"wheel": next(folder.glob("*.whl")), "source": next(folder.glob("*.tar.gz"))}


@pytest.fixture(scope="module")
def environment(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a new environment with the wheel, and the same PyTorch as here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    version = torch.__version__.split("+")[0]
    succeeds(folder / "bin/pip", "install", "-q", packages["wheel"], f"torch=={version}")
    return folder / "bin"


def tiny_model(folder: Path) -> Path:
    """A folder with a tiny model."""
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, n_positions=8)).save_pretrained(
        folder
    )
    return folder


@pytest.mark.slow
def test_packages_pass_the_index_s_checks(packages: dict[str, Path]) -> None:
    succeeds(sys.executable, "-m", "twine", "check", "--strict", *packages.values())


@pytest.mark.slow
def test_page_of_the_package_has_no_link_into_the_repository(packages: dict[str, Path]) -> None:
    with zipfile.ZipFile(packages["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        page = email.message_from_bytes(wheel.read(name)).get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "Figure 3" not in page  # neither the picture nor its caption


@pytest.mark.slow
def test_source_distribution_has_every_file_of_the_repository(packages: dict[str, Path]) -> None:
    with tarfile.open(packages["source"]) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    tracked = set(succeeds("git", "ls-files", cwd=REPOSITORY).split("\n")) - {"", ".gitignore"}
    assert tracked - names == set()


@pytest.mark.slow
def test_tests_run_in_the_source_distribution(packages: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(packages["source"]) as opened:
        opened.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    tests = [
        "tests/test_layout.py",
        "tests/test_parts.py",
        "tests/test_module.py::test_module_by_other_paths",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    where = [sys.executable, "-c", "import decaymerge; print(decaymerge.__file__)"]
    imported = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert imported.stdout.startswith(str(folder))


@pytest.mark.slow
def test_wheel_alone_scans_and_merges(environment: Path, tmp_path: Path) -> None:
    installed = succeeds(environment / "pip", "list")
    assert not re.search(r"snakemake|seaborn|matplotlib", installed)
    model, other = (tiny_model(tmp_path / name) for name in ("a", "b"))
    scanned = succeeds(
        environment / "decaymerge", "scan", f"path:{model}", "--output", "scan.nc", cwd=tmp_path
    )
    assert "stable rank" in scanned
    succeeds(
        environment / "decaymerge", "merge-checkpoints", model, other, "--output", "merged", cwd=tmp_path
    )
    GPT2LMHeadModel.from_pretrained(tmp_path / "merged")


@pytest.mark.slow
def test_missing_extra_is_said_before_the_work(environment: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "a")
    outputs = ["--plot", "scan.pdf", "--output", "scan.nc"]
    done = run(environment / "decaymerge", "scan", f"path:{model}", *outputs, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: \w+ is not installed; say: pip install 'decaymerge\[figures\]'\n", done.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.slow
def test_new_workflow_runs_from_the_wheel(
    environment: Path, packages: dict[str, Path], tmp_path: Path
) -> None:
    succeeds(environment / "pip", "install", "-q", f"{packages['wheel']}[workflow]")
    succeeds(environment / "decaymerge", "new", "study", cwd=tmp_path)
    config = tmp_path / "study/config.yaml"
    config.write_text(config.read_text().replace("steps: 2000", "steps: 20"))
    output = succeeds(environment / "snakemake", cwd=tmp_path / "study")
    assert "look at results/figures/mine.png" in output
    assert (tmp_path / "study/results/figures/mine.pdf").stat().st_size > 1000
    again = run(environment / "decaymerge", "new", "study", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr.startswith("error: study/Snakefile, study/config.yaml, study/profiles: there already")
