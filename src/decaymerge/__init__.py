"""Weight decay makes homogeneous networks low-rank, and low-rank networks merge by summing their weights.

The public API is the version, the modules below, and in them the names that ``docs/reference/library.md`` lists. A
module is imported when it is first used. Everything else may change without notice.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "checkpoints",
    "claims",
    "config",
    "evaluate",
    "gradient",
    "measure",
    "merge",
    "merge_methods",
    "network",
    "scan",
    "store",
    "tasks",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
