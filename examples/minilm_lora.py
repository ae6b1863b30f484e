"""Fine-tune MiniLM by LoRA at several ranks, merge the adapters, and draw what rank and decay do to the merge.

usage: python examples/minilm_lora.py [--small] [--seeds N [N ...]] [--output FOLDER]

The tasks are those of ``examples/minilm.py``. Adapters of all matrices of the encoder and the pooler, with α = 2 r,
are trained by AdamW, whose decay λ acts on both factors. They are merged by ``sum``, and by ``least_squares`` and
``corrected_sum`` on 200 training texts of each task, without labels. Accuracies are on 1000 other texts, and
changes of the outputs on 200 of them. Each network is kept and not computed again. ``--small`` takes a minute; its
numbers mean nothing.
"""

import argparse
import json
import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
import xarray as xr
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import softplus
from transformers import AutoTokenizer

import minilm
import words
from decaymerge import store
from decaymerge.fetch.model import fetch_model
from decaymerge.statistics import interval
from minilm_inputs import inputs

RANKS = (1, 2, 4, 8, 16, 32)
DECAYS = (0.0, 10.0)
STEP_SIZE = 1e-3
TASKS = {"polarity": words.polarity, "gender": words.gender}
WITH_INPUTS = ("least_squares", "corrected_sum")
COUNT = 200
"""Number of inputs of each task."""


def fine_tune(
    base: Path, output: Path, task: minilm.Task, rank: int, decay: float, size: minilm.Size, seed: int
) -> None:
    """Train an adapter of the base, and save it."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "key", "value", "dense"])
    network: Any = get_peft_model(minilm.load(base), config)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=STEP_SIZE, weight_decay=decay)
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = task.train
    for _ in range(size.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(size.batch):
            loss = softplus(-labels[rows] * minilm.outputs(network, tokens, rows)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    network.save_pretrained(output)


def own(base: Path, adapter: Path) -> Any:
    """The network of an adapter."""
    return PeftModel.from_pretrained(minilm.load(base), adapter).eval()


def run(folder: Path, rank: int, decay: float, size: minilm.Size, seed: int) -> list[dict[str, Any]]:
    """A row for each task, of one rank, λ and seed."""
    source = fetch_model(minilm.MINILM, Path(os.environ.get("DECAYMERGE_CACHE", "resources")))
    base = folder / "base"
    minilm.make_base(source, base, seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tasks = {name: minilm.make_task(labels(), tokenizer, size, seed) for name, labels in TASKS.items()}
    for name, task in tasks.items():
        fine_tune(base, folder / name, task, rank, decay, size, seed)
    sources = [*(folder / name for name in tasks), "--base", base]
    train = inputs(tasks, folder, min(COUNT, size.probe), tokenizer, test=False)
    total = minilm.merge(folder / "sum", *sources, "--report", folder / "weights.nc")
    merged = {
        method: minilm.merge(folder / method, *sources, "--method", method, *train) for method in WITH_INPUTS
    }
    weights = store.read(folder / "weights.nc")
    changed = weights.frobenius_norm.min("model") > 0
    rows = []
    for name, task in tasks.items():
        network = own(base, folder / name)
        before = minilm.evaluate(network, task.test, size.probe)
        after = minilm.evaluate(total, task.test, size.probe)
        rows.append(
            {
                "rank": rank,
                "weight_decay": decay,
                "seed": seed,
                "task": name,
                "own": minilm.accuracy(network, task),
                "sum": minilm.accuracy(total, task),
                **{method: minilm.accuracy(one, task) for method, one in merged.items()},
                "change": float((after - before).abs().mean() / before.abs().mean()),
                "interference": float(weights.interference.where(changed).sel(model=name).median()),
                "stable rank": float(weights.stable_rank.where(changed).sel(model=name).median()),
                "norm": float(weights.frobenius_norm.where(changed).sel(model=name).median()),
            }
        )
    for path in ("sum", *WITH_INPUTS):
        shutil.rmtree(folder / path)
    return rows


def interval_of(values: pd.Series) -> tuple[float, float]:
    """Both ends of the 95% interval over seeds, by Student's t."""
    ends = interval(xr.DataArray(values, dims="seed"))
    return float(ends.low), float(ends.high)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Means over tasks and seeds against the rank, with 95% intervals over seeds."""
    networks = ["own", "sum", *WITH_INPUTS]
    titles = {
        "stable rank": "stable rank of the updates, median",
        "interference": r"$\|\Delta_B V_A\|\,/\,\|\Delta_A V_A\|$, median",
        "change": "change of the outputs by the sum",
    }
    means = rows.groupby(["rank", "weight_decay", "seed"], as_index=False)[[*networks, *titles]].mean()
    means["λ"] = means.weight_decay.map("{:g}".format)
    long = means.melt(["rank", "λ", "seed"], networks, "network", "accuracy")
    long["network"] = long.network.str.replace("_", " ")
    sns.set_theme(style="whitegrid", context="paper")
    figure, axes = plt.subplot_mosaic("AABBCC;DDDEEE", figsize=(9, 5), layout="constrained")
    common: dict[str, Any] = {
        "x": "rank",
        "errorbar": interval_of,
        "dodge": 0.4,
        "linewidth": 1.2,
        "markersize": 4,
    }
    for place, (quantity, title) in zip("ABC", titles.items(), strict=True):
        sns.pointplot(
            means, y=quantity, hue="λ", palette="Greys_d", ax=axes[place], legend=place == "A", **common
        )
        axes[place].set(title=title, ylabel="", xlabel="rank of the adapters")
    axes["E"].sharey(axes["D"])
    for place, (decay, part) in zip("DE", long.groupby("λ"), strict=True):
        sns.pointplot(part, y="accuracy", hue="network", ax=axes[place], legend=place == "D", **common)
        axes[place].set(
            title=f"accuracy on test texts, λ = {decay}", ylabel="", xlabel="rank of the adapters"
        )
    sns.move_legend(axes["D"], "lower center", ncols=4, title=None, columnspacing=1)
    figure.savefig(path.with_suffix(".pdf"))
    figure.savefig(path.with_suffix(".png"), dpi=150)


def main() -> None:
    """Run what is missing, and draw all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="run for a minute, to see that the script works")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of split, head, minibatches"
    )
    parser.add_argument("--output", type=Path, default=Path("results/minilm-lora"), help="folder to write")
    arguments = parser.parse_args()
    size = replace(minilm.SMALL, train=200, epochs=1) if arguments.small else minilm.Size()
    output = arguments.output / "small" if arguments.small else arguments.output
    rows = []
    for seed, decay, rank in product(arguments.seeds, DECAYS, RANKS[1:2] if arguments.small else RANKS):
        folder = output / f"rank={rank}-weight_decay={decay:g}-seed={seed}"
        path = folder / "results.json"
        if not path.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            results = run(folder, rank, decay, size, seed)
            path.write_text(json.dumps(results, indent=2) + "\n")
        rows += json.loads(path.read_text())
        print(pd.DataFrame(rows[-2:]).to_string(index=False, float_format="{:.3f}".format), flush=True)
    (output / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    draw(pd.DataFrame(rows), output / "adapters")


if __name__ == "__main__":
    main()
