"""Paths in a configuration start from the file that names them."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Workflow
from decaymerge.config.paths import resolved

RAW: dict[str, Any] = {
    "experiments": {
        "x": {"tasks": {"dataset": "file", "path": "data/a.npz"}},
        "y": {
            "tasks": {"a": {"dataset": "function", "function": "../f.py:make"}, "b": {"dataset": "gaussian"}}
        },
    },
    "scan": {
        "models": {"m": {"source": "path:m", "path": "inside"}, "n": {"source": ["pypi:a==1"], "path": "p"}}
    },
    "fetch": {"fashion_mnist": "~/images"},
}


def test_each_kind_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    file = tmp_path / "configs/x.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(RAW))
    found = resolved(RAW, [file])
    assert found["experiments"]["x"]["tasks"]["path"] == "../configs/data/a.npz"
    assert found["experiments"]["y"]["tasks"]["a"]["function"] == "../f.py:make"
    assert found["scan"]["models"]["m"] == {"source": "path:../configs/m", "path": "inside"}
    assert found["scan"]["models"]["n"] == RAW["scan"]["models"]["n"]
    assert found["fetch"]["fashion_mnist"] == os.path.expanduser("~/images")  # noqa: PTH111
    assert resolved(RAW, [])["scan"]["models"]["m"]["source"] == "path:m"  # given with --config


def test_of_two_files_each_path_starts_from_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = {"one": {"source": "path:m"}, "two": {"source": "path:n"}}
    files = [tmp_path / name / "x.yaml" for name in models]
    for file, (name, model) in zip(files, models.items(), strict=True):
        file.parent.mkdir()
        file.write_text(yaml.safe_dump({"scan": {"models": {name: model}}}))
    found = resolved({"scan": {"models": models}}, files)
    assert [model["source"] for model in found["scan"]["models"].values()] == ["path:one/m", "path:two/n"]


@pytest.mark.parametrize(
    "raw", [None, [], "x", {"tasks": {"dataset": "file", "path": 3}}, {"source": "path:"}, {"fetch": []}]
)
def test_anything_else_is_left_to_the_checks(raw: Any) -> None:
    assert resolved(raw, []) == raw


def test_the_smoke_configuration_runs_in_any_folder(smoke: Workflow, tmp_path: Path) -> None:
    """As it stands in the checkout, from another working folder."""
    arguments = [
        "--configfile",
        str(smoke.server.checkout / "config/smoke.yaml"),
        "--directory",
        str(tmp_path),
    ]
    snakefile = ["--snakefile", str(smoke.server.checkout / "Snakefile")]
    done = smoke.server(
        [*snakefile, *arguments, "--dry-run", "-p", "--", "results/scan/tiny_bert.nc"], tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place = os.path.relpath(smoke.server.checkout / "tests/data/tiny_bert", tmp_path)
    assert f"path:{place}" in done.stdout + done.stderr
