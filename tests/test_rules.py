"""What the rules say of the code: each names every module that its command uses, and every figure can be drawn."""

import ast
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

from commands import command_names, decaymerge
from conftest import REPOSITORY, Workflow
from decaymerge import claims, store
from decaymerge.config import parse
from decaymerge.config.figures import COMPARISONS, FIGURES, Picture
from decaymerge.workflow.code import MODULES as MODULES_OF
from decaymerge.workflow.labels import figure_labels

PACKAGE = REPOSITORY / "src/decaymerge"
RULES = "\n".join(path.read_text() for path in sorted(REPOSITORY.glob("rules/*.smk")))
FETCHES = {"fetch", "fetch-model"}
"""Commands whose result is verified by its content."""
PASS_SETTINGS_ON = {"config", "workflow", "errors", "progress", "provenance", "atomic"}
"""Modules that decide no result: all settings reach a job through its params, defaults included."""

IMPORTED_ONLY = {
    "scan": {"figures", "capacity", "hypotheses", "collapse", "statistics"},
    "gather": {"measure", "network"},
    "check-scan": {"gradient", "low_rank", "measure", "merge", "merge_methods", "network"},
    "gather-claims": {"gradient", "low_rank", "measure", "merge", "merge_methods", "network"},
    "claims-page": {"gradient", "low_rank", "measure", "merge", "merge_methods", "network"},
}
"""Modules that a command imports, and of which it calls no function."""

CHECKS = {"digests", "reading"}
"""Modules that refuse, and change no result."""
LOCATE_INPUTS = {"scan": {"fetch"}}
"""Modules that find a command's files, which are inputs of its rule themselves."""


def module_files() -> dict[str, Path]:
    """Every module of the package by its dotted name below the package."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files()


@cache
def imported_by(module: str) -> frozenset[str]:
    """Modules of the package that a module imports anywhere in it, also inside of functions."""
    return frozenset(imports_of(ast.parse(MODULES[module].read_text()), module))


def imports_of(node: ast.AST, module: str) -> Iterator[str]:
    """Modules that a part of a module imports; for ``TYPE_CHECKING`` alone does not count.

    A module that is imported by a name in a variable is any of its package that has a function ``draw``.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield from known(f"{node.module}.{alias.name}", node.module)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield from known(alias.name)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
        for name, path in MODULES.items():
            if name.rpartition(".")[0] == module and "\ndef draw(" in path.read_text():
                yield name
    for child in ast.iter_child_nodes(node):
        yield from imports_of(child, module)


def known(*names: str) -> Iterator[str]:
    """The first of these dotted names that is a module of the package, and the packages that it is in."""
    for name in names:
        package, _, module = name.partition(".")
        if package == "decaymerge" and module in MODULES and module:
            parts = module.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
            return


