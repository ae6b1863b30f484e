"""Progress of long work: a moving bar on a terminal, a line every ten seconds in a log."""

import sys
from typing import Never

from tqdm import tqdm

from decaymerge.errors import printable


def progress_bar(description: str, total: int, unit: str) -> "tqdm[Never]":
    """A bar on standard error for ``total`` units; the unit ``B``, bytes, is scaled to kB, MB, …"""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=printable(description),
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr if terminal else LogLines(),
        mininterval=0.2 if terminal else 10,
        dynamic_ncols=terminal,
    )


class LogLines:
    """A text stream for tqdm that writes each state of the bar on a line of its own."""

    def write(self, text: str) -> None:
        """Write one state of the bar as a line; skip the characters by which tqdm moves the cursor."""
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()
