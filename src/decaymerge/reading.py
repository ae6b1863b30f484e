"""Reading files of others: their sizes are looked at before they are believed, and a pipe is not waited for."""

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from safetensors import SafetensorError

from decaymerge.errors import UserError

if TYPE_CHECKING:
    import numpy as np

LARGEST_GROWTH = 100
"""Times that a file may grow when it is read, if it grows to more than ``SMALL_BYTES``."""
SMALL_BYTES = 500_000_000
MOST_TEXT_BYTES = 100_000_000
"""Of a text: more than any config, and than an index of a million tensors."""
DAMAGED: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, RuntimeError, TypeError, KeyError)
DAMAGED += (zipfile.BadZipFile, zlib.error, SafetensorError)
"""What NumPy, zip, NetCDF and safetensors raise for files that they cannot read."""


def text_of(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: it cannot be read, is a pipe or a folder, or is too large.
        UnicodeDecodeError: it is no text.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    if (size := path.stat().st_size) > most_bytes:
        raise OSError(f"it has {size / 1e6:.0f} MB, and {most_bytes / 1e6:.0f} MB are read at most")
    return path.read_text("utf-8")


def arrays_of(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an ``.npz`` file.

    Raises:
        UserError: they would fill the memory, or the file grows as no data do.
        OSError, ValueError, …: those of ``DAMAGED``.
    """
    import numpy as np  # a tenth of a second, which commands without arrays need not wait for

    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    with zipfile.ZipFile(path) as archive:
        check_growth(str(path), path.stat().st_size, sum(part.file_size for part in archive.infolist()))
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def check_growth(name: str, stored: int, grown: int, free: int | None = None) -> None:
    """Refuse a file that would fill the memory, or grows as no data do.

    Args:
        name: The file.
        stored: Its bytes.
        grown: Bytes of its content.
        free: Bytes that the content may take; half of the free memory if left out.

    Raises:
        UserError: the content has more bytes, or more than 100 times those of the file.
    """
    room = psutil.virtual_memory().available // 2 if free is None else free
    sizes = f"{name} has {stored / 1e6:.0f} MB, which grow to {grown / 1e9:.1f} GB"
    if grown > room:
        raise UserError(
            f"{sizes}, and there is room for {room / 1e9:.1f} GB; give a smaller file, or make room"
        )
    if grown > max(SMALL_BYTES, LARGEST_GROWTH * stored):
        raise UserError(f"{sizes}, as no data do; if it is meant, write the file without compression")
