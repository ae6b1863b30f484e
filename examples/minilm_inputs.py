"""Merge fine-tuned MiniLM with some of their training texts at hand, and compare with merges by weights alone.

usage: python examples/minilm_inputs.py [--small] [--setting two|adamw|four] [--seeds N [N ...]] [--output FOLDER]

``two`` has the tasks and the training of ``examples/minilm.py``, without weight decay. ``adamw`` trains all of
their parameters but the head by AdamW, and ``four`` adds two tasks: whether a word is German or Dutch, and Spanish
or Italian. The merges are ``sum``, ``average``, ``scaled`` (with the coefficient that changes the outputs least on
200 training texts a task), ``least_squares`` and ``corrected_sum`` on 20, 200 and 1000 of them (20 and 200 with
four tasks), all without labels. Accuracies are on 1000 other texts. The predicted change of the output by each
matrix is compared with the measured one, on 200 of these. Each seed is kept in a folder of its own and not computed
again. ``--small`` takes a minute; its numbers mean nothing.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr
from transformers import AutoTokenizer

import minilm
import words
from decaymerge import store
from decaymerge.fetch.model import fetch_model
from decaymerge.statistics import interval


@dataclass(frozen=True)
class Setting:
    """Functions that give the labels of the words of each task, and how the networks are trained."""

    tasks: tuple[Callable[[], dict[str, int]], ...]
    adamw: bool = False
    counts: tuple[int, ...] = (20, 200, 1000)
    """Numbers of inputs of each task."""


SETTINGS = {
    "two": Setting((words.polarity, words.gender)),
    "adamw": Setting((words.polarity, words.gender), adamw=True),
    "four": Setting((words.polarity, words.gender, words.german, words.spanish), counts=(20, 200)),
}


def inputs(
    tasks: dict[str, minilm.Task], folder: Path, count: int, tokenizer: Any, *, test: bool
) -> list[str]:
    """Arguments ``--inputs`` with the first texts of each task, from their tokens."""
    arguments = []
    for name, task in tasks.items():
        tokens = (task.test if test else task.train)[0]["input_ids"][:count]
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        path = folder / f"{name}-{'test' if test else 'train'}-{count}.txt"
        path.write_text("".join(f"{text}\n" for text in texts))
        arguments += ["--inputs", f"{name}={path}"]
    return arguments


def run(folder: Path, setting: Setting, size: minilm.Size, seed: int) -> dict[str, Any]:
    """Accuracies of all merges, and rank correlations, of one seed."""
    source = fetch_model(minilm.MINILM, Path(os.environ.get("DECAYMERGE_CACHE", "resources")))
    base = folder / "base"
    minilm.make_base(source, base, seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tasks = {task.__name__: minilm.make_task(task(), tokenizer, size, seed) for task in setting.tasks}
    accuracy: dict[str, dict[str, float]] = {}

    def record(model: str, by_task: dict[str, float]) -> None:
        print(f"{model}: {by_task}", flush=True)
        accuracy[model] = by_task

    sources = [*(folder / name for name in tasks), "--base", base]

    def record_merge(model: str, *arguments: object) -> None:
        merged = minilm.merge(folder / model.replace(", ", "-").replace(" ", "_"), *sources, *arguments)
        record(model, {name: minilm.accuracy(merged, task) for name, task in tasks.items()})

    for name, task in tasks.items():
        minilm.fine_tune(base, folder / name, task, 0.0, size, seed, adamw=setting.adamw)
    record("own", {name: minilm.accuracy(minilm.load(folder / name), task) for name, task in tasks.items()})
    record_merge("sum")
    record_merge("average", "--method", "average")
    for count in (count for count in setting.counts if count <= size.train):
        given = inputs(tasks, folder, count, tokenizer, test=False)
        record_merge(f"least squares, {count}", "--method", "least_squares", *given)
        record_merge(f"corrected sum, {count}", "--method", "corrected_sum", *given)
        if count == 200:
            record_merge("scaled, 200", "--method", "scaled", "--coefficient", "auto", *given)
    given = inputs(tasks, folder, size.probe, tokenizer, test=True)
    minilm.merge(folder / "probed", *sources, *given, "--report", folder / "report.nc")
    return {
        "seed": seed,
        "size": asdict(size),
        "majority": {name: task.majority for name, task in tasks.items()},
        "accuracy": accuracy,
        "prediction": {name: predictions(folder, list(tasks), name, tasks[name], size) for name in tasks},
    }


def predictions(
    folder: Path, names: list[str], task: str, samples: minilm.Task, size: minilm.Size
) -> dict[str, dict[str, float]]:
    """Spearman's correlation of predicted and measured changes of the output, over matrices; and their ratio."""
    report = store.read(folder / "report.nc").sel(model=task)
    others = [folder / name for name in names if name != task]
    damage = minilm.damage(folder / task, others, folder / "base", samples, size.probe)
    measured = np.array([row["output"] for row in damage.values()])
    predictors = {
        "output change": report.output_change.sel(matrix=list(damage)).values,
        "action on inputs": report.action_on_inputs.sel(matrix=list(damage)).values,
        "norm of the update": np.array([row["norm"] for row in damage.values()]),
    }
    return {
        name: {
            "spearman": float(spearmanr(predicted, measured).statistic),
            "median ratio": float(np.median(predicted / measured)),
        }
        for name, predicted in predictors.items()
    }


