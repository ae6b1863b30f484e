"""Progress of long work: a moving bar on a terminal, a line every ten seconds in a log."""

import sys
from typing import Never

from tqdm import tqdm


def progress_bar(description: str, total: int, unit: str) -> "tqdm[Never]":
    """A bar on standard error; bytes (``unit`` ``B``) are scaled."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr if terminal else LogLines(),
        mininterval=0.2 if terminal else 10,
        dynamic_ncols=terminal,
    )


class LogLines:
    """A text stream for tqdm that ends its states with a new line instead of returning to the line's start."""

    def write(self, text: str) -> None:
        """Write one state of the bar, or nothing where tqdm only moves its cursor."""
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        """Hand on what was written."""
        sys.stderr.flush()
