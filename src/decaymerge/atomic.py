"""Files and folders that appear complete or not at all, and that replace nothing but earlier results."""

import errno
import hashlib
import mmap
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from decaymerge.errors import UserError, printable

REPLACE_ANYTHING = ContextVar("REPLACE_ANYTHING", default=False)
"""Whether a file that is no result of this project may be replaced: the user has said so."""
LONGEST_NAME = 80
"""Bytes of the parts of a temporary's name."""
ELSEWHERE = "give another place"
REMEDIES = {
    errno.EACCES: f"{ELSEWHERE}, or the right to write there",
    errno.EPERM: f"{ELSEWHERE}, or the right to write there",
    errno.EROFS: ELSEWHERE,
    errno.ENOTDIR: f"a file stands where a folder must be: {ELSEWHERE}",
    errno.EISDIR: "it is a folder: give the name of a file",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EEXIST: f"another command has written it meanwhile: {ELSEWHERE}",
    errno.ENOTEMPTY: f"another command has written it meanwhile: {ELSEWHERE}",
}
"""What to do about errors of the system, other than a disk without room."""
UMASK = os.umask(0o077)
os.umask(UMASK)  # the only way to read it


@contextmanager
def atomic_file(path: Path, *, ours: bool = False) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success and is removed on failure.

    Leftovers of killed writers are removed too.

    Args:
        path: The file. If it exists, it must be an earlier result.
        ours: Whether the name alone says that the file is of this project, as that of a hidden file does.

    Raises:
        UserError: ``path`` is a file of somebody else, or cannot be written, as on a full disk.
    """
    if not ours:
        refuse_foreign(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
    except OSError as error:
        raise _refusal(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a node that goes down may leave an empty file of the final name
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # the netCDF library raises both
        raise _refusal(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` on success and is removed on failure.

    ``path`` must be empty or not exist. Leftovers of killed writers are removed too.

    Raises:
        UserError: the folder cannot be written, as on a full disk.
    """
    path = path.absolute()
    with scratch_folder(path) as temporary:
        try:
            yield temporary
            for folder, _, names in os.walk(temporary):
                for written in (Path(folder) / name for name in names):
                    with written.open("rb") as file:
                        os.fsync(file.fileno())
                    written.chmod(0o666 & ~UMASK)
                Path(folder).chmod(0o777 & ~UMASK)
            temporary.replace(path)
        except OSError as error:
            raise _refusal(path, error) from None


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` for intermediate files; leftovers of killed processes are removed.

    Raises:
        UserError: the folder cannot be made.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Beginning of the name of a temporary, which says who writes it: ``.NAME.HOST-PROCESS.``."""
    return f".{_short(path.name)}.{_short(socket.gethostname())}-{os.getpid()}."


def _short(name: str) -> str:
    """A name that leaves room for others beside it: long ones end with their digest."""
    encoded = name.encode(errors="surrogateescape")
    return name if len(encoded) <= LONGEST_NAME else f"{name[:20]}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def _remove_leftovers(path: Path) -> None:
    """Remove the temporaries of ``path`` whose writer was a process of this host that is dead."""
    owned = re.compile(
        rf"\.{re.escape(_short(path.name))}\.{re.escape(_short(socket.gethostname()))}-(\d+)\.[a-z0-9_]{{8}}\.tmp"
    )
    for entry in os.scandir(path.parent):
        match = owned.fullmatch(entry.name)
        if match is None or _is_alive(int(match[1])):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # a process of another user
    return True


def _refusal(path: Path, error: Exception) -> UserError:
    folder = existing_parent(path)
    number = getattr(error, "errno", None)
    free = shutil.disk_usage(folder).free
    remedy = REMEDIES.get(number or 0) or (
        f"{folder} has {free / 1e6:.1f} MB free: make room there, then give the same command again"
    )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return UserError(f"{path} cannot be written: {printable(reason)}; {remedy}")


def existing_parent(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def refuse_unwritable(path: Path) -> None:
    """Try, before the work, whether a file or folder can be written there.

    Raises:
        UserError: it cannot, as its folder is read-only or its name is too long.
    """
    folder = existing_parent(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # a file stands where a folder must be, or a name is too long
        raise _refusal(path, error) from None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_prefix(path), suffix=".tmp"):
            pass
    except OSError as error:
        raise _refusal(path, error) from None


def refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that is no result of this project, unless the user has said so.

    Raises:
        UserError: ``path`` is such a file.
    """
    if os.path.lexists(path) and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is a device, a pipe or a link to nothing; give the name of a file")
    if path.is_file() and not REPLACE_ANYTHING.get() and not is_result(path):
        raise UserError(f"{path} exists and was not made by decaymerge; give another name, or move it away")


def is_result(path: Path) -> bool:
    """Whether a file says by its content that this project has made it."""
    with path.open("rb") as file:
        if not file.read(1):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            head = content[:12]
            if head.startswith((b"\x89HDF", b"\x89PNG")):
                return content.find(b"code_revision") >= 0
            if head.startswith(b"%PDF"):
                return content.find(b"/Creator (decaymerge ") >= 0
            marks = (b'"made_by": "decaymerge ', b"Made by decaymerge ")
            return head == b"# decaymerge" or any(content.find(mark) >= 0 for mark in marks)


def check_outputs(outputs: Mapping[str, Path], inputs: Sequence[Path]) -> None:
    """Check before the work that outputs replace no input, no file of somebody else, and not each other.

    Args:
        outputs: Files and folders that will be written, by the name of their option.
        inputs: Paths that will be read, of which only existing files matter.

    Raises:
        UserError: an output is an input, by any name of it, or an existing file that is no result, or two outputs
            are in each other's way, or cannot be written.
    """
    written = dict(outputs)
    for option, path in outputs.items():
        if path.suffix == ".pdf":
            written[f"{option}, whose picture is also"] = path.with_suffix(".png")
    files = [path for path in inputs if path.is_file()]
    for option, path in written.items():
        refuse_unwritable(path)
        if path.is_file() and (read := next((file for file in files if file.samefile(path)), None)):
            raise UserError(f"{option} {path} is {read}, which this command reads; give another name")
        refuse_foreign(path)
    resolved = {option: path.resolve() for option, path in written.items()}
    for option, path in resolved.items():
        for other, place in resolved.items():
            if option != other and (path == place or place in path.parents):
                raise UserError(
                    f"{option} {outputs[option]} is in the way of {other} {place}; give another place"
                )
