"""Digests of settings and of code, by which files know each other."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

SOURCES = (".py", ".html", ".txt")
"""Endings of the files that decide a result."""


def digest(settings: str) -> str:
    """Of the JSON of a job's settings."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def combined(digests: Sequence[str]) -> str:
    """One digest of several, in their order."""
    return digest(",".join(digests))


def content_digest(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fingerprint(*modules: str) -> str:
    """Of the source files of modules and packages of this package, by content, so that dates do not count."""
    package = Path(__file__).parent
    result = hashlib.sha256()
    for module in modules:
        files = [file for file in (package / module).rglob("*") if file.suffix in SOURCES]
        for file in sorted(files) or [package / f"{module}.py"]:
            name = file.relative_to(package).as_posix()
            result.update(f"{name} {content_digest(file)}\n".encode())
    return result.hexdigest()[:16]
