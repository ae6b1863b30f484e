"""Nothing of the user is lost: what may be replaced, whose leftovers go, and what a command may write over."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from builders import gaussian_job
from builders_checkpoints import berts
from commands import decaymerge
from decaymerge import store, tasks
from decaymerge.atomic import UMASK, atomic_file, atomic_folder, check_outputs
from decaymerge.errors import UserError

HOST = socket.gethostname()
JOB = gaussian_job().model_dump_json()


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_leftovers_of_dead_writers_of_this_very_name_are_removed(tmp_path: Path) -> None:
    dead, alive = dead_process(), os.getppid()
    removed = [f".x.json.{HOST}-{dead}.abcdefgh.tmp"]
    kept = [
        f".x.json.{HOST}-{alive}.abcdefgh.tmp",
        f".x.json.other-{dead}.abcdefgh.tmp",
        f".x.json.v2.{HOST}-{dead}.abcdefgh.tmp",
        ".x.json.abc.tmp",
        ".mine.tmp",
    ]
    for name in [*removed, *kept]:
        (tmp_path / name).write_text("half")
    with atomic_file(tmp_path / "x.json") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "x.json"])


@pytest.mark.parametrize("name", ["*", "?", "[a-z]*", "a b", "ö", "x'y"])
def test_a_name_is_no_pattern(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / f".other.{HOST}-{dead_process()}.abcdefgh.tmp"
    foreign.mkdir()
    with atomic_folder(tmp_path / name) as folder:
        (folder / "part").mkdir()
        (folder / "part/file").write_text("x")
    with atomic_file(tmp_path / f"{name}.csv") as temporary:
        temporary.write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([foreign.name, name, f"{name}.csv"])


def test_two_writers_of_one_file_both_end(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write_text("# decaymerge first")
        second.write_text("# decaymerge second")
    assert path.read_text().startswith("# decaymerge") and list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_user(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    with atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("x")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("out", "out/file", "x")]
    assert modes == [0o777 & ~UMASK, 0o666 & ~UMASK, 0o666 & ~UMASK]


@pytest.mark.parametrize(
    "content", [b"", b"x", b"# my notes\n", b"\x89HDF", b'{"a": "decaymerge"}', b"%PDF-1.4"]
)
def test_files_of_others_are_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.csv exists and was not made by decaymerge"):
        store.write_table(pd.DataFrame({"a": [1]}), path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_own_results_are_replaced(tmp_path: Path) -> None:
    job = gaussian_job()
    for name in ("x.csv", "x.nc"):
        for _ in range(2):
            if name == "x.csv":
                store.write_table(pd.DataFrame({"a": [1]}), tmp_path / name)
            else:
                store.write(tasks.make(job, []), tmp_path / name, job)
    assert len(list(tmp_path.iterdir())) == 2


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, names of their files that are links, data of a task, and files of the user."""
    folder = tmp_path_factory.mktemp("place")
    berts(folder, "ab")
    (folder / "link").symlink_to(folder / "a")
    (folder / "hard.nc").hardlink_to(folder / "a/model.safetensors")
    (folder / "soft.nc").symlink_to(folder / "a/model.safetensors")
    (folder / "keep.png").write_bytes(b"my picture")
    (folder / "keep.nc").write_bytes(b"my data")
    decaymerge("tasks", folder / "tasks.nc", "--settings", JOB)
    (folder / "tasks-link.nc").symlink_to(folder / "tasks.nc")
    return folder


REFUSED = [
    ("scan path:a --output a/model.safetensors", "which this command reads"),
    ("scan path:a --output b/../a/model.safetensors", "which this command reads"),
    ("scan path:a --output link/model.safetensors", "which this command reads"),
    ("scan path:a --output hard.nc", "which this command reads"),
    ("scan path:a --output soft.nc", "which this command reads"),
    ("scan path:a --output a/config.json --overwrite", "which this command reads"),
    ("scan path:link --output a/model.safetensors", "which this command reads"),
    ("scan path:a/model.safetensors --output a/model.safetensors", "which this command reads"),
    ("scan path:a --output b/model.safetensors", "was not made by decaymerge"),
    ("scan path:a --output keep.nc", "was not made by decaymerge"),
    ("scan path:a --plot keep.pdf", "keep.png exists and was not made by decaymerge"),
    ("scan path:a --output x.png --plot x.pdf", "in the way of"),
    ("scan path:a --output x.pdf --plot x.pdf", "in the way of"),
    ("merge-checkpoints a b --report a/config.json", "which this command reads"),
    ("merge-checkpoints a b --output out --report out/report.nc", "in the way of"),
    ("merge-checkpoints a b --plot keep.pdf", "was not made by decaymerge"),
    ("merge-checkpoints a b --base a --report b/config.json", "which this command reads"),
    ("merge-checkpoints a b --output a", "exists and is not empty"),
    ("gather . keep.nc --settings {}", "was not made by decaymerge"),
    ("check-claims . x.json --settings {} --traces keep.nc", "was not made by decaymerge"),
    ("check-claims . tasks.nc --settings {} --traces tasks.nc", "in the way of"),
    ("claims-page tasks.nc tasks.nc --settings {}", "which this command reads"),
]


@pytest.mark.parametrize(("command", "expected"), REFUSED, ids=[command for command, _ in REFUSED])
def test_no_command_writes_over_what_it_reads_or_what_is_not_its_own(
    command: str, expected: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = digests(place)
    answer = decaymerge(*command.split())
    assert answer.returncode == 1 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert expected in answer.stderr and digests(place) == before


def test_data_of_a_task_are_not_replaced_by_networks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = digests(place)
    for output in ("tasks.nc", "tasks-link.nc"):
        answer = decaymerge("train", "tasks.nc", output, "--settings", "{}")
        assert answer.returncode == 1 and "which this command reads" in answer.stderr
    assert digests(place) == before


def test_the_user_can_say_so(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "keep.nc", tmp_path)
    assert (
        decaymerge("scan", f"path:{place}/a", "--output", tmp_path / "keep.nc", "--overwrite").returncode == 0
    )
    assert "seed" not in store.read(tmp_path / "keep.nc", "frobenius_norm").dims
    assert decaymerge("scan", f"path:{place}/a", "--output", tmp_path / "keep.nc").returncode == 0


def test_outputs_of_any_case_are_compared_by_file(place: Path) -> None:
    """Where a file system ignores case, both names are one file; here a hard link stands for the second name."""
    (place / "a/MODEL.safetensors").hardlink_to(place / "a/model.safetensors")
    with pytest.raises(UserError, match="which this command reads"):
        check_outputs({"--output": place / "a/MODEL.safetensors"}, [place / "a/model.safetensors"])
    (place / "a/MODEL.safetensors").unlink()
