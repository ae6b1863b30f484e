"""Paths in a configuration: they start from the folder of the file that names them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from decaymerge.config.base import load


def resolved(raw: Any, files: Iterable[Path]) -> Any:
    """A configuration with its paths seen from the working folder, absolute ones as they are.

    Args:
        raw: The configuration, before any check.
        files: The files that it was read from. A path that none of them names starts from the working folder.

    Raises:
        UserError: a file cannot be read.
    """
    folders: dict[str, Path] = {}
    for file in files:

        def remember(path: str, folder: Path = file.parent) -> str:
            folders[path] = folder
            return path

        _with_paths(load(file), remember)

    def seen_from_here(path: str) -> str:
        expanded = os.path.expanduser(path)  # noqa: PTH111 - keeps a dot at the start
        is_elsewhere = path in folders and not os.path.isabs(expanded)  # noqa: PTH117
        return os.path.relpath(folders[path] / path) if is_elsewhere else expanded

    return _with_paths(raw, seen_from_here)


def _with_paths(raw: Any, change: Callable[[str], str]) -> Any:
    """A copy in which every path is changed: of data, functions and checkpoints, and of folders to fetch from."""
    if isinstance(raw, list):
        return [_with_paths(value, change) for value in raw]
    if not isinstance(raw, dict):
        return raw
    copy = {key: _with_paths(value, change) for key, value in raw.items()}
    dataset, source, fetch = (raw.get(key) for key in ("dataset", "source", "fetch"))
    if dataset == "file" and isinstance(raw.get("path"), str):
        copy["path"] = change(raw["path"])
    if dataset == "function" and isinstance(raw.get("function"), str):
        file, colon, name = raw["function"].rpartition(":")
        copy["function"] = f"{change(file)}{colon}{name}"
    if isinstance(source, str) and source.startswith("path:"):
        copy["source"] = f"path:{change(source.removeprefix('path:'))}"
    if isinstance(fetch, dict):
        copy["fetch"] = {
            key: change(value) if isinstance(value, str) else value for key, value in fetch.items()
        }
    return copy
