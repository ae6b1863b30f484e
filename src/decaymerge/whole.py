"""Files and folders that are there whole or not at all, whatever happens to the process, the disk or the node."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decaymerge.errors import UserError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, to write to; it becomes ``path`` at the end, and goes away on an error.

    What a killed writer has left there goes as well.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise _refusal(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a node that goes down may leave an empty file of the final name
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # the netCDF library raises both
        if not temporary.exists():
            raise UserError(
                f"{path} is written by another process as well; give the same command again"
            ) from None
        raise _refusal(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; it becomes ``path``, empty or not there until then, at the end.

    It goes away on an error, and so does what a killed writer has left there.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        yield temporary
        for written in temporary.iterdir():
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.chmod(0o644)
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refusal(path: Path, error: Exception) -> UserError:
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    return UserError(
        f"{path} cannot be written: {error}; {folder} has {free / 1e6:.1f} MB free: make room if it is full,"
        " then give the same command again"
    )
