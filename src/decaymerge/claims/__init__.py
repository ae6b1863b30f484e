"""Stage ``claims``: what the paper says, held against what was measured.

A claim is a function from a measurement to a ``Check``. It is never forced to pass: its status is ``bound holds``,
``equality``, ``not supported`` or ``assumption unmet``.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from pydantic import TypeAdapter

from decaymerge.claims.check import Check
from decaymerge.claims.scan import SCAN_CLAIMS
from decaymerge.errors import UserError


def check_scan(name: str, scan: xr.Dataset) -> list[Check]:
    """All claims about one model's scan."""
    return [claim(name, scan) for claim in SCAN_CLAIMS.values()]


def write(checks: Sequence[Check], output: Path) -> None:
    """A list of checks as JSON, moved into place whole."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        temporary = Path(folder) / output.name
        temporary.write_text(
            json.dumps([check.model_dump() for check in checks], indent=2, ensure_ascii=False) + "\n"
        )
        temporary.replace(output)


def read(path: Path) -> list[Check]:
    """Checks from JSON.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return TypeAdapter(list[Check]).validate_json(path.read_text())
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{path} cannot be read ({reason}); remake it with: rm -f {path} && snakemake {path}"
        ) from None


def table(checks: Sequence[Check]) -> str:
    """One line a check, for the terminal."""
    lines = [f"{'claim':24}{'of':24}{'status':18}{'measured':>10}{'bound':>10}"]
    for check in checks:
        numbers = "".join(
            "-".rjust(10) if value is None else f"{value:10.3g}" for value in (check.measured, check.bound)
        )
        lines.append(f"{check.claim:24}{check.experiment:24}{check.status:18}{numbers}")
    return "\n".join(lines)
