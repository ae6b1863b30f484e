"""Tables of the page about merges of MiniLM, from ``docs/numbers/minilm``: results of the examples by seed."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from decaymerge.statistics import interval
from markdown_tables import markdown, with_interval

PREDICTORS = {"output change": "`output_change`", "action on inputs": "`action_on_inputs`"}
PREDICTORS |= {"norm of the update": "‖C‖_F, from weights alone"}


ORDER = ["own", "sum", "average", "scaled", "least squares", "corrected sum"]
COMPARED = ("least squares, 200", "corrected sum, 20", "corrected sum, 200")


def results(run: Path, setting: str) -> list[dict[str, Any]]:
    """What each seed gave."""
    return [json.loads(path.read_text()) for path in sorted(run.glob(f"{setting}-*.json"))]


def accuracies(run: Path, setting: str) -> xr.DataArray:
    """Accuracies (seed, model, task) on test texts, the mean over tasks among the tasks."""
    seeds = []
    for one in results(run, setting):
        frame = pd.DataFrame(one["accuracy"])
        frame.loc["mean"] = frame.mean()
        seeds.append(frame.T)
    models, tasks = list(seeds[0].index), list(seeds[0].columns)
    return xr.DataArray(
        [frame.to_numpy() for frame in seeds],
        dims=("seed", "model", "task"),
        coords={"model": models, "task": tasks},
    )


def cell(values: xr.DataArray) -> str:
    """Mean over seeds, and half of its 95% interval."""
    numbers = {name: float(value) for name, value in interval(values).items()}
    return with_interval(pd.Series(numbers))


def _accuracy(run: Path, setting: str) -> str:
    table = accuracies(run, setting)
    tasks = table.task.values.tolist()
    models = sorted(table.model.values.tolist(), key=lambda model: ORDER.index(model.partition(",")[0]))
    rows = [[model, *(cell(table.sel(model=model, task=task)) for task in tasks)] for model in models]
    return markdown(["merge", *tasks], rows)


def minilm_two(run: Path) -> str:
    """Accuracies of two tasks, trained by SGD."""
    return _accuracy(run, "two")


def minilm_adamw(run: Path) -> str:
    """Accuracies of two tasks, trained by AdamW."""
    return _accuracy(run, "adamw")


def minilm_four(run: Path) -> str:
    """Accuracies of four tasks, trained by SGD."""
    return _accuracy(run, "four")


def minilm_differences(run: Path) -> str:
    """Paired differences: the methods with inputs minus those without."""
    rows = []
    for setting in ("two", "adamw", "four"):
        table = accuracies(run, setting)
        for method in COMPARED:
            for other in ("sum", "average"):
                change = table.sel(model=method) - table.sel(model=other)
                cells = [
                    cell(change.sel(task=task)) if task in change.task.values else ""
                    for task in ("polarity", "gender", "german", "spanish", "mean")
                ]
                rows.append([setting, f"{method}, minus {other}", *cells])
    return markdown(["setting", "difference", "polarity", "gender", "german", "spanish", "mean"], rows)


def minilm_prediction(run: Path) -> str:
    """Spearman's correlation of predictors with the measured change of the output, and the ratio of sizes."""
    rows = []
    for setting in ("two", "adamw", "four"):
        seeds = results(run, setting)
        for predictor, name in PREDICTORS.items():
            cells = [
                ", ".join(
                    cell(
                        xr.DataArray([one["prediction"][task][predictor][key] for one in seeds], dims="seed")
                    )
                    for task in ("polarity", "gender")
                )
                for key in ("spearman", "median ratio")
            ]
            rows.append([setting, name, cells[0], cells[1] if predictor == "output change" else ""])
    return markdown(["setting", "predictor", "Spearman: polarity, gender", "size of the measured one"], rows)


def minilm_others(run: Path) -> str:
    """Merges by other programs beside ours."""
    lines = [json.loads(line) for line in (run / "others.jsonl").read_text().splitlines()]
    ours = accuracies(run, "two")
    rows = []
    for model in lines[0]["accuracy"]:
        tasks = lines[0]["accuracy"][model]
        cells = [
            cell(xr.DataArray([one["accuracy"][model][task] for one in lines], dims="seed")) for task in tasks
        ]
        rows.append([model, *cells])
    for model in ("sum", *(f"least squares, {count}" for count in (20, 200, 1000))):
        rows.append(
            [f"ours: {model}", *(cell(ours.sel(model=model, task=task)) for task in ("polarity", "gender"))]
        )
    return markdown(["merge", "polarity", "gender"], rows)


WRITERS = [minilm_two, minilm_adamw, minilm_four, minilm_differences, minilm_prediction, minilm_others]
