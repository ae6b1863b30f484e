"""Commands: errors of one line, and code inputs that name all that a stage's command uses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

STAGES = {
    "tasks.smk": "decaymerge.tasks",
    "train.smk": "decaymerge.train",
    "merge.smk": "decaymerge.merge",
    "evaluate.smk": "decaymerge.evaluate",
    "figures.smk": "decaymerge.figures",
    "scan.smk": "decaymerge.scan, decaymerge.scan.plan",
    "claims.smk": "decaymerge.claims",
}
DETERMINE_NOTHING = {
    "experiments",
    "config",
    "datasets",
    "settings",
    "jobs",
    "errors",
    "progress",
    "provenance",
    "whole",
}
"""Modules that decide no result: all settings reach a job through its params, defaults included."""


def decaymerge(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "decaymerge"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["merge", "out.nc", "missing.nc", "--settings", '{"methods": ["sum"], "trained": 3}'],
            "missing.nc is missing",
        ),
        (["merge", "out.nc", "x.nc", "--settings", "{"], "--settings: Invalid JSON"),
        (
            ["figures", "figure9", "x.pdf", "x.nc", "--settings", "{}"],
            "figure 'figure9' is not known; known: figure1",
        ),
        (["fetch", "cifar", "folder"], "dataset 'cifar' is not to be fetched; known: fashion_mnist"),
        (["check", "missing.yaml"], "missing.yaml cannot be read"),
    ],
)
def test_errors_are_one_line(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = decaymerge(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_cuda_without_a_gpu_is_a_clear_error(tmp_path: Path) -> None:
    import torch

    from decaymerge import store, tasks
    from test_tasks import gaussian_job
    from test_train import train_job

    store.write(tasks.make(gaussian_job(), []), tmp_path / "tasks.nc", gaussian_job())
    arguments = [
        "train",
        tmp_path / "tasks.nc",
        tmp_path / "out.nc",
        "--settings",
        train_job().model_dump_json(),
    ]
    done = decaymerge(*arguments, "--device", "cuda")
    if torch.cuda.is_available():
        assert done.returncode == 0
    else:
        assert done.returncode == 1 and "PyTorch sees no GPU" in done.stderr
    assert "device: tpu is not one of" in decaymerge(*arguments, "--device", "tpu").stderr


def test_check_of_a_good_and_a_bad_file(tmp_path: Path) -> None:
    assert decaymerge("check", REPOSITORY / "config/config.yaml").returncode == 0
    (tmp_path / "bad.yaml").write_text("experiments: [")
    assert "cannot be read" in decaymerge("check", tmp_path / "bad.yaml").stderr
    (tmp_path / "empty.yaml").write_text("")
    assert decaymerge("check", tmp_path / "empty.yaml").stderr.startswith("error: ")


@pytest.mark.parametrize("rule_file", STAGES)
def test_code_inputs_name_every_module_that_is_imported(rule_file: str) -> None:
    listed = re.findall(r"modules\(([^)]*)\)", (REPOSITORY / "rules" / rule_file).read_text())
    listing = f"import sys, {STAGES[rule_file]}, decaymerge.store; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout
    used = {
        name.split(".")[1] for name in loaded.split() if name.startswith("decaymerge.")
    } - DETERMINE_NOTHING
    for names in listed:
        named = set(re.findall(r'"(\w+)"', names))
        assert used <= named or rule_file in ("evaluate.smk", "claims.smk"), (
            f"{rule_file} lacks {used - named}"
        )
    assert any(used <= set(re.findall(r'"(\w+)"', names)) for names in listed)
    for names in listed:
        for name in re.findall(r'"(\w+)"', names):
            package = REPOSITORY / "src/decaymerge" / name
            assert package.is_dir() or package.with_suffix(".py").is_file()
