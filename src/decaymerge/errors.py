"""The only exception that is written for users, and the words that its messages share."""

from collections.abc import Collection


class UserError(Exception):
    """A setting, a file or a source is not as it must be.

    The message is one line that names the setting or file, its value, what was expected and what to do. The command
    line prints the message without a traceback and exits with 1.
    """


def printable(text: object) -> str:
    """Text in which characters that move the cursor, or that no terminal has, are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def listed(names: Collection[str], most: int = 3) -> str:
    """The first names of many, and the number of the others."""
    ordered = [printable(name) for name in names]
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{', '.join(ordered[:most])}{more}"
