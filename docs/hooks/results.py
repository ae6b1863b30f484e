"""Write the table of claims in ``results.md`` from a run: ``python docs/hooks/results.py results/claims.json``."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from decaymerge.claims import CLAIMS, Verdict, read

PAGE = Path(__file__).parents[1] / "explanation/results.md"
HEAD = ["| claim | source | what is claimed | outcome | worst measured | slack |", "| --- " * 6 + "|"]


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a row for each claim about trained networks, with its outcomes and its verdict of least slack."""
    return "\n".join(
        HEAD + [_row(name, [verdict for verdict in verdicts if verdict.claim == name]) for name in CLAIMS]
    )


def _row(name: str, verdicts: Sequence[Verdict]) -> str:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    counts = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items()))
    measured = [verdict for verdict in verdicts if verdict.slack is not None]
    judged = [verdict for verdict in measured if verdict.outcome != "assumption unmet"] or measured
    worst = min(judged, key=lambda verdict: verdict.slack or 0)
    sides = f"{worst.measured:.3g} against {worst.bound:.3g}"
    return f"| `{name}` | {CLAIMS[name].source} | {CLAIMS[name].brief} | {counts} | {sides} | {worst.slack:.3g} |"


def main() -> None:
    """Replace the table of the page."""
    lines = PAGE.read_text().splitlines()
    first = lines.index(HEAD[0])
    last = next(row for row in range(first, len(lines)) if not lines[row].startswith("|"))
    lines[first:last] = claims_table(read(Path(sys.argv[1]))).splitlines()
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