def shown(values: xr.DataArray) -> str:
    """Mean over seeds with its 95% interval, if there is more than one seed."""
    result = interval(values)
    half = f" ± {float(result.high - result['mean']):.3f}" if int(result.n) > 1 else ""
    return f"{float(result['mean']):.3f}{half}"


def summary(results: list[dict[str, Any]]) -> str:
    """Tables of all seeds, in Markdown."""
    models, tasks = list(results[0]["accuracy"]), list(results[0]["majority"])
    cells = [[[one["accuracy"][model][task] for task in tasks] for model in models] for one in results]
    accuracy = xr.DataArray(cells, dims=("seed", "model", "task"), coords={"model": models, "task": tasks})
    mean = accuracy.mean("task").expand_dims(task=["mean"])
    accuracy = xr.concat([accuracy, mean.transpose(*accuracy.dims)], "task")
    columns = [*tasks, "mean"]
    tables = {"accuracy": accuracy, "share of own": accuracy / accuracy.sel(model="own")}
    for method in ("least squares, 200", "corrected sum, 200"):
        tables[f"{method}, minus this"] = accuracy.sel(model=method) - accuracy
    lines = []
    for name, values in tables.items():
        lines += [f"| {name} | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
        for model in models:
            cells_of = [shown(values.sel(model=model, task=task)) for task in columns]
            lines.append(f"| {model} | {' | '.join(cells_of)} |")
        lines.append("")
    for quantity in ("spearman", "median ratio"):
        lines += [f"| {quantity} | {' | '.join(tasks)} |", f"|{' --- |' * (len(tasks) + 1)}"]
        for predictor in results[0]["prediction"][tasks[0]]:
            by_task = [[one["prediction"][task][predictor][quantity] for one in results] for task in tasks]
            cells_of = [shown(xr.DataArray(column, dims="seed")) for column in by_task]
            lines.append(f"| {predictor} | {' | '.join(cells_of)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the seeds that are missing, and print the tables of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="run for a minute, to see that the script works")
    parser.add_argument("--setting", choices=SETTINGS, default="two", help="tasks and training")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of split, head, minibatches"
    )
    parser.add_argument("--output", type=Path, default=Path("results/minilm-inputs"), help="folder to write")
    arguments = parser.parse_args()
    size = replace(minilm.SMALL, train=200, epochs=1) if arguments.small else minilm.Size()
    results = []
    for seed in arguments.seeds:
        folder = arguments.output / f"{arguments.setting}-{seed}"
        path = folder / "results.json"
        if not path.is_file():
            if folder.is_dir() and any(folder.iterdir()):
                sys.exit(f"error: {folder} has an unfinished run; remove it, or give another --output")
            start = time.perf_counter()
            result = run(folder, SETTINGS[arguments.setting], size, seed)
            result["seconds"] = round(time.perf_counter() - start)
            path.write_text(json.dumps(result, indent=2) + "\n")
        results.append(json.loads(path.read_text()))
        if results[-1]["size"] != json.loads(json.dumps(asdict(size))):
            sys.exit(f"error: {path} is of another size; remove it, or give another --output")
    print(summary(results))


if __name__ == "__main__":
    main()
