"""Write the tables of the pages from ``docs/numbers``: ``python docs/hooks/page_tables.py``.

A table stands between ``<!-- name run -->`` and ``<!-- end -->``. The function ``name`` of this module writes it,
from the folder ``docs/numbers/run`` (see ``run_numbers.py``).
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from decaymerge import store
from decaymerge.claims import CLAIMS
from decaymerge.hypotheses import HYPOTHESES

DOCS = Path(__file__).parents[1]
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("**/*.md"))]
BLOCK = re.compile(r"(?<=<!-- )(\w+) (\w+) -->\n.*?<!-- end", re.DOTALL)
PERCENT = 100.0


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_interval(row: pd.Series, name: str = "mean", factor: float = 1.0) -> str:
    """A mean and half the width of its interval, which has two digits; the mean alone where all seeds agree."""
    low, high = ("low", "high") if name == "mean" else (f"{name}_low", f"{name}_high")
    mean, half = factor * row[name], factor * (row[high] - row[low]) / 2
    if not np.isfinite(mean):
        return ""
    if not half > 1e-9 * abs(mean):
        return f"{mean:.3g}"
    decimals = max(0, 1 - int(np.floor(np.log10(half))))
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"


class Table:
    """The rows of one experiment, by quantity and model.

    Args:
        run: Folder of ``docs/numbers``.
        experiment: Its name.
        merge_set: Its merge set; the last one, that of all tasks, if none is given.
    """

    def __init__(self, run: Path, experiment: str, merge_set: str | None = None) -> None:
        table = store.read_table(run / f"{experiment}.csv")
        table = table[table.merge_set == (merge_set or table.merge_set.iloc[-1])]
        self.rows = {(row.quantity, row.model, row.weight_decay): row for _, row in table.iterrows()}
        self.sweep = sorted(table.weight_decay.unique())

    def cell(self, quantity: str, model: str, weight_decay: float, factor: float = 1.0) -> str:
        """Mean and interval of a quantity, or a dash where there is none."""
        row = self.rows.get((quantity, model, weight_decay))
        return "-" if row is None else with_interval(row, factor=factor)

    def networks(self, weight_decay: float) -> str:
        """Number of seeds whose networks have not collapsed, and how many networks have."""
        row = self.rows.get(("loss", "own", weight_decay))
        if row is None:
            return "all collapsed"
        return f"{row.n:g}" + (f" ({row.collapsed:g} networks collapsed)" if row.collapsed else "")


MERGING = {
    "independent": "independent",
    "same_inputs": "same inputs",
    "weight_decay": "weight decay",
    "fashion_mnist": "Fashion-MNIST",
}


def _over_merging(run: Path, head: Sequence[str], cells: Callable[[Table, float], Sequence[str]]) -> str:
    rows = []
    for experiment, title in MERGING.items():
        table = Table(run, experiment)
        for i, decay in enumerate(table.sweep):
            rows.append(["" if i else title, f"{decay:g}", *cells(table, decay), table.networks(decay)])
    return markdown(["experiment", "λ", *head, "seeds"], rows)


def losses(run: Path) -> str:
    """Losses of own networks, and gaps of merged ones, of Figure 3 and Fashion-MNIST."""
    head = ["own loss", "own test loss", "gap of the sum", "test gap of the sum", "gap of the average"]
    columns = [("loss", "own"), ("test_loss", "own"), ("gap", "sum"), ("test_gap", "sum"), ("gap", "average")]
    return _over_merging(run, head, lambda table, decay: [table.cell(*column, decay) for column in columns])


def errors(run: Path) -> str:
    """Errors and stable ranks of Figure 3 and Fashion-MNIST."""
    head = ["own test error %", "error of the sum %", "test error of the sum %", "stable rank W₁", "W₂"]
    percent = [("test_error", "own"), ("error", "sum"), ("test_error", "sum")]
    ranks = [("stable_rank_1", "own"), ("stable_rank_2", "own")]
    return _over_merging(
        run,
        head,
        lambda table, decay: [
            *(table.cell(*column, decay, PERCENT) for column in percent),
            *(table.cell(*column, decay) for column in ranks),
        ],
    )


def hypotheses(run: Path) -> str:
    """The four hypotheses: effect, interval and outcome."""
    verdicts = store.read_table(run / "hypotheses.csv")
    rows = []
    for key, hypothesis in HYPOTHESES.items():
        for _, row in verdicts[verdicts.hypothesis == key].iterrows():
            place = f"{row.experiment}, {row.samples} data"
            claimed = f"{hypothesis.side} {hypothesis.threshold:g}"
            rows.append([hypothesis.statement, place, claimed, with_interval(row), row.outcome])
    return markdown(["hypothesis", "experiment", "claimed", "effect", "outcome"], rows)


def figure2(run: Path) -> str:
    """Figure 2: inverse norm ratio with its change from the λ before, and errors."""
    head = ["labels", "λ", "mean ‖W‖₂/‖W‖_F", "change from the λ before", "seeds that rise"]
    head += ["error %", "test error %", "loss", "test loss", "networks left"]
    rows = []
    for experiment, title in {"labels_linear": "linear", "labels_quadratic": "quadratic"}.items():
        table = Table(run, experiment)
        for i, decay in enumerate(table.sweep):
            ratio = table.rows["inverse_norm_ratio", "own", decay]
            rises = "" if np.isnan(ratio.rises) else f"{ratio.rises:g}"
            cells = [with_interval(ratio), with_interval(ratio, "change"), rises]
            cells += [table.cell(name, "own", decay, PERCENT) for name in ("error", "test_error")]
            cells += [table.cell(name, "own", decay) for name in ("loss", "test_loss")]
            rows.append(["" if i else title, f"{decay:g}", *cells, table.networks(decay)])
    return markdown(head, rows)


def overlap(run: Path) -> str:
    """How many times the bound by ε/λ exceeds the bound from the data."""
    ratios = store.read_table(run / "interference.csv").sort_values(["weight_decay", "experiment"])
    rows = [
        [row.experiment.removeprefix("overlap_"), f"{row.weight_decay:g}", with_interval(row)]
        for _, row in ratios.iterrows()
    ]
    return markdown(["overlap, %", "λ", "bound by ε/λ over bound from the data"], rows)


def claims(run: Path) -> str:
    """A row for each claim about trained networks: how many verdicts could have failed, outcomes, least slack."""
    verdicts = store.read_table(run / "claims.csv")
    head = [
        "claim",
        "source",
        "what is claimed",
        "verdicts that could fail",
        "outcome",
        "worst measured",
        "slack",
    ]
    rows = [_claim(name, verdicts[verdicts.claim == name]) for name in CLAIMS]
    return markdown([*head, "at the last step"], rows)


def _claim(name: str, verdicts: pd.DataFrame) -> list[str]:
    """A row of the table, with the worst of the verdicts that could fail and whose assumptions are met, if any."""
    counts = verdicts.outcome.value_counts()
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))
    could_fail = verdicts.trivial.isna()
    judged = verdicts[verdicts.slack.notna()]
    for narrower in (judged[judged.outcome != "assumption unmet"], judged[judged.trivial.isna()]):
        judged = judged.loc[judged.index.intersection(narrower.index)] if len(narrower) else judged
    cells = ["-", "-", "-"]
    if len(judged):
        worst = judged.nsmallest(1, "slack").iloc[0]
        cells = [f"{worst.measured:.3g} against {worst.bound:.3g}", f"{worst.slack:.3g}"]
        cells += [f"{worst.last_slack:.3g}" if worst.last_slack != worst.slack else "the same"]
    share = f"{could_fail.sum()} of {len(verdicts)}"
    return [f"`{name}`", CLAIMS[name].source, CLAIMS[name].brief, share, outcomes, *cells]


def scans(run: Path) -> str:
    """The claims about transformers: measured side of each model."""
    verdicts = store.read_table(run / "claims.csv")
    verdicts = verdicts[verdicts.experiment.str.startswith("scan/")]
    table = verdicts.pivot(index="claim", columns="experiment", values="measured")
    bounds = {row.claim: row.bound for _, row in verdicts.iterrows()}
    rows = [[f"`{name}`", f"{bounds[name]:g}", *(f"{x:.3g}" for x in row)] for name, row in table.iterrows()]
    return markdown(
        ["claim", "threshold", *(str(name).removeprefix("scan/") for name in table.columns)], rows
    )


SUMS = {"a+b": "2 tasks", "first_4": "4", "first_8": "8", "all": "16"}
WIDE = {
    "width64": "width 64",
    "width128": "width 128",
    "width256": "width 256",
    "linear64": "linear, width 64",
}


def many_tasks(run: Path) -> str:
    """Test error of the sum against the number of tasks."""
    rows = []
    for experiment, title in WIDE.items():
        tables = [Table(run, experiment, merge_set) for merge_set in SUMS]
        for i, decay in enumerate(tables[0].sweep):
            cells = [table.cell("test_error", "sum", decay, PERCENT) for table in tables]
            rows.append(["" if i else title, f"{decay:g}", *cells])
    return markdown(["network", "λ", *SUMS.values()], rows)


def layers(run: Path) -> str:
    """The gap of the sum of sixteen networks, layer by layer."""
    table = Table(run, "width64")
    head = [
        "λ",
        "layer",
        "part of the gap where it leaks out",
        "where it comes back",
        "cross term over own term",
    ]
    names = ["loss_increment_first", "loss_increment_last", "cross_term"]
    rows = [
        [
            f"{decay:g}" if layer == 1 else "",
            str(layer),
            *(table.cell(f"{name}_{layer}", "sum", decay) for name in names),
        ]
        for decay in table.sweep
        for layer in (1, 2, 3)
    ]
    return markdown(head, rows)


def cross_terms(run: Path) -> str:
    """The cross terms of layers 2 and 3 against width and number of tasks, at λ = 1e-3."""
    rows = []
    for experiment, title in WIDE.items():
        for layer in (2, 3):
            cells = [Table(run, experiment, name).cell(f"cross_term_{layer}", "sum", 1e-3) for name in SUMS]
            rows.append(["" if layer == 3 else title, str(layer), *cells])
    return markdown(["network", "layer", *SUMS.values()], rows)


def depth(run: Path) -> str:
    """Test error of the sum against the number of weight matrices."""
    rows = []
    for matrices in range(2, 7):
        table = Table(run, f"depth{matrices}")
        rows.append(
            [str(matrices), *(table.cell("test_error", "sum", decay, PERCENT) for decay in table.sweep)]
        )
    return markdown(["weight matrices", *(f"λ = {decay:g}" for decay in table.sweep)], rows)


def working_time(run: Path) -> str:
    """ηλ · step from which the sum errs on at most 1% of the training samples."""
    times = store.read_table(run / "working_time.csv")
    rows = [[f"{row.weight_decay:g}", with_interval(row), f"{row.n:g}"] for _, row in times.iterrows()]
    return markdown(["λ", "ηλ · step", "seeds that get there"], rows)


def sensitivity(run: Path) -> str:
    """The four hypotheses with one setting changed at a time, on training samples."""
    verdicts = store.read_table(run / "hypotheses.csv")
    verdicts = verdicts[verdicts.samples == "training"].assign(
        setting=verdicts.experiment.str.removesuffix("_same")
    )
    rows = []
    for setting in dict.fromkeys(verdicts.setting):
        by_key = {row.hypothesis: row for _, row in verdicts[verdicts.setting == setting].iterrows()}
        cells = [f"{with_interval(by_key[key])}, {by_key[key].outcome}" for key in HYPOTHESES]
        rows.append([f"`{setting}`", *cells])
    head = [
        "setting",
        "independent: gap",
        "same inputs: gap",
        "gap closed by decay",
        "log of the ratio of stable ranks",
    ]
    return markdown(head, rows)


OF_MERGING = [losses, errors, hypotheses, figure2, overlap, claims, scans]
OF_OTHER_RUNS = [many_tasks, layers, cross_terms, depth, working_time, sensitivity]
WRITERS = {writer.__name__: writer for writer in (*OF_MERGING, *OF_OTHER_RUNS)}


def written(text: str) -> str:
    """The text of a page with its tables as the folders of numbers have them."""

    def block(match: re.Match[str]) -> str:
        writer, run = WRITERS[match[1]], DOCS / "numbers" / match[2]
        table = writer(run) if run.exists() else "Not run yet."
        return f"{match[1]} {match[2]} -->\n\n{table}\n\n<!-- end"

    return BLOCK.sub(block, text)


def main() -> None:
    """Write the tables of all pages; with ``--check``, only say whether they are as the numbers are."""
    stale = [page for page in PAGES if written(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        sys.exit(
            f"stale tables in {', '.join(map(str, stale))}: python docs/hooks/page_tables.py" if stale else 0
        )
    for page in stale:
        page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
