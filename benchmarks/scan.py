"""Compare speed and memory of scans with other programs and with goals, in one run.

usage: python benchmarks/scan.py PYTHON_WITH_WEIGHTWATCHER [--small]

Each process has one thread, except the scan of GPT-J, which uses all cores. ``--small`` makes the synthetic GPT-J
tiny: it shows that the benchmark works.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from comparison import HERE, ONE_THREAD, Row, medians, on_one_thread, row, seconds, show
from decaymerge.checkpoint import Checkpoint
from decaymerge.config.scan import ScanModel
from decaymerge.fetch.model import fetch_model
from decaymerge.scan.plan import make_plan
from decaymerge.scan.spectral import frobenius_norm, spectral_norm

MEMORY_GB, SECONDS = 2.0, 900.0
"""Goals of the scan of a full-size GPT-J."""


def mpnet(other_python: str) -> list[Row]:
    """Scan of MPNet's 72 matrices, against WeightWatcher, and against reading them with their Frobenius norms."""
    models = yaml.safe_load((HERE.parent / "config/registry-models.yaml").read_text())["scan"]["models"]
    cache = Path(os.environ.get("DECAYMERGE_CACHE", HERE.parent / "resources"))
    folder = fetch_model(ScanModel.model_validate(models["mpnet"]), cache)
    names = [
        name
        for group in make_plan(Checkpoint(folder)).groups
        for part in group.parts.values()
        for name in part
    ]
    assert len(names) == 72
    ranks: list[float] = []

    def read() -> None:
        checkpoint = Checkpoint(folder)
        for name in names:
            frobenius_norm(checkpoint.read([name]))

    def scan() -> None:
        checkpoint = Checkpoint(folder)
        ranks.clear()
        for name in names:
            matrix = checkpoint.read([name])
            frobenius = frobenius_norm(matrix)
            ranks.append((frobenius / spectral_norm(matrix, frobenius).value) ** 2)

    read_time, scan_time = medians(lambda: seconds(read), lambda: seconds(scan))
    request = json.dumps({"file": str(folder / "model.safetensors"), "names": names})
    done = subprocess.run(
        [other_python, str(HERE / "weightwatcher_scan.py")],
        input=request,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    other = json.loads(done.stdout.splitlines()[-1])
    largest = max(abs(a / b - 1) for a, b in zip(ranks, other["stable_rank"], strict=True))
    assert largest < 1e-4, f"stable ranks differ by {largest}"
    return [
        row(
            "scan of MPNet's 72 matrices",
            other["seconds"] / scan_time,
            f"WeightWatcher {other['version']} analyze(), once, with its fits, {other['seconds']:.2f} s against"
            f" {scan_time:.3f} s, stable ranks equal to {largest:.1e}",
            "a full decomposition of each matrix",
            20,
        ),
        row(
            "scan of MPNet's 72 matrices",
            read_time / scan_time,
            f"reading each once and its Frobenius norm, {read_time:.3f} s",
            "1, where only reading takes time",
            0.25,
        ),
    ]


def write_gpt_j(folder: Path, layers: int, width: int, feed_forward: int) -> int:
    """Write random GPT-J weights in fp16, a file for each layer, and return their size in bytes."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"attn.{name}": (width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    shapes |= {"mlp.fc_in": (feed_forward, width), "mlp.fc_out": (width, feed_forward)}
    weight_map: dict[str, str] = {}
    for layer in range(layers):
        tensors = {
            f"transformer.h.{layer}.{name}.weight": torch.randn(shape, generator=generator).mul_(0.02).half()
            for name, shape in shapes.items()
        }
        file = f"model-{layer + 1:05}-of-{layers:05}.safetensors"
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sum(file.stat().st_size for file in folder.iterdir())


def scan_time_and_peak(folder: Path) -> tuple[float, float]:
    """Seconds, and peak resident memory in GB, of ``decaymerge scan`` in its own process, on all cores."""
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [
        str(Path(sys.executable).parent / "decaymerge"),
        "scan",
        f"path:{folder}",
        "--max-memory",
        "2GB",
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    exit_code, kilobytes = map(int, done.stdout.split())
    assert exit_code == 0
    return time.perf_counter() - start, kilobytes * 1024 / 1e9


def gpt_j(small: bool) -> list[Row]:
    """Peak memory and time of the scan of a synthetic GPT-J, and the peak's growth with the number of layers."""
    width, feed_forward = (64, 256) if small else (4096, 16384)
    peaks, scan_time, size = {}, 0.0, 0
    for layers in (7, 28):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
            size = write_gpt_j(Path(scratch), layers, width, feed_forward)
            scan_time, peaks[layers] = scan_time_and_peak(Path(scratch))
        print(
            f"GPT-J with {layers} layers: {size / 1e9:.2f} GB, {scan_time:.0f} s, peak {peaks[layers]:.2f} GB",
            flush=True,
        )
    suffix = " (small)" if small else ""
    return [
        row(
            f"peak memory of a full-size GPT-J{suffix}",
            MEMORY_GB / peaks[28],
            f"{MEMORY_GB:g} GB; {peaks[28]:.2f} GB for {size / 1e9:.1f} GB of fp16 weights",
            "two matrices at once, as stored",
            1,
        ),
        row(
            f"time of a full-size GPT-J{suffix}",
            SECONDS / scan_time,
            f"{SECONDS:g} s; {scan_time:.0f} s on {os.cpu_count()} cores",
            "random matrices have no gap: some forty passes over memory each",
            1,
        ),
        row(
            f"peak memory of 7 layers{suffix}",
            peaks[7] / peaks[28],
            f"28 layers: {peaks[7]:.2f} GB and {peaks[28]:.2f} GB",
            "1, where the peak does not grow",
            0.95,
        ),
    ]


def main() -> None:
    """Run all comparisons, print them as a table and write them to ``scan.json``."""
    on_one_thread()
    small = "--small" in sys.argv
    rows = [*mpnet(sys.argv[1]), *gpt_j(small)]
    show(rows, None if small else "scan")


if __name__ == "__main__":
    main()
