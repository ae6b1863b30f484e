"""State of an unfinished run, kept next to its output: a run that was killed continues from it."""

import sys
import time
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from decaymerge.atomic import atomic_file
from decaymerge.errors import UserError

SHARE = 20
"""Writing the state takes at most about one part in this many of the time: large states are written less often."""


class RestartFile:
    """Arrays of a run, written atomically, and resumed only by a run with the same settings, data, code and
    libraries.

    Args:
        output: File that the run will write; the state lies hidden beside it.
        identity: Digest of everything that determines the result, but the libraries (``store.identity_of``).
        every: Seconds between two writes.
    """

    def __init__(self, output: Path, identity: str, every: float) -> None:
        self.path = output.with_name(f".{output.name}.restart")
        self.identity = " ".join([identity, *(version(name) for name in ("torch", "scipy"))])
        self.every = every
        self.next = time.monotonic() + every
        self.state = self._read()
        """Arrays of a killed run with the same identity, or none."""

    def _read(self) -> dict[str, np.ndarray] | None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                if str(file["identity"]) == self.identity:
                    return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # torn by a full disk or a node that went down: the run starts from the beginning
        return None

    def due(self) -> bool:
        """Whether it is time to write the state again."""
        return time.monotonic() >= self.next

    def write(self, arrays: Mapping[str, Any]) -> None:
        """Replace the file; if the disk is full, warn and go on without it."""
        began = time.monotonic()
        try:
            with atomic_file(self.path, ours=True) as temporary, temporary.open("wb") as file:
                np.savez(file, identity=np.array(self.identity), **arrays)
        except UserError as error:
            print(f"warning: the state of this run is not kept: {error}", file=sys.stderr)
        ended = time.monotonic()
        self.next = ended + max(self.every, SHARE * (ended - began))

    def remove(self) -> None:
        """Remove the file, as the result is written."""
        self.path.unlink(missing_ok=True)
