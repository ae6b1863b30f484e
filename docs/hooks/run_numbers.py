"""Small tables of a finished run, from which pages are written, and the comparison of another run with them.

``python docs/hooks/run_numbers.py collect RESULTS FOLDER`` writes the tables of a run to a folder of
``docs/numbers``; ``compare`` in place of ``collect`` says which numbers of a run leave the intervals there.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from decaymerge import claims, store
from decaymerge.capacity import capacity
from decaymerge.collapse import without_collapsed
from decaymerge.statistics import interval

NUMBERS = Path(__file__).parents[1] / "numbers"
STATISTICS = [
    "mean",
    "low",
    "high",
    "n",
    "change",
    "change_low",
    "change_high",
    "change_n",
    "rises",
    "collapsed",
]
WORKS = 0.01
"""Error up to which a sum works."""
ROUNDING = 1e-6
"""Relative difference of numbers that count as equal, where all seeds agree and the interval is a point."""
OF_A_BOUND = 1.1
"""Factor by which the least slack of a bound may differ. That of an equality is rounding, or the residual at which
a solver happened to end: its outcome alone is compared."""


def collect(results: Path, folder: Path) -> None:
    """Write the tables of the run in ``results`` to ``folder``: means over tasks, hypotheses, claims, overlap."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(results.glob("*/table.csv")):
        table = store.read_table(path)
        means = table[table.task == "mean"].drop(columns="task")
        store.write_table(_by_rule_of_three(means, path.parent), folder / f"{path.parent.name}.csv")
    for path in results.glob("hypotheses.csv"):
        store.write_table(store.read_table(path), folder / path.name)
    for path in results.glob("claims.json"):
        rows = [
            verdict.model_dump(exclude={"statement", "assumptions", "note", "made_by", "seeds"})
            for verdict in claims.read(path)
        ]
        store.write_table(pd.DataFrame(rows), folder / "claims.csv")
    interference = [_interference(path) for path in sorted(results.glob("*/claims.nc"))]
    if interference := [table for table in interference if table is not None]:
        store.write_table(pd.concat(interference), folder / "interference.csv")
    if (results / "phases/summary.nc").exists():
        store.write_table(_working_time(results / "phases/summary.nc"), folder / "working_time.csv")
    capacities = [_capacity(path) for path in sorted(results.glob("*/summary.nc"))]
    if capacities := [table for table in capacities if table is not None]:
        store.write_table(pd.concat(capacities), folder / "capacity.csv")
    benchmarks = [pd.read_csv(path, sep="\t") for path in results.parent.glob("benchmarks/**/*.tsv")]
    seconds = {
        name: round(float(sum(table[name].sum() for table in benchmarks))) for name in ("s", "cpu_time")
    }
    run = {
        "made_by": _origin(results),
        "jobs": len(benchmarks),
        "wall_seconds": seconds["s"],
        "processor_seconds": seconds["cpu_time"],
    }
    (folder / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def _origin(results: Path) -> str:
    """What made a run, from the first line of its tables; not this process, which may be of another revision."""
    with sorted(results.glob("*/table.csv"))[0].open() as table:
        return table.readline().removeprefix("# ").strip()


def _by_rule_of_three(table: pd.DataFrame, experiment: Path) -> pd.DataFrame:
    """A table in which errors that are 0 (or 1, or that do not change) in all seeds have an interval: up to 3/N.

    With N samples in all, of all tasks and seeds, a rate above 3/N shows itself with a probability of 95%.
    """
    tasks = sorted(experiment.glob("tasks/*"))
    with xr.open_dataset(sorted(tasks[0].glob("*.nc"))[0]) as data:
        samples = {"error": data.sizes["sample"], "margin_error": data.sizes["sample"]}
        samples["test_error"] = data.sizes.get("test_sample", 0)
    table = table.astype(dict.fromkeys(table.columns.intersection(STATISTICS), float))
    for mean, low, high, n in (
        ("mean", "low", "high", "n"),
        ("change", "change_low", "change_high", "change_n"),
    ):
        count = table.quantity.map(samples) * table[n] * len(tasks)
        alike = (table[low] == table[high]) & (count > 0)
        least = 0.0 if mean == "mean" else -1.0
        table.loc[alike, low] = (table[mean] - 3 / count).clip(lower=least)[alike]
        table.loc[alike, high] = (table[mean] + 3 / count).clip(upper=1.0)[alike]
    return table


def _interference(path: Path) -> pd.DataFrame | None:
    """How many times the bound by ε/λ exceeds the bound from the data, a row for each λ, or none."""
    traces = store.read(path, "claim")
    if "interference" not in traces:
        return None
    sides = traces.interference
    ratio = (sides.sel(side="bound by ε/λ") / sides.sel(side="data-dependent bound")).mean("task")
    if ratio.isnull().all():
        return None
    frame = interval(ratio).to_dataframe().reset_index()
    return frame[["weight_decay", "mean", "low", "high", "n"]].assign(experiment=path.parent.name)


def _working_time(path: Path) -> pd.DataFrame:
    """λ · step from which the sum errs on at most 1% of the training samples, a row for each λ; η is 1."""
    summary = without_collapsed(store.read(path, "error")).isel(merge_set=-1).mean("task")
    works = (summary.error.sel(model="sum") <= WORKS).sel(step=slice(None, None, -1)).cumprod("step")
    first = summary.step.where(works.sel(step=summary.step) == 1).min("step")
    times = interval(first * summary.weight_decay)
    return (
        times.drop_vars("p").where(times.n > 0, drop=True).to_dataframe().reset_index().drop(columns="model")
    )


def _capacity(path: Path) -> pd.DataFrame | None:
    """Numbers of tasks at which merges pass 1% error, and the predicted ones: medians over seeds and their range.

    Those beyond the largest number that was tried count as that number. None for an experiment without effective
    dimensions.
    """
    summary = without_collapsed(store.read(path, "error"))
    if "effective_dimension" not in summary:
        return None
    evaluation = next(path.parent.glob("evaluate/**/*.nc"))
    with xr.open_dataset(evaluation) as dataset:
        hidden = json.loads(dataset.attrs["settings"])["network"]["hidden"]
    counts = capacity(summary, hidden)
    values = {f"measured, {model}": counts.measured.sel(model=model) for model in counts.model.values}
    values |= {f"predicted, {ridge:g}": counts.predicted.sel(ridge=ridge) for ridge in counts.ridge.values}
    rows = []
    for name, of_seeds in values.items():
        for decay in counts.weight_decay.values:
            tasks = of_seeds.sel(weight_decay=decay).clip(max=counts.attrs["most"])
            ends = {"mean": tasks.median(), "low": tasks.min(), "high": tasks.max(), "n": tasks.count()}
            row = {"experiment": path.parent.name, "number": name, "weight_decay": decay}
            rows.append(row | {key: float(value) for key, value in ends.items()})
    return pd.DataFrame(rows)


def numbers(folder: Path) -> pd.DataFrame:
    """All numbers of a folder of tables: ``name``, ``value``, interval ``low`` to ``high``, ``sampled``.

    A sampled number is a mean over seeds. The others are counts and the least slacks of claims.
    """
    rows: list[tuple[str, float, float, float, bool]] = []
    for path in sorted(folder.glob("*.csv")):
        table = store.read_table(path)
        if path.stem == "claims":
            rows += _of_claims(table)
            continue
        if "collapsed" in table:
            own = table[(table.quantity == "loss") & (table.model == "own")]
            for row in own.to_dict("records"):
                name = f"{path.stem} {row['merge_set']} {row['weight_decay']} collapsed"
                rows.append((name, *[row["collapsed"]] * 3, False))
        if "outcome" in table:
            rows += [
                (f"{row.hypothesis} {row.experiment} {row.samples}: {row.outcome}", 1, 1, 1, False)
                for _, row in table.iterrows()
            ]
        keys = [column for column in table.columns if column not in (*STATISTICS, "p", "outcome")]
        for row in table.to_dict("records"):
            name = " ".join([path.stem, *(str(row[key]) for key in keys)])
            for value in ("mean", "change"):
                ends = ("low", "high") if value == "mean" else ("change_low", "change_high")
                if np.isfinite(row.get(ends[0], np.nan)):
                    rows.append((f"{name} {value}", row[value], row[ends[0]], row[ends[1]], True))
    return pd.DataFrame(rows, columns=["name", "value", "low", "high", "sampled"])


def _of_claims(table: pd.DataFrame) -> list[tuple[str, float, float, float, bool]]:
    """The least slack of each claim, experiment and λ, and how often each outcome occurs."""
    rows = []
    for row in table.to_dict("records"):
        if np.isfinite(row["slack"]) and row["kind"] != "equality":
            name = f"slack of {row['claim']} in {row['experiment']} at λ = {row['weight_decay']}"
            rows.append((name, row["slack"], row["slack"] / OF_A_BOUND, row["slack"] * OF_A_BOUND, False))
    for outcome, count in (table.claim + ": " + table.outcome).value_counts(sort=False).items():
        rows.append((str(outcome), count, count, count, False))
    return rows


def compare(results: Path, folder: Path) -> pd.DataFrame:
    """The numbers of a folder, each with its value in another run (``other``), and whether that is ``inside``."""
    with tempfile.TemporaryDirectory() as scratch:
        collect(results, Path(scratch))
        return against(Path(scratch), folder)


def against(other_folder: Path, folder: Path) -> pd.DataFrame:
    """Like ``compare``, for another folder of tables."""
    other = numbers(other_folder).set_index("name").value.rename("other")
    both = numbers(folder).set_index("name").join(other, how="outer")
    room = ROUNDING * both.value.abs() + 1e-12
    inside = (both.other >= both.low - room) & (both.other <= both.high + room)
    return both.assign(inside=inside)


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["collect", "compare"])
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.results, arguments.folder)
        return
    compared = compare(arguments.results, arguments.folder)
    outside = compared[~compared.inside]
    sampled = compared[compared.sampled == True]  # noqa: E712 - NaN where a number is missing on one side
    print(outside.to_string() if len(outside) else "every number lies in its interval")
    print(
        f"{sampled.inside.sum()} of {len(sampled)} means over seeds lie inside: {sampled.inside.mean():.1%}"
    )
    print(f"{compared.inside.sum()} of {len(compared)} numbers in all")
    sys.exit(0 if compared.inside.all() else 1)


if __name__ == "__main__":
    main()
