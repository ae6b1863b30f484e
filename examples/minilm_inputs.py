"""Merge two fine-tuned MiniLM with some of their training texts at hand, and compare with merges by weights alone.

usage: python examples/minilm_inputs.py [--small] [--output FOLDER] [--seed N]

Tasks and training are those of ``examples/minilm.py``, without weight decay. The merges are ``sum``, ``average``,
``scaled`` (with the coefficient that is best on the inputs), and ``least_squares`` on 20, 200 and 1000 training
texts of each task, without labels. Accuracies are on 1000 other texts. The predicted change of the output by each
matrix is compared with the measured one, on 200 of these. ``--small`` takes a minute; its numbers mean nothing.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from transformers import AutoTokenizer

import minilm
from decaymerge import store
from decaymerge.fetch.model import fetch_model

COUNTS = (20, 200, 1000)


def write_texts(
    task: minilm.Task, folder: Path, name: str, count: int, tokenizer: Any, *, test: bool
) -> Path:
    """The first texts of a task as lines, from their tokens."""
    tokens = (task.test if test else task.train)[0]["input_ids"][:count]
    path = folder / f"{name}-{'test' if test else 'train'}-{count}.txt"
    path.write_text("".join(f"{text}\n" for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)))
    return path


def run(folder: Path, size: minilm.Size, seed: int) -> dict[str, Any]:
    """Accuracies of all merges, and rank correlations, of one seed."""
    source = fetch_model(minilm.MINILM, Path(os.environ.get("DECAYMERGE_CACHE", "resources")))
    base = folder / "base"
    minilm.make_base(source, base, seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    labels = {"polarity": minilm.polarity(), "gender": minilm.gender()}
    tasks = {name: minilm.make_task(texts, tokenizer, size, seed) for name, texts in labels.items()}
    accuracies: list[dict[str, Any]] = []

    def record(model: str, network: Any) -> None:
        by_task = {name: minilm.accuracy(network, task) for name, task in tasks.items()}
        print(f"{model}: {by_task}", flush=True)
        accuracies.append({"model": model, **by_task})

    for name, task in tasks.items():
        minilm.fine_tune(base, folder / name, task, 0.0, size, seed)
    own = {name: minilm.accuracy(minilm.load(folder / name), task) for name, task in tasks.items()}
    accuracies.append({"model": "own", **own})
    sources = [*(folder / name for name in tasks), "--base", base]
    record("sum", minilm.merge(folder / "sum", *sources))
    record("average", minilm.merge(folder / "average", *sources, "--method", "average"))
    for count in (count for count in COUNTS if count <= size.train):
        texts = {n: write_texts(task, folder, n, count, tokenizer, test=False) for n, task in tasks.items()}
        given = [argument for name, path in texts.items() for argument in ("--inputs", f"{name}={path}")]
        options = ["--method", "least_squares", *given]
        record(f"least squares, {count}", minilm.merge(folder / f"least_squares={count}", *sources, *options))
        if count == 200:
            options = ["--method", "scaled", "--coefficient", "auto", *given]
            record(f"scaled, {count}", minilm.merge(folder / f"scaled={count}", *sources, *options))
    return {
        "seed": seed,
        "size": asdict(size),
        "accuracy": accuracies,
        "rank_correlation": correlations(folder, sources, tasks, size, tokenizer),
    }


def correlations(
    folder: Path, sources: list[Any], tasks: dict[str, minilm.Task], size: minilm.Size, tokenizer: Any
) -> list[dict[str, Any]]:
    """Spearman's correlation of predicted and measured changes of the output, over matrices; and their ratio."""
    texts = {n: write_texts(task, folder, n, size.probe, tokenizer, test=True) for n, task in tasks.items()}
    given = [argument for name, path in texts.items() for argument in ("--inputs", f"{name}={path}")]
    minilm.merge(folder / "probe", *sources, *given, "--report", folder / "inputs.nc")
    minilm.merge(folder / "probe-weights", *sources, "--report", folder / "weights.nc")
    report, weights = store.read(folder / "inputs.nc"), store.read(folder / "weights.nc")
    rows = []
    for task, other in (list(tasks), list(tasks)[::-1]):
        measured = minilm.damage(folder / task, folder / other, folder / "base", tasks[task], size.probe)
        matrices = list(measured)
        change = np.array([measured[name]["output"] for name in matrices])
        predictors = {
            "output_change": report.output_change.sel(model=task),
            "action_on_inputs": report.action_on_inputs.sel(model=task),
            "frobenius_norm": weights.frobenius_norm.sel(model=other),
        }
        for name, values in predictors.items():
            predicted = values.sel(matrix=matrices).values
            row = {"task": task, "predictor": name, "spearman": float(spearmanr(predicted, change).statistic)}
            rows.append(row | {"median_ratio": float(np.median(predicted / change))})
    return rows


def main() -> None:
    """Run the example, print its numbers, and write them to ``results.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="run for a minute, to see that the script works")
    parser.add_argument("--output", type=Path, default=Path("results/minilm-inputs"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the head and the minibatches")
    arguments = parser.parse_args()
    if arguments.output.is_dir() and any(arguments.output.iterdir()):
        sys.exit(f"error: --output {arguments.output} is not empty; give another folder, or remove it")
    size = replace(minilm.SMALL, train=200, epochs=1) if arguments.small else minilm.Size()
    start = time.perf_counter()
    results = run(arguments.output, size, arguments.seed)
    results["seconds"] = round(time.perf_counter() - start)
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for row in results["rank_correlation"]:
        print(row)
    print(f"{arguments.output / 'results.json'}, {results['seconds']} s")


if __name__ == "__main__":
    main()
