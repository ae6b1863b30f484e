"""What the list of Snakemake's report says of figures and claims."""

import json
import re
from collections import Counter
from pathlib import Path

from decaymerge.config.figures import FIGURES, Picture


def title_of(figure: str) -> str:
    """Name of a figure as a reader knows it, such as ``Figure 2``."""
    return re.sub(r"^(figure|table)(?=\d)", r"\1 ", figure).replace("_", " ").capitalize()


def figure_labels(name: str, picture: Picture) -> dict[str, str]:
    """Labels of one file in ``results/figures``."""
    return {"figure": title_of(name), "shows": FIGURES[picture.figure].shows}


def claim_labels(verdicts_path: Path, claim: str) -> dict[str, str]:
    """Labels of a claim's picture, from the verdicts of the finished run."""
    verdicts = [verdict for verdict in json.loads(verdicts_path.read_text()) if verdict["claim"] == claim]
    outcomes = Counter(verdict["outcome"] for verdict in verdicts)
    counts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.items())
    return {"claim": claim, "source": verdicts[0]["source"], "outcome": counts}
