"""Commands in surroundings that are not as usual: terminals, environments, signals, two writers of one place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from builders import REPOSITORY
from builders_checkpoints import bert
from builders_tasks import file_job, function_job
from decaymerge import tasks

COMMAND = Path(sys.executable).with_name("decaymerge")
pytestmark = pytest.mark.inputs


def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_greek(encoding: str, tmp_path: Path) -> None:
    models = [bert(tmp_path / name, seed) for seed, name in enumerate("ab")]
    done = run("merge-checkpoints", *models, env=os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert b"F" in done.stdout and done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "surroundings",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "no_such_backend"},
        {"MPLBACKEND": "TkAgg", "DISPLAY": ":99"},
        {"MATPLOTLIBRC": "usetex"},
    ],
    ids=str,
)
def test_a_users_style_does_not_reach_the_pictures(surroundings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "usetex").write_text("text.usetex: True\nbackend: TkAgg\n")
    model = bert(tmp_path / "a", 0)
    plot = tmp_path / "x.pdf"
    done = run("scan", f"path:{model}", "--plot", plot, cwd=tmp_path, env=os.environ | surroundings)
    assert done.returncode == 0, done.stderr
    assert plot.stat().st_size > 5000 and plot.with_suffix(".png").stat().st_size > 5000


def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    model = bert(tmp_path / "a", 0)
    shell = f"'{COMMAND}' scan 'path:{model}' --output '{tmp_path}/x.nc'"
    done = subprocess.run(f"{shell} >&-", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert xr.open_dataset(tmp_path / "x.nc").sizes["layer"] == 2


def test_somebody_who_reads_one_line(tmp_path: Path) -> None:
    model = bert(tmp_path / "a", 0)
    script = f"set -o pipefail; '{COMMAND}' scan 'path:{model}' | head -n 0; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)  # 1 where it was still writing
    assert "Traceback" not in done.stderr and "error" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["check", "config/smoke.yaml"], ["--version"], ["--help"]], ids=str)
def test_an_output_on_a_full_disk(arguments: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env=environment,
        )
    assert done.returncode == 1 and done.stderr == "error: [Errno 28] No space left on device\n"


def test_an_error_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([COMMAND, "inspect", "nothing"], stdout=full, stderr=full, check=False)
    assert done.returncode == 1


def test_a_folder_of_control_characters(tmp_path: Path) -> None:
    model = bert(tmp_path / "a\x1b[2J", 0)
    done = run("scan", f"path:{model}")
    assert done.returncode == 0 and b"\x1b" not in done.stdout + done.stderr


def large(folder: Path, seed: int) -> Path:
    """A checkpoint without a class, of 400 MB, whose merge takes a moment."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layer.{i}.weight": torch.randn(2048, 2048, generator=generator) for i in range(25)}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    models = [large(tmp_path / name, seed) for seed, name in enumerate("ab")]
    command = [
        "merge-checkpoints",
        *models,
        "--output",
        tmp_path / "out",
        "--no-predict",
        "--max-shard-size",
        "20MB",
    ]
    process = subprocess.Popen(
        [COMMAND, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # below nohup, or behind &, it is ignored
    )
    while process.poll() is None and not list(tmp_path.glob(".out.*.tmp/*.safetensors")):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_second_of_two_writers_is_told(tmp_path: Path) -> None:
    models = [large(tmp_path / name, seed) for seed, name in enumerate("ab")]
    command = [COMMAND, "merge-checkpoints", *models, "--output", tmp_path / "out", "--no-predict"]
    both = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], errors
    loser = errors[codes.index(1)]
    assert "another command has written it meanwhile" in loser or "exists and is not empty" in loser
    assert "make room" not in loser and "Traceback" not in loser
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "out"]


def test_a_function_that_works_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "mine.py"
    code.write_text(
        "import os\nimport numpy as np\nos.chdir('elsewhere')\n"
        "def make(rng, samples):\n    os.chdir('/')\n    return np.ones((samples, 2)), np.arange(samples) % 2\n"
    )
    tasks.make(function_job("make"), [code])
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("dims", [("sample", "feature"), ("feature", "sample")])
def test_dimensions_go_by_their_names(dims: tuple[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((50, 2)), rng.integers(0, 2, 50)
    arrays = {"inputs": (("sample", "feature"), inputs), "labels": ("sample", labels)}
    xr.Dataset(arrays).transpose(*dims).to_netcdf(tmp_path / "data.nc")
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels)
    found, expected = (tasks.make(file_job(), [tmp_path / name]) for name in ("data.nc", "data.npz"))
    xr.testing.assert_identical(found, expected)


def test_data_whose_name_begins_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("-x.npz", inputs=np.random.default_rng(0).random((50, 2)), labels=np.arange(50) % 2)
    job = file_job().model_dump_json()
    done = run("tasks", "--settings", job, "--", "out.nc", "-x.npz")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_users_umask(mask: int, tmp_path: Path) -> None:
    models = [bert(tmp_path / name, seed) for seed, name in enumerate("ab")]
    shell = f"umask {mask:o}; '{COMMAND}' merge-checkpoints {' '.join(models)} --output '{tmp_path}/out'"
    assert subprocess.run(shell, shell=True, capture_output=True, check=False).returncode == 0
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


EVIL = "\x1b[2J\x9b2J\rerror: x\nerror: y\u202e"
"""Clears the screen, twice, and fakes two lines."""


def test_names_of_tensors_do_not_reach_the_terminal_as_they_are(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        tensors = {f"{EVIL}.{i}.weight": torch.randn(8, 8, generator=generator) for i in range(3)}
        tensors |= {f"{EVIL}.bias": torch.ones(8)}
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    commands = [("scan", f"path:{tmp_path}/a"), ("merge-checkpoints", tmp_path / "a", tmp_path / "b")]
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode() + done.stderr.decode().replace("\r", "\n")
        assert all(letter.isprintable() or letter == "\n" for letter in said), said
        assert not [line for line in said.split("\n") if line.strip().startswith("error:")]
        assert r"\x1b[2J" in said


def test_a_result_with_control_characters_is_inspected(tmp_path: Path) -> None:
    attributes = {"settings": "{}", "code_revision": EVIL}
    xr.Dataset({"x": ("a", [1.0], {"long_name": EVIL})}, attrs=attributes).to_netcdf(tmp_path / "x.nc")
    done = run("inspect", tmp_path / "x.nc")
    assert done.returncode == 0 and b"\x1b" not in done.stdout and b"\r" not in done.stdout


def test_many_layers_are_printed_in_part(tmp_path: Path) -> None:
    save_file({f"{i}.weight": torch.eye(2) for i in range(1500)}, tmp_path / "model.safetensors")
    done = run("scan", f"path:{tmp_path}", "--output", tmp_path / "x.nc")
    assert done.returncode == 0 and b"and 500 more layers, which --output writes" in done.stdout
    assert xr.open_dataset(tmp_path / "x.nc").sizes["layer"] == 1500


@pytest.mark.parametrize(("place", "expected"), [("file", "is a file; give a folder"), ("~/x", "")])
def test_the_cache_is_a_folder(place: str, expected: str, tmp_path: Path) -> None:
    model = bert(tmp_path / "a", 0)
    (tmp_path / "file").write_text("x")
    done = run(
        "scan",
        f"path:{model}",
        env=os.environ | {"DECAYMERGE_CACHE": place, "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == (1 if expected else 0) and expected in done.stderr.decode()
    assert not (tmp_path / "~").exists()
