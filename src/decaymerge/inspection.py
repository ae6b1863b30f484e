"""``decaymerge inspect``: the settings, the origin and the contents of a result, read from the file itself."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from decaymerge.errors import UserError
from decaymerge.reading import text_of


def inspect(path: Path) -> str:
    """Size, settings, code revision, versions, seeds, kind of host and contents of a result, as text.

    Raises:
        UserError: the file is missing or damaged, or not a result of this project.
    """
    readers = {".nc": _netcdf, ".csv": _table, ".png": _picture, ".pdf": _picture_next_to, ".json": _json}
    if path.suffix not in readers:
        raise UserError(
            f"{path}: inspect reads {', '.join(readers)} files; a page (.html) says itself where it comes from"
        )
    if not path.is_file():
        raise UserError(f"{path} is missing, or is not a file")
    size = path.stat().st_size
    return f"{path}: {size / 1e6:.3g} MB\n{readers[path.suffix](path).rstrip()}"


def _origin(attributes: Mapping[str, Any], path: Path) -> str:
    """Attributes as YAML, with the settings last, as a mapping.

    Raises:
        UserError: the attributes are not those of a result.
    """
    entries: dict[str, Any] = {name: str(text) for name, text in attributes.items() if name != "settings"}
    try:
        entries["settings"] = json.loads(attributes["settings"])
    except (KeyError, ValueError):
        entries.clear()
    if "code_revision" not in entries:
        raise UserError(f"{path} does not say where it comes from: it is not a result of this project")
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000)


def _netcdf(path: Path) -> str:
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            lines = [_origin(dataset.attrs, path) + "holds:"]
            for name, variable in dataset.variables.items():
                dims = ", ".join(f"{dim} {size}" for dim, size in variable.sizes.items())
                lines.append(
                    f"  {name} ({dims}) {variable.dtype}: {variable.attrs.get('long_name', '')}".rstrip(": ")
                )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as NetCDF: {error}") from None
    return "\n".join(lines)


def _table(path: Path) -> str:
    """The origin in the first line of a table, its number of rows and its columns."""
    try:
        origin, *rows = text_of(path).splitlines()
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from None
    if not origin.startswith("# decaymerge ") or not rows:
        raise UserError(f"{path} does not say where it comes from: it is not a result of this project")
    columns, *rows = rows
    return f"made by {origin.removeprefix('# ')}\n{len(rows)} rows of {columns.replace(',', ', ')}"


def _picture(path: Path) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return _origin(
                {str(name): text for name, text in picture.info.items() if isinstance(text, str)}, path
            )
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path} cannot be read as a picture: {error}") from None


def _picture_next_to(path: Path) -> str:
    """The origin of a PDF, from the PNG that was drawn with it and is easier to read."""
    if not (picture := path.with_suffix(".png")).is_file():
        raise UserError(f"{path}: {picture.name}, which holds the origin of both, is missing next to the PDF")
    return _picture(picture)


def _json(path: Path) -> str:
    """Counts of outcomes for verdicts on claims, and the content of any other file."""
    try:
        content = json.loads(text_of(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, list) or not all(
        isinstance(row, dict) and {"made_by", "outcome"} <= row.keys() for row in content
    ):
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    outcomes = Counter(verdict["outcome"] for verdict in content)
    lines = [f"made by {line}" for line in dict.fromkeys(verdict["made_by"] for verdict in content)]
    counts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.items())
    return "\n".join([*lines, f"{len(content)} verdicts on claims: {counts}"])
