"""What every refusal of a command has in common."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from builders_checkpoints import digests


def assert_refused(
    command: Callable[[], "subprocess.CompletedProcess[str]"],
    folder: Path,
    *expected: str,
    several: bool = False,
) -> None:
    """A command ends with 1 and one line that says why, and leaves the folder byte by byte as it was.

    Args:
        command: Runs it.
        folder: Holds all that it reads, and the places where it would write.
        expected: Parts of the line.
        several: Whether there may be a line for each of several faults.
    """
    before = digests(folder)
    answer = command()
    said = answer.stdout + answer.stderr
    assert answer.returncode == 1, said
    assert "Traceback" not in said, said
    lines = answer.stderr.rstrip("\n").split("\n")
    first = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert len(first) == 1, said
    errors = lines[first[0] :]
    assert len(errors) == 1 or several, said
    assert all(letter.isprintable() or letter == "\n" for letter in answer.stderr.replace("\r", "\n")), repr(
        said
    )
    assert all(len(line) < 2000 for line in errors) and len(errors) <= 21, said
    for part in expected:
        assert any(part in line for line in errors), said
    assert digests(folder) == before
