"""Sizes that are looked at before they are believed: of files that grow when they are read, and of this machine."""

import psutil

from decaymerge.errors import UserError

LARGEST_GROWTH = 100
"""Times that a file may grow when it is read, if it grows to more than ``SMALL_BYTES``."""
SMALL_BYTES = 500_000_000


def check_size(name: str, stored: int, grown: int) -> None:
    """Refuse a file that would fill the memory, or grows as no data do.

    Args:
        name: The file.
        stored: Its bytes.
        grown: Bytes of its content.

    Raises:
        UserError: the content has more than half of the bytes of the free memory, or 100 times those of the file.
    """
    free = psutil.virtual_memory().available
    sizes = f"{name} has {stored / 1e6:.0f} MB, which grow to {grown / 1e9:.1f} GB"
    if grown > free / 2:
        raise UserError(
            f"{sizes}, and {free / 1e9:.1f} GB of memory are free; give a smaller file, or more memory"
        )
    if grown > max(SMALL_BYTES, LARGEST_GROWTH * stored):
        raise UserError(f"{sizes}, as no data do; if it is meant, write the file without compression")
