"""Tables of the page about merging with inputs, each from a folder of ``docs/numbers``."""

from pathlib import Path

from decaymerge import store
from markdown_tables import PERCENT, Table, markdown

MERGES = {
    "own": "own networks",
    "sum": "sum",
    "average": "average",
    "projected_sum": "sum, each W_1 projected on its inputs",
    "least_squares": "least squares on own activations",
    "least_squares=merged,1e-06,0": "least squares on merged activations",
}


def merges(run: Path) -> str:
    """Training and test loss, and errors, of all merges without weight decay and with it."""
    rows = []
    for experiment, title in {"two_tasks": "2 tasks", "eight_tasks": "8 tasks"}.items():
        table = Table(run, experiment)
        for model, name in MERGES.items():
            cells = [
                table.cell(quantity, model, decay, factor)
                for decay in (0.0, 1e-3)
                for quantity, factor in (("loss", 1.0), ("error", PERCENT), ("test_loss", 1.0))
            ]
            rows.append([title if model == "own" else "", name, *cells])
    heads = [f"λ = {decay}: {name}" for decay in ("0", "1e-3") for name in ("loss", "error, %", "test loss")]
    return markdown(["", "merge", *heads], rows)


def tasks_fit(run: Path) -> str:
    """Numbers of tasks at 1% error, measured and predicted."""
    table = store.read_table(run / "capacity.csv")
    numbers = ["measured, sum", "measured, least_squares", "predicted, 1e-06", "predicted, 1"]
    rows = []
    for (experiment, decay), part in table.groupby(["experiment", "weight_decay"]):
        by_number = {row["number"]: row for row in part.to_dict("records")}
        cells = [
            f"{by_number[number]['mean']:.2g} ({by_number[number]['low']:.2g} to {by_number[number]['high']:.2g})"
            for number in numbers
        ]
        rows.append([str(experiment).removeprefix("fit_width"), f"{decay:g}", *cells])
    rows.sort(key=lambda row: int(row[0]))
    heads = ["sum", "least squares", "predicted, ρ of the ridge", "predicted, ρ of the mean"]
    return markdown(["width", "λ", *heads], rows)


WRITERS = [merges, tasks_fit]
