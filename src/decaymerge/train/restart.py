"""State of an unfinished run, kept beside its output: a run that was killed goes on from there."""

import hashlib
import sys
import time
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from decaymerge.errors import UserError
from decaymerge.jobs import TrainJob
from decaymerge.whole import whole

SHARE = 20
"""Writing the state takes at most about one part in this many of the time: large states are kept less often."""


class RestartFile:
    """Arrays of a run, written whole or not at all, and taken up only by a run that is the same in all that
    determines its result.

    Args:
        output: File that the run will write; the state lies hidden beside it.
        identity: Digest of all that determines the result.
        every: Seconds between two writes.
    """

    def __init__(self, output: Path, identity: str, every: float) -> None:
        self.path = output.with_name(f".{output.name}.restart")
        self.identity, self.every = identity, every
        self.next = time.monotonic() + every
        self.found = self._read()
        """Arrays that a killed run has left; none if there is no such run, or it was another one."""

    def _read(self) -> dict[str, np.ndarray] | None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                if str(file["identity"]) == self.identity:
                    return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # torn by a full disk or a node that went down: such a run starts anew
        return None

    def due(self) -> bool:
        """Whether the state is to be written again."""
        return time.monotonic() >= self.next

    def write(self, arrays: Mapping[str, Any]) -> None:
        """Replace what is there; where the disk is full, say so and go on without."""
        began = time.monotonic()
        try:
            with whole(self.path) as temporary, temporary.open("wb") as file:
                np.savez(file, identity=np.array(self.identity), **arrays)
        except UserError as error:
            print(f"warning: the state of this run is not kept: {error}", file=sys.stderr)
        ended = time.monotonic()
        self.next = ended + max(self.every, SHARE * (ended - began))

    def remove(self) -> None:
        """The result is written: the state is needed no more."""
        self.path.unlink(missing_ok=True)


def identity_of(job: TrainJob, tasks: xr.Dataset) -> str:
    """Digest of all that determines a run: its settings, its data, the code that trains, its libraries."""
    libraries = [version(name) for name in ("torch", "scipy")]
    digest = hashlib.sha256(f"{job.model_dump_json()} {libraries}".encode())
    for name in ("inputs", "labels"):
        digest.update(tasks[name].values.tobytes())
    package = Path(__file__).parents[1]
    others = [package / f"{name}.py" for name in ("network", "gradient", "measure", "seeding")]
    for module in sorted([*(package / "train").glob("*.py"), *others]):
        digest.update(module.read_bytes())
    return digest.hexdigest()
