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
import yaml
from transformers import BertForSequenceClassification

from conftest import CACHE, REPOSITORY
from decaymerge import store
from decaymerge.config import check
from decaymerge.config.experiment import Experiment
from decaymerge.workflow import jobs

TOLERANCE = 0.01
"""Relative, of losses after 6000 float32 steps (0.0024 here): rounding differs, and grows at the kinks of ReLU."""


@pytest.fixture(scope="module")
def printed() -> dict[tuple[str, str], tuple[float, float]]:
    """Loss and error by task and network."""
    path = REPOSITORY / "examples/minimal.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    found = re.findall(r"task (\w), (\w+): loss ([\d.]+), error ([\d.]+)%", done.stdout)
    return {(task, name): (float(loss), float(error) / 100) for task, name, loss, error in found}


def command(*arguments: object) -> None:
    subprocess.run(
        [Path(sys.executable).parent / "decaymerge", *map(str, arguments)], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """``independent`` of the default configuration, seed 0 alone."""
    raw = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())["experiments"]["independent"]
    return check({"experiments": {"independent": raw | {"seeds": 1}}}).experiments["independent"]


def test_minimal_numbers_are_the_workflows(
    printed: dict[tuple[str, str], tuple[float, float]], experiment: Experiment, tmp_path: Path
) -> None:
    data, own = {}, {}
    for task in "ab":
        data[task], own[task] = tmp_path / f"tasks_{task}.nc", tmp_path / f"own_{task}.nc"
        settings = jobs.tasks_job("independent", experiment, task, "0-0")
        command("tasks", data[task], "--settings", settings.model_dump_json())
        training = jobs.train_job("independent", experiment, task, "0.001")
        command("train", data[task], own[task], "--settings", training.model_dump_json())
    merged, evaluated = tmp_path / "merged.nc", tmp_path / "evaluated.nc"
    command("merge", merged, *own.values(), "--settings", jobs.merge_job(experiment).model_dump_json())
    files = [f"--{kind}={path}" for kind, paths in (("tasks", data), ("own", own)) for path in paths.values()]
    settings_of = jobs.evaluate_job(experiment, "a+b", "0.001").model_dump_json()
    command("evaluate", evaluated, *files, f"--merged={merged}", "--settings", settings_of)
    last = store.read(evaluated).isel(step=-1, seed=0)
    assert set(printed) == {(task, name) for task in "ab" for name in ("own", "sum")}
    for (task, name), (loss, error) in printed.items():
        expected = last.sel(task=task, model=name)
        assert np.isclose(loss, float(expected.loss), rtol=TOLERANCE), (task, name)
        assert np.isclose(error, float(expected.error), atol=1.01 / 300), (task, name)


def test_minimal_stays_minimal() -> None:
    lines = (REPOSITORY / "examples/minimal.py").read_text().splitlines()
    assert len(lines) <= 60 and not any("decaymerge." in line for line in lines if "import" in line)


def test_minilm(tmp_path: Path) -> None:
    """Small: its numbers mean nothing."""
    command = [sys.executable, str(REPOSITORY / "examples/minilm.py"), "--small", "--output", str(tmp_path)]
    environment = os.environ | {"DECAYMERGE_CACHE": str(CACHE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    rows = {row["model"]: row for row in found["accuracy"]}
    assert set(rows) == {"base", "own (polarity)", "own (gender)", "sum", "average", "scaled=0.7"}
    for task, majority in found["majority"].items():
        assert rows[f"own ({task})"][task] > max(majority, 1 - majority)
    ranks = found["rank_correlation"]
    assert len(ranks) == 2 * 5 * 2 and all(row["matrices"] == 37 for row in ranks)
    assert all(math.isfinite(row["spearman"]) for row in ranks)
    network, loaded = cast(
        tuple[BertForSequenceClassification, dict[str, Any]],
        BertForSequenceClassification.from_pretrained(
            tmp_path / "weight_decay=0.01/sum", output_loading_info=True
        ),
    )
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"] and network.config.num_labels == 1
