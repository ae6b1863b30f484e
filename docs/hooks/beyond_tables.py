"""Tables of the page beyond the paper and of the sensitivity, each from a folder of ``docs/numbers``."""

from pathlib import Path

from decaymerge import store
from decaymerge.hypotheses import HYPOTHESES
from markdown_tables import PERCENT, Table, markdown, with_interval

SUMS = {"a+b": "2 tasks", "first_4": "4", "first_8": "8", "all": "16"}
WIDE = {
    "width64": "width 64",
    "width128": "width 128",
    "width256": "width 256",
    "linear64": "linear, width 64",
}


def _errors(table: Table, weight_decay: float) -> str:
    """Errors of the sum on training and on test samples."""
    return " / ".join(table.cell(name, "sum", weight_decay, PERCENT) for name in ("error", "test_error"))


def many_tasks(run: Path) -> str:
    """Error of the sum against the number of tasks."""
    rows = []
    for experiment, title in WIDE.items():
        tables = [Table(run, experiment, merge_set) for merge_set in SUMS]
        for i, decay in enumerate(tables[0].sweep):
            cells = [_errors(table, decay) for table in tables]
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
    """Error of the sum against the number of weight matrices."""
    rows = []
    for matrices in range(2, 7):
        table = Table(run, f"depth{matrices}")
        rows.append([str(matrices), *(_errors(table, decay) for decay in table.sweep)])
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


WRITERS = [many_tasks, layers, cross_terms, depth, working_time, sensitivity]
