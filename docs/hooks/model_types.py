"""Find the types of models whose roles are right, and write them down: ``python docs/hooks/model_types.py``.

Each type of ``transformers`` that is mapped to causal, masked or image classification models is built at a tiny
size. Its forward pass says what each matrix does, and the scan's table must say the same. The types that pass are
written to ``verified_model_types.txt`` of the package ``architectures``, and all of them to
``docs/reference/model-types.md``.
"""

import signal
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import transformers

from builders_model_types import fault_of, types_seen
from builders_tiny_models import BY_OUTPUTS, model_types, tiny
from decaymerge.architectures import VERIFIED

PAGE = Path(__file__).parents[1] / "reference/model-types.md"
SECONDS = 120
"""Time for one type."""
NOT_BUILT = "not built at a tiny size"


def verdict_of(model_type: str) -> tuple[str, set[str]]:
    """Fault of a type, empty if its roles are right, and the types of its parts that were seen at work."""
    try:
        model = tiny(model_type)
    except Exception as error:
        return f"{NOT_BUILT} ({type(error).__name__})", set()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fault = fault_of(model, Path(folder))
        except Exception as error:
            return f"{NOT_BUILT} ({type(error).__name__} in its forward pass)", set()
        return fault, set() if fault else types_seen(model, Path(folder))


def main() -> None:
    """Try all types, and write both files."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(100)
    transformers.logging.disable_progress_bar()

    def give_up(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    verified: set[str] = set()
    reasons: dict[str, list[str]] = defaultdict(list)
    for model_type in model_types():
        signal.alarm(SECONDS)
        fault, seen = verdict_of(model_type)
        signal.alarm(0)
        print(f"{model_type}: {fault or 'right'}", flush=True)
        verified |= seen
        if fault:
            short = fault if fault.startswith(NOT_BUILT) else fault.rpartition(": ")[2].split(" [")[0]
            reasons[NOT_BUILT if short.startswith(NOT_BUILT) else short].append(model_type)
        else:
            reasons[""].append(model_type)
    verified |= BY_OUTPUTS
    VERIFIED.write_text("\n".join(sorted(verified)) + "\n")
    PAGE.write_text(page(verified, reasons))


def page(verified: set[str], reasons: dict[str, list[str]]) -> str:
    """The page, in Markdown."""
    right = reasons.pop("", [])
    reasons = {reason: [one for one in types if one not in BY_OUTPUTS] for reason, types in reasons.items()}
    by_outputs = " and ".join(sorted(BY_OUTPUTS))
    total = len(right) + sum(map(len, reasons.values())) + len(BY_OUTPUTS & set(model_types()))
    others = sum(map(len, reasons.values()))
    with_parts = ", ".join(sorted(verified - set(right) - BY_OUTPUTS))
    text = f"""\
# Which transformers a scan knows

`transformers` {transformers.__version__} maps {total} types (`model_type`) to causal, masked or image
classification models. Each was built at a tiny size with random weights, and its forward pass was watched: which
rows of which matrices make the queries, keys and values that attention gets, which matrix reads attention's output,
and which matrices the MLP consists of. For {len(right)} types the table of names says the same, and a scan uses it.
So it does for {by_outputs}, whose attention cannot be watched: there, the outputs of all modules were compared,
and those of one attention with its formula.
The other {others} are scanned by name: every matrix by itself, under the name of its tensor. So are parts of a
model, such as a vision tower, whose own type is not listed as right. `python docs/hooks/model_types.py` writes this
page.

**Right ({len(right)})**: {", ".join(right)}. As parts of models also {with_parts}."""
    lines = [text]
    for reason, types in sorted(reasons.items(), key=lambda item: -len(item[1])):
        lines += ["", f"**By name, {reason} ({len(types)})**: {', '.join(types)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
