"""The profiles for clusters: both are read, and that for any scheduler works on a small fake of PBS."""

import os
import re
from pathlib import Path

import pytest

from builders import smoke_config
from conftest import REPOSITORY, Workflow, assert_same_results, jobs_by_rule, outputs

OPTIONS = (
    f"--profile {REPOSITORY}/profiles/generic --seconds-between-status-checks 1 --latency-wait 15".split()
)


@pytest.fixture
def fake_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pbs"
    folder.mkdir()
    monkeypatch.setenv("FAKE_PBS", str(folder))
    monkeypatch.setenv("PATH", f"{REPOSITORY / 'tests/fake_pbs'}:{os.environ['PATH']}")
    return folder


@pytest.mark.workflow
@pytest.mark.parametrize("profile", ["generic", "slurm"])
def test_profile_plans_every_job(tmp_path: Path, profile: str) -> None:
    output = Workflow(tmp_path, smoke_config()).dry_run("--profile", f"{REPOSITORY}/profiles/{profile}")
    files, jobs = outputs(output), jobs_by_rule(output)
    assert len([file for file in files if "/train/" in file]) == 20 and jobs["claims_page"] == 1


@pytest.mark.slow
def test_smoke_run_is_the_local_one(fake_pbs: Path, smoke: Workflow) -> None:
    workflow = Workflow(fake_pbs.parent / "run", smoke_config())
    workflow.folder.mkdir()
    workflow.run(*OPTIONS)
    assert_same_results(workflow.folder, smoke.folder)
    options = [file.read_text() for file in fake_pbs.glob("*/options")]
    # On one core each, the page of claims on two.
    assert len(options) < 60
    assert all(re.search(r"select=1:ncpus=[12]:mem=\d+mb:ngpus=0 -l walltime=\d+ ", text) for text in options)


@pytest.mark.slow
@pytest.mark.workflow
def test_gpu_is_asked_for(fake_pbs: Path) -> None:
    workflow = Workflow(fake_pbs.parent / "run", {**smoke_config(), "device": "cuda"})
    workflow.folder.mkdir()
    done = workflow.snakemake(
        "results/linear_gf/train/a/weight_decay=0.03/seeds=0-1.nc", *OPTIONS, "--retries", "0"
    )
    asked = {
        text for file in fake_pbs.glob("*/options") for text in re.findall(r"ngpus=\d", file.read_text())
    }
    assert asked == {"ngpus=0", "ngpus=1"}, done.stdout + done.stderr