def modules_of_command(command: str) -> set[str]:
    """First names of the modules that a command imports, but not through those that pass settings on."""
    (function,) = (
        node
        for path in PACKAGE.glob("cli/*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == command.replace("-", "_")
    )
    queue, names = list(imports_of(function, "cli")), set()
    while queue:
        name = queue.pop()
        if name not in names and name.split(".")[0] not in PASS_SETTINGS_ON:
            names.add(name)
            queue += imported_by(name)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("command", MODULES_OF)
def test_code_of_a_command_is_every_module_that_it_uses(command: str) -> None:
    exempt = IMPORTED_ONLY.get(command, set()) | LOCATE_INPUTS.get(command, set()) | CHECKS
    assert set(MODULES_OF[command]) == modules_of_command(command) - exempt


def test_every_rule_that_computes_has_the_code_of_its_command() -> None:
    assert MODULES_OF.keys() <= set(command_names())
    commands = set()
    for rule in re.findall(r"^ *rule(?: \w+)?:\n(.*?)(?=^\S|\Z)", RULES, re.MULTILINE | re.DOTALL):
        called = re.findall(r'decaymerge ([\w-]+)|command=command\("(\w+)"', rule)
        commands |= (names := {name for pair in called for name in pair if name} - FETCHES)
        assert set(re.findall(r'code=code\("([\w-]+)"\)', rule)) == names
    assert commands == MODULES_OF.keys()


def functions_of(names: set[str]) -> Iterator[FunctionType]:
    """Functions and methods of these modules, and of all modules in them where they are packages."""
    for name in MODULES:
        if name.split(".")[0] in names:
            module = import_module(f"decaymerge.{name}")
            members = [vars(module), *(vars(one) for one in vars(module).values() if inspect.isclass(one))]
            for function in (value for part in members for value in part.values()):
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    yield function


@contextmanager
def forbidden(names: set[str]) -> Iterator[None]:
    """Each function of these modules fails, whoever has imported it; those with a closure excepted."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a function is called of a module that the rule does not list")

    functions = [function for function in functions_of(names) if function.__closure__ is None]
    assert functions
    codes = [function.__code__ for function in functions]
    try:
        for function in functions:
            function.__code__ = fail.__code__
        yield
    finally:
        for function, code in zip(functions, codes, strict=True):
            function.__code__ = code


@pytest.mark.parametrize("command", IMPORTED_ONLY)
def test_modules_that_are_imported_only_are_not_called(
    finished: Workflow, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a copy of the smoke run's results, with few of its claims."""
    output = finished.dry_run("--forceall")
    lines = re.findall(rf"^Shell command: (decaymerge {command} .*)$", output, re.MULTILINE)
    arguments = shlex.split(re.sub(r"(> \S+ )?2>&1.*$", "", lines[0]))[1:]
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    page_of = tmp_path / "results/claims.json"
    verdicts = claims.read(page_of)
    claims.write([one for one in verdicts if one.claim in ("identity", "scan_same_order")], page_of)
    monkeypatch.chdir(tmp_path)
    with forbidden(IMPORTED_ONLY[command]):
        done = decaymerge(*arguments)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_called_is_noticed(
    smoke: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = smoke.folder / "results/independent"
    job = store.read(results / "summary.nc").attrs["settings"]
    shutil.copytree(results, tmp_path / "independent")
    with forbidden({"evaluate"}), pytest.raises(AssertionError, match="does not list"):
        decaymerge("gather", tmp_path, tmp_path / "summary.nc", "--settings", job)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_a_module_that_draws_it_and_words_for_the_report(figure: str) -> None:
    draw = import_module(f"decaymerge.figures.{figure}").draw
    first, files = inspect.signature(draw).parameters
    assert first == "job" and files
    picture = Picture(figure, ["first", "second"])
    labels = figure_labels(figure, picture)
    assert labels["figure"] and len(labels["shows"]) > 20 and len(picture.caption) > 50
    assert "{" not in picture.caption and not figure.startswith("claims")


def test_every_module_that_draws_a_figure_has_a_row() -> None:
    modules = {path.stem for path in PACKAGE.glob("figures/[!_]*.py") if "\ndef draw(" in path.read_text()}
    assert modules == FIGURES.keys() | {"predicted_interference"}  # which merge-checkpoints draws


def test_every_picture_of_a_run_is_a_figure_of_the_table(smoke: Workflow) -> None:
    pictures = parse(smoke.config).pictures
    assert {picture.figure for picture in pictures.values()} <= FIGURES.keys()
    files = {path.name for path in (smoke.folder / "results/figures").iterdir() if path.is_file()}
    drawn = {f"{name}{ending}" for name in pictures for ending in (".pdf", ".png")}
    assert files == drawn | {"table1.md"}
    targets = {name for name in pictures if name in COMPARISONS}
    assert targets == {"figure2", "figure3", "overlap"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "has_timers"), [([], False), (["--max-jobs-per-timespan", "50/5s"], True)]
)
def test_scheduler_starts_no_timers(options: list[str], has_timers: bool, tmp_path: Path) -> None:
    """A timer for each job that has ended would take a core in a large sweep; who sets a rate gets them."""
    script, measured = REPOSITORY / "benchmarks/sweep.py", tmp_path / "measured.json"
    done = subprocess.run(
        [sys.executable, script, measured, "0", "1", *options], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    (row,) = json.loads(measured.read_text())
    assert row["jobs"] == 11
    assert ("Timer Thread" in row["kinds"]) == has_timers, row
