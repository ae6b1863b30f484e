"""Write the table of claims in ``results.md`` from a run: ``python docs/hooks/results.py results/claims.json``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from decaymerge.claims import CLAIMS, Verdict, count, read

PAGE = Path(__file__).parents[1] / "explanation/results.md"
FIRST = "| claim | source |"
COLUMNS = ["claim", "source", "what is claimed", "could have failed", "outcome", "worst measured", "slack"]
COLUMNS += ["slack at the last step"]
HEAD = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]


def claims_table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a row for each claim about trained networks, with its outcomes and its verdict of least slack.

    Rows that could have failed are counted out of all. The verdict is taken from them if there are any.
    """
    return "\n".join(
        HEAD + [_row(name, [verdict for verdict in verdicts if verdict.claim == name]) for name in CLAIMS]
    )


def _row(name: str, verdicts: Sequence[Verdict]) -> str:
    counts = count(verdicts)
    outcomes = ", ".join(f"{outcome} {number}" for outcome, number in counts.outcomes.items())
    measured = [verdict for verdict in verdicts if verdict.slack is not None]
    refutable = [verdict for verdict in measured if not verdict.trivial] or measured
    judged = [verdict for verdict in refutable if verdict.outcome != "assumption unmet"] or refutable
    worst = min(judged, key=lambda verdict: verdict.slack or 0)
    last = min((v.last_slack for v in judged if v.last_slack is not None), default=None)
    cells = [f"`{name}`", CLAIMS[name].source, CLAIMS[name].brief, str(counts), outcomes]
    cells += [f"{worst.measured:.3g} against {worst.bound:.3g}", f"{worst.slack:.3g}"]
    return f"| {' | '.join([*cells, '' if last is None else f'{last:.3g}'])} |"


def main() -> None:
    """Replace the table of the page."""
    lines = PAGE.read_text().splitlines()
    first = next(row for row, line in enumerate(lines) if line.startswith(FIRST))
    last = next(row for row in range(first, len(lines)) if not lines[row].startswith("|"))
    lines[first:last] = claims_table(read(Path(sys.argv[1]))).splitlines()
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
