"""The only exception that is written for users, and the words that its messages share."""

from collections.abc import Collection

MOST_LINES = 20
LONGEST_LINE = 1500


class UserError(Exception):
    """A setting, a file or a source is not as it must be.

    Each line names a setting or file, its value, what was expected and what to do. The command line prints them all
    without a traceback and exits with 1. Characters that move a terminal's cursor are escaped: names, and texts of
    other programs' errors, may have some.

    Args:
        lines: A line for each fault; mostly one.
    """

    def __init__(self, *lines: str) -> None:
        more = [f"… and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        self.lines = [_shortened(printable(line)) for line in lines[:MOST_LINES]] + more
        super().__init__("\n".join(self.lines))


def _shortened(line: str) -> str:
    """A line without its middle, if it is very long: its end says what to do."""
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def reason(error: BaseException) -> str:
    """The kind of an error, and its text on one line, if it has one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: object) -> str:
    """Text in which characters that move the cursor, or that no terminal has, are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def listed(names: Collection[str], most: int = 3) -> str:
    """The first names of many, and the number of the others."""
    ordered = [printable(name) for name in names]
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{', '.join(ordered[:most])}{more}"
