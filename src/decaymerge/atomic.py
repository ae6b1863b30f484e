"""Files and folders that appear complete or not at all, whatever happens to the process, the disk or the node."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decaymerge.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success and is removed on failure.

    Leftovers of killed writers are removed too.

    Raises:
        UserError: the file cannot be written, as on a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
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
                f"{path} is also being written by another process; give the same command again"
            ) from None
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
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
