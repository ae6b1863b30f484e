"""Sizes that are looked at before they are believed: those of files that grow when they are read."""

import psutil

from decaymerge.errors import UserError

LARGEST_GROWTH = 100
"""Times that a file may grow when it is read, if it grows to more than ``SMALL_BYTES``."""
SMALL_BYTES = 500_000_000


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
