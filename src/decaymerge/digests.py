"""Digests of settings, by which files know each other."""

import hashlib
from collections.abc import Sequence


def digest(settings: str) -> str:
    """Of the JSON of a job's settings."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def combined(digests: Sequence[str]) -> str:
    """One digest of several, in their order."""
    return digest(",".join(digests))
