"""The example on real checkpoints, small: it runs, learns, and what it merges is a checkpoint."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from transformers import BertForSequenceClassification

from conftest import CACHE, REPOSITORY


def test_minilm(tmp_path: Path) -> None:
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
