"""Measure time and memory of merges of a language model of random weights, whole and as adapters.

usage: python benchmarks/merges.py [--layers N] [--width N] [--dtype DTYPE] [--cases NAME [NAME ...]]
                                   [--folder FOLDER]

The model is a Llama of 22 layers and width 2048, which has 1.1 B parameters. ``--folder`` keeps it, and its
fine-tuned copies, for the next time. Each case is a process of its own. Beside its time stand the time of reading
the files that it reads, and its largest memory: in all, and without pages of files, which the system can take back.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

COMMAND = Path(sys.executable).with_name("decaymerge")
RANK = 16
INPUTS = 20
"""Inputs of each task."""
LENGTH = 32
"""Tokens of each input."""


class Case(NamedTuple):
    """A merge, and the folders that it reads."""

    reads: tuple[str, ...]
    arguments: tuple[str, ...]


WHOLE, ADAPTERS = ("base", "a", "b"), ("base", "lora-a", "lora-b")
GIVEN = ("--inputs", "a=a.npz", "--inputs", "b=b.npz")
CASES = {
    "adapters": Case(ADAPTERS, ("--no-predict",)),
    "adapters, predicted": Case(ADAPTERS, ()),
    "adapters, as adapter": Case(ADAPTERS, ("--no-predict", "--as-adapter")),
    "sum": Case(WHOLE, ("--no-predict",)),
    "sum, predicted": Case(WHOLE, ()),
    "sum, in files of 100 MB": Case(WHOLE, ("--no-predict", "--max-shard-size", "100MB")),
    "least squares": Case(WHOLE, (*GIVEN, "--method", "least_squares", "--max-shard-size", "100MB")),
    "corrected sum": Case(WHOLE, (*GIVEN, "--method", "corrected_sum", "--max-shard-size", "100MB")),
}


def make_models(folder: Path, layers: int, width: int, dtype: str) -> None:
    """The base, two copies with noise on every tensor, two adapters, and inputs."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=4,
    )
    base: Any = hf.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    base.save_pretrained(folder / "base")
    for name in "ab":
        tokens = torch.randint(0, 32000, (INPUTS, LENGTH))
        np.savez(folder / f"{name}.npz", input_ids=tokens, attention_mask=torch.ones_like(tokens))
        adapted: Any = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.02)
        adapted.save_pretrained(folder / f"lora-{name}")
        base = adapted.unload()
    for name in "ab":
        with torch.no_grad():
            for parameter in base.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)
        base.save_pretrained(folder / name)


def kilobytes(status: str, key: str) -> int:
    """A line of ``/proc/PID/status``."""
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(key)), 0)


def peaks_of(process: subprocess.Popen[str]) -> Iterator[tuple[int, int]]:
    """Kilobytes that a process has, in all and without pages of files, every 20 ms until it ends."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        yield kilobytes(status, "VmHWM:"), kilobytes(status, "RssAnon:")
        time.sleep(0.02)


def processor_seconds() -> float:
    """Of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(folder: Path, case: Case) -> str:
    """One row: seconds, processor seconds, seconds of reading alone, size of the files, and both peaks."""
    files = [path for name in case.reads for path in (folder / name).glob("*.safetensors")]
    start = time.perf_counter()
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    reading = time.perf_counter() - start
    output = folder / "merged"
    models = [*case.reads[1:], "--base", "base", "--output", "merged"]
    start, before = time.perf_counter(), processor_seconds()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [COMMAND, "merge-checkpoints", *models, *case.arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            text=True,
        )
        peaks = [max(column) / 1e6 for column in zip(*peaks_of(process), strict=True)]
        wall, processor = time.perf_counter() - start, processor_seconds() - before
        log.seek(0)
        assert process.returncode == 0, log.read()
    shutil.rmtree(output)
    size = sum(path.stat().st_size for path in files) / 1e9
    return (
        f"{wall:6.1f} s{processor:9.1f} s{reading:9.1f} s{size:9.2f} GB{peaks[0]:9.2f} GB{peaks[1]:9.2f} GB"
    )


def main() -> None:
    """Make what is missing, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--folder", type=Path, help="keep the models here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if not (folder / "b").is_dir():
            make_models(folder, arguments.layers, arguments.width, arguments.dtype)
        print(f"{'':26}{'time':>8}{'processor':>11}{'cat':>11}{'files':>12}{'memory':>12}{'anonymous':>12}")
        for name in arguments.cases:
            print(f"{name:26}{measure(folder, CASES[name])}", flush=True)


if __name__ == "__main__":
    main()
