"""What the workflow says of what it is not able to do."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from builders import smoke_config
from conftest import Workflow

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    "target", ["results/nope/summary.nc", "results/independent/train/a/weight_decay=5/seeds=0-1.nc"]
)
def test_target_that_the_configuration_lacks(finished: Workflow, target: str) -> None:
    done = finished.snakemake("--dry-run", target)
    assert done.returncode != 0
    assert "MissingRuleException" in done.stdout + done.stderr and "KeyError" not in done.stdout + done.stderr


def test_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("experiments: {}\nexperiments: {}\n")
    done = Workflow(tmp_path, smoke_config()).snakemake("--configfile", str(tmp_path / "twice.yaml"))
    assert done.returncode != 0 and "key 'experiments' is given twice" in done.stdout + done.stderr


def test_job_of_a_diverging_step_size_shows_its_error(tmp_path: Path) -> None:
    config = smoke_config()
    config["experiments"] = {"mine": config["experiments"]["independent"]}
    del config["figures"]  # they name experiments that this configuration lacks
    config["experiments"]["mine"]["training"] |= {"step_size": 1e5, "weight_decay": [0.1]}
    target = "results/mine/train/a/weight_decay=0.1/seeds=0-1.nc"
    done = Workflow(tmp_path, config).snakemake(target)
    assert done.returncode != 0
    message = "training diverged: experiment mine, task a, weight_decay 0.1, seed 0, step"
    assert message in done.stdout + done.stderr
    assert not (tmp_path / target).exists()


def test_a_job_larger_than_the_machine_is_refused_before_the_first(tmp_path: Path) -> None:
    config = smoke_config()
    config["experiments"]["independent"]["network"]["hidden"] = [200_000, 200_000]
    done = Workflow(tmp_path, config).snakemake("results/independent/summary.nc")
    text = done.stdout + done.stderr
    assert (
        done.returncode == 1
        and "nothing is started: " in text
        and "GB of memory, and this machine has" in text
    )
    assert "experiment independent" in text and "make network.hidden" in text
    assert not (tmp_path / "results").exists()


def test_an_environment_below_a_quote(tmp_path: Path) -> None:
    """The jobs find the command although the path has a space and an apostrophe."""
    link = tmp_path / "it's here"
    link.symlink_to(sys.prefix)
    workflow = Workflow(tmp_path / "run", smoke_config())
    workflow.folder.mkdir()
    target = "results/independent/tasks/a/seeds=0-1.nc"
    command = [
        str(link / "bin/python"),
        "-m",
        "snakemake",
        *workflow._arguments("--cores", "1", "--", target),
    ]
    path = ":".join(
        place for place in os.environ["PATH"].split(":") if not (Path(place) / "decaymerge").exists()
    )
    environment = workflow.server.environment() | {"PATH": path}
    done = subprocess.run(
        command, cwd=workflow.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workflow.folder / target).is_file()


@pytest.mark.parametrize("place", ["a-file", "-x"])
def test_a_cache_that_is_no_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("x")
    monkeypatch.setenv("DECAYMERGE_CACHE", place)
    done = Workflow(tmp_path, smoke_config()).snakemake("--dry-run")
    text = done.stdout + done.stderr
    assert (
        done.returncode == 1
        and f"DECAYMERGE_CACHE = {place} is no folder; give the absolute path of one" in text
    )


def test_make_follows_no_aliases_without_end(tmp_path: Path) -> None:
    lists = [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghi")]
    (tmp_path / "x.yaml").write_text("\n".join(["a: &a [1, 1]", *lists]))
    command = [
        sys.executable,
        "-m",
        "decaymerge.workflow.run",
        str(tmp_path / "run"),
        str(tmp_path / "x.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (
        done.returncode == 1 and done.stderr.startswith("make: ") and "its aliases stand for" in done.stderr
    )
    assert "Traceback" not in done.stderr
