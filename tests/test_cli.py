"""Commands: errors of one line, and the entry point as a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders import gaussian_data, gaussian_job, train_job
from commands import command_names, decaymerge
from conftest import REPOSITORY
from decaymerge import store

MERGE = """{"methods": ["sum"], "network": {"hidden": [4, 4]}}"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["merge", "out.nc", "missing.nc", "--settings", MERGE], "missing.nc is missing"),
        (["merge", "out.nc", "x.nc", "--settings", "{"], "--settings: Invalid JSON"),
        (
            ["figures", "x.pdf", "x.nc", "--settings", '{"figure": "figure9", "names": ["x"]}'],
            "figure 'figure9' is not known; known: figure1",
        ),
        (
            ["figures", "x.pdf", "x.nc", "--settings", '{"figure": "figure1", "names": ["x", "y"]}'],
            "figure1 shows x, y, but 1 files were given",
        ),
        (["fetch", "cifar", "folder"], "dataset 'cifar' cannot be fetched; known: fashion_mnist"),
        (["check", "missing.yaml"], "missing.yaml cannot be read"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = decaymerge(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert expected in done.stderr


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The entry point that pip installs, as a process."""
    command = [str(Path(sys.executable).parent / "decaymerge"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["check", "missing.yaml"], ["--version"], ["check"]])
def test_a_process_says_and_returns_what_the_call_in_this_process_does(arguments: list[str]) -> None:
    started, called = process(*arguments), decaymerge(*arguments)
    assert started.returncode == called.returncode
    assert (started.stdout, started.stderr) == (called.stdout, called.stderr)


def test_help_lists_every_command() -> None:
    done = decaymerge("--help")
    assert done.returncode == 0 and all(f" {name} " in done.stdout for name in command_names())


def test_cuda_without_a_gpu_is_a_clear_error(tmp_path: Path) -> None:
    import torch

    store.write(gaussian_data(), tmp_path / "tasks.nc", gaussian_job())
    files = ["train", tmp_path / "tasks.nc", tmp_path / "out.nc"]
    arguments = [*files, "--settings", train_job().model_dump_json(), "--device"]
    done = decaymerge(*arguments, "cuda")
    if torch.cuda.is_available():
        assert done.returncode == 0
    else:
        assert done.returncode == 1 and "PyTorch sees no GPU" in done.stderr
    assert "device: tpu is not one of" in decaymerge(*arguments, "tpu").stderr


def test_check_of_a_good_and_a_bad_file(tmp_path: Path) -> None:
    assert decaymerge("check", REPOSITORY / "config/config.yaml").returncode == 0
    (tmp_path / "bad.yaml").write_text("experiments: [")
    assert "cannot be read" in decaymerge("check", tmp_path / "bad.yaml").stderr
    (tmp_path / "empty.yaml").write_text("")
    assert decaymerge("check", tmp_path / "empty.yaml").stderr.startswith("error: ")
