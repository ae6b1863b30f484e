"""The examples: the minimal one prints the workflow's numbers, that on real checkpoints runs, learns and merges."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr
import yaml
from transformers import BertForSequenceClassification

from commands import decaymerge
from conftest import CACHE, REPOSITORY
from decaymerge import store
from decaymerge.config import Config, parse
from decaymerge.workflow import jobs

MINIMAL = (REPOSITORY / "examples/minimal.py").read_text()
STEPS = 6000
TOLERANCE = 0.01
"""Relative, of losses after 6000 float32 steps (0.0024 here): rounding differs, and grows at the kinks of ReLU."""

Numbers = dict[tuple[str, str], tuple[float, float]]
"""Loss and error by task and network."""


def minimal_numbers(steps: int) -> Numbers:
    """What the example prints when it takes this many steps."""
    program = MINIMAL.replace(f", {STEPS}, ", f", {steps}, ")
    assert program.count(f", {steps}, ") == 1
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    printed = re.findall(r"task (\w), (\w+): loss ([\d.]+), error ([\d.]+)%", done.stdout)
    return {(task, name): (float(loss), float(error) / 100) for task, name, loss, error in printed}


def configuration(steps: int) -> Config:
    """``independent`` of the default configuration, seed 0 alone."""
    raw = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())["experiments"]["independent"]
    assert raw["training"]["steps"] == STEPS
    raw["training"]["steps"] = steps
    return parse({"experiments": {"independent": raw | {"seeds": 1}}})


def run(*arguments: object) -> None:
    done = decaymerge(*arguments)
    assert done.returncode == 0, done.stderr


def workflow_evaluation(steps: int, folder: Path) -> xr.Dataset:
    """Losses and errors at the last step, by the commands of the workflow's jobs."""
    config, place = configuration(steps), {"experiment": "independent", "block": "0-0"}
    decay = place | {"weight_decay": "0.001"}
    data, own = {}, {}
    for task in "ab":
        data[task], own[task] = folder / f"tasks_{task}.nc", folder / f"own_{task}.nc"
        drawing = jobs.TasksJob.of(config, task=task, **place)
        run("tasks", data[task], "--settings", drawing.model_dump_json())
        training = jobs.TrainJob.of(config, task=task, **decay)
        run("train", data[task], own[task], "--settings", training.model_dump_json())
    merged, evaluated = folder / "merged.nc", folder / "evaluated.nc"
    merging = jobs.MergeJob.of(config, merge_set="a+b", **decay)
    run("merge", merged, *own.values(), "--settings", merging.model_dump_json())
    files = [f"--{kind}={path}" for kind, paths in (("tasks", data), ("own", own)) for path in paths.values()]
    evaluation = jobs.EvaluateJob.of(config, merge_set="a+b", **decay)
    run("evaluate", evaluated, *files, f"--merged={merged}", "--settings", evaluation.model_dump_json())
    return store.read(evaluated).isel(step=-1, seed=0)


@pytest.mark.parametrize("steps", [200, pytest.param(STEPS, marks=pytest.mark.slow)])
def test_minimal_numbers_are_the_workflows(steps: int, tmp_path: Path) -> None:
    printed, evaluation = minimal_numbers(steps), workflow_evaluation(steps, tmp_path)
    assert set(printed) == {(task, name) for task in "ab" for name in ("own", "sum")}
    for (task, name), (loss, error) in printed.items():
        expected = evaluation.sel(task=task, model=name)
        assert np.isclose(loss, float(expected.loss), rtol=TOLERANCE), (task, name)
        assert np.isclose(error, float(expected.error), atol=1.01 / 300), (task, name)


def test_minimal_stays_minimal() -> None:
    lines = MINIMAL.splitlines()
    assert len(lines) <= 60 and not any("decaymerge." in line for line in lines if "import" in line)


@pytest.mark.slow
def test_minilm(tmp_path: Path) -> None:
    """Small: its numbers mean nothing."""
    arguments = [sys.executable, str(REPOSITORY / "examples/minilm.py"), "--small", "--output", str(tmp_path)]
    environment = os.environ | {"DECAYMERGE_CACHE": str(CACHE)}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["model"]: row for row in results["accuracy"]}
    assert set(rows) == {"base", "own (polarity)", "own (gender)", "sum", "average", "scaled=0.7"}
    for task, majority in results["majority"].items():
        assert rows[f"own ({task})"][task] > max(majority, 1 - majority)
    ranks = results["rank_correlation"]
    assert len(ranks) == 2 * 5 * 2 and all(row["matrices"] == 37 for row in ranks)
    assert all(math.isfinite(row["spearman"]) for row in ranks)
    network, loaded = cast(
        tuple[BertForSequenceClassification, dict[str, Any]],
        BertForSequenceClassification.from_pretrained(
            tmp_path / "weight_decay=0.01/sum", output_loading_info=True
        ),
    )
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"] and network.config.num_labels == 1


@pytest.mark.slow
def test_minilm_with_inputs(tmp_path: Path, setting: str = "four") -> None:
    """Small: of its numbers, the prediction by inputs means something, as it needs no trained network."""
    script = REPOSITORY / "examples/minilm_inputs.py"
    command = [sys.executable, str(script), "--small", "--setting", setting, "--seeds", "0"]
    environment = os.environ | {"DECAYMERGE_CACHE": str(CACHE)}
    arguments = [*command, "--output", str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / f"{setting}-0/results.json").read_text())
    merges = {"sum", "average", "scaled, 200"}
    merges |= {f"{method}, {count}" for method in ("least squares", "corrected sum") for count in (20, 200)}
    assert set(results["accuracy"]) == merges | {"own"}
    assert all(f"| {model} |" in done.stdout for model in merges)
    for prediction in results["prediction"].values():
        assert prediction["output change"]["spearman"] > 0.95
        assert prediction["output change"]["median ratio"] == pytest.approx(1, abs=0.1)
    again = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]  # from what is kept


@pytest.mark.slow
def test_minilm_with_adapters(tmp_path: Path) -> None:
    """Small: ranks, and norms that follow from them, mean something, and so does what the second start keeps."""
    command = [sys.executable, str(REPOSITORY / "examples/minilm_lora.py"), "--small", "--seeds", "0"]
    environment = os.environ | {"DECAYMERGE_CACHE": str(CACHE)}
    arguments = [*command, "--output", str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "small/results.json").read_text())
    assert [(row["rank"], row["weight_decay"]) for row in rows[::2]] == [(2, 0), (2, 10)]
    for row in rows:
        assert 1 <= row["stable rank"] <= row["rank"]
        assert row["norm"] > 0 and 0 < row["change"] < 10
    by_decay = [sum(row["norm"] for row in rows if row["weight_decay"] == decay) for decay in (0, 10)]
    assert by_decay[1] < by_decay[0]
    assert (tmp_path / "small/adapters.png").stat().st_size > 10_000
    assert (
        subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment).returncode
        == 0
    )
    assert json.loads((tmp_path / "small/results.json").read_text()) == rows
