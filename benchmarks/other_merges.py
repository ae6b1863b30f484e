"""Merges by other programs of the checkpoints that ``examples/minilm_inputs.py`` has made, and their accuracies.

usage: python benchmarks/other_merges.py results/minilm-inputs/two-1 [FOLDER ...]

mergekit's task arithmetic stands beside the sum, and FusionBench's RegMean beside least squares, on the same texts.
RegMean averages whole matrices, and everything that is no matrix; it has no base and no ridge, and takes the inputs
of padding too. It runs in float64: in float32 its pooler is NaN, as two of the pooler's inputs are 1e-32. The
environment is one of its own: ``pip install -r benchmarks/requirements-merges.txt``, then ``pip install --no-deps
-e .``.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from fusion_bench.method.regmean.regmean import regmean_merging
from safetensors.torch import load_file
from transformers import AutoTokenizer, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import minilm
import minilm_inputs

SHARE_KEPT = 0.9
"""Of the Gram matrices' entries beside the diagonal, as RegMean's authors keep for BERT."""
BATCH = 20


def task_arithmetic(folder: Path, names: list[str]) -> Path:
    """BASE + Σ (W_i - BASE) by mergekit."""
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / name), "parameters": {"weight": 1.0}} for name in names],
        "parameters": {"normalize": False},
        "dtype": "float32",
    }
    output = folder / "mergekit"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [str(Path(sys.executable).parent / "mergekit-yaml"), file.name, str(output), "--quiet"]
        subprocess.run(command, check=True)
    return output


def largest_deviation(first: Path, second: Path) -> float:
    """Of any entry of two checkpoints with the same tensors."""
    one, other = (load_file(path / "model.safetensors") for path in (first, second))
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class Texts(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Tokens of lines of text."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        self.tokens = tokenizer(path.read_text().splitlines(), padding=True, return_tensors="pt")

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[row] for name, values in self.tokens.items()}


def regmean(folder: Path, names: list[str], count: int) -> Any:
    """The network that FusionBench's RegMean makes of the first texts of each task."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    models = [minilm.load(folder / name).double() for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(scratch, per_device_train_batch_size=BATCH, use_cpu=True, report_to=[])
        texts = [Texts(folder / f"{name}-train-{count}.txt", tokenizer) for name in names]
        trainers = [
            Trainer(model=model, args=arguments, train_dataset=one)
            for model, one in zip(models, texts, strict=True)
        ]
        merged = regmean_merging(models, trainers, [], [count] * len(names), SHARE_KEPT)
    network = minilm.load(folder / "base")
    network.load_state_dict(merged, strict=False)
    return network


def main() -> None:
    """Print accuracies and deviations of each folder."""
    for folder in map(Path, sys.argv[1:]):
        results = json.loads((folder / "results.json").read_text())
        setting = minilm_inputs.SETTINGS[folder.name.rpartition("-")[0]]
        size = minilm.Size(**dict(results["size"].items()))
        tokenizer = AutoTokenizer.from_pretrained(folder / "base")
        tasks = {
            task.__name__: minilm.make_task(task(), tokenizer, size, results["seed"])
            for task in setting.tasks
        }
        output = task_arithmetic(folder, list(tasks))
        networks = {"mergekit": minilm.load(output)}
        for count in setting.counts:
            networks[f"RegMean, {count}"] = regmean(folder, list(tasks), count)
        accuracy = {
            model: {name: minilm.accuracy(network, task) for name, task in tasks.items()}
            for model, network in networks.items()
        }
        deviation = largest_deviation(output, folder / "sum")
        row = {"folder": folder.name, "sum and mergekit": deviation, "accuracy": accuracy}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
