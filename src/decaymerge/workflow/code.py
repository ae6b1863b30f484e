"""Which modules decide the result of each command: a change in them re-runs its jobs.

``tests/test_rules.py`` compares this table with what the commands import.
"""

from functools import cache

from decaymerge.digests import fingerprint

REMAKE = "DECAYMERGE_REMAKE"
"""A variable of the environment with which jobs keep no file. The workflow sets it where the user forces jobs."""
_CLAIMS = ("claims", "collapse", "architectures", "store")
_FIGURES = ("figures", "capacity", "hypotheses", "collapse", "statistics", "architectures", "store")
_NETWORKS = ("low_rank", "merge", "merge_methods", "network", "gradient", "measure")
_SCAN = ("scan", "checkpoint", "architectures", "model_files", "store")
MODULES = {
    "tasks": ("tasks", "fetch", "seeding", "store"),
    "train": ("train", "network", "gradient", "measure", "seeding", "store"),
    "merge": ("low_rank", "merge", "merge_methods", "network", "store"),
    "evaluate": ("evaluate", "network", "measure", "store"),
    "gather": ("evaluate", "collapse", "statistics", "store"),
    "hypotheses": ("hypotheses", "collapse", "statistics", "store"),
    "scan": _SCAN,
    "check-claims": (*_CLAIMS, *_NETWORKS),
    "check-scan": _CLAIMS,
    "gather-claims": _CLAIMS,
    "claims-page": ("claims", *_FIGURES),
    "figures": _FIGURES,
    "explore": _FIGURES,
    "overview": (*_FIGURES, "scan", "checkpoint", "model_files"),
}


@cache
def code(command: str) -> str:
    """Digest of the modules that decide the result of a command."""
    return fingerprint(*sorted(MODULES[command]))
