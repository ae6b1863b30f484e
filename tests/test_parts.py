"""Several files of an experiment in one job: which they are, and what a job makes that runs again."""

import itertools
import json
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from builders import gaussian_data, gaussian_job, train_job
from commands import decaymerge
from conftest import Workflow
from decaymerge import store
from decaymerge.config import parse
from decaymerge.digests import content_digest
from decaymerge.workflow import layout, parts
from decaymerge.workflow.origins import Origins

EXPERIMENT: dict[str, Any] = {
    "tasks": {"dataset": "gaussian", "dim": 48, "samples": 20},
    "network": {"hidden": [10]},
    "training": {"step_size": 0.1, "steps": 10, "weight_decay": [0, 1e-3, 1e-2, 2e-2, 3e-2]},
    "seeds": 2,
}
LONG = EXPERIMENT["training"] | {"steps": 500_000}
"""Two trainings fill about five minutes."""
EXPERIMENTS: dict[str, Any] = {
    "small": EXPERIMENT,
    "like_it": EXPERIMENT | {"seeds": 4},
    "twelve": EXPERIMENT | {"task_count": 12, "merge_first": [2, 4]},
    "long": EXPERIMENT | {"training": LONG},
    "one": EXPERIMENT | {"task_count": 1, "training": LONG | {"weight_decay": [0]}},
}


@pytest.mark.parametrize("minutes", [0, 1, 5, 100])
@pytest.mark.parametrize("stage", parts.STAGES)
def test_every_file_is_of_one_part(stage: str, minutes: float) -> None:
    config = parse({"experiments": EXPERIMENTS, "minutes_per_job": minutes})
    experiments = config.experiments
    found = parts.parts(stage, Origins(config), Path("resources"))
    for name, experiment in experiments.items():
        values = parts.STAGES[stage].wildcards(experiment)
        if not values:
            assert stage == "merge" and not experiment.merges
            continue
        files = [tuple(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
        of_experiment = [part for part, names in found.items() if name in names]
        if any(map(parts.is_open, of_experiment)):
            assert len(of_experiment) == 1 and (minutes < 5 or len(files) == 1)
            continue
        assert minutes > 0
        assert Counter(itertools.chain.from_iterable(of_experiment)) == Counter(files)
        sizes = [len(part) for part in of_experiment]
        assert max(sizes) <= parts.MOST
    names = parts.rule_names(stage, found)
    assert len(set(names.values())) == len(names) and all(name.startswith(stage) for name in names.values())


def test_experiments_of_the_same_files_share_a_rule_that_says_which() -> None:
    config = parse({"experiments": EXPERIMENTS})
    experiments = config.experiments
    found = parts.parts("train", Origins(config), Path("resources"))
    names: dict[str, list[str]] = {name: [] for name in experiments}
    for part, rule in parts.rule_names("train", found).items():
        for experiment in found[part]:
            names[experiment].append(rule)
    assert names["small"] == names["like_it"] == ["train_a_to_b_0_to_0.03"]
    assert names["twelve"] == ["train_a_to_f_0_to_0.03", "train_g_to_l_0_to_0.03"]
    assert names["one"] == ["train"]
    assert len(names["long"]) > 2 and {rule.split("_")[1] for rule in names["long"]} == {"a", "b"}


@pytest.mark.parametrize("stage", parts.STAGES)
def test_a_shell_takes_the_longest_command(stage: str) -> None:
    many = {"task_count": 24, "merge_first": list(range(2, 25)), "seeds": 2000, "seeds_per_job": 1000}
    config = parse({"experiments": {"many": EXPERIMENT | many}, "minutes_per_job": 10_000})
    origins, length = Origins(config), 0
    for part in parts.parts(stage, origins, Path("resources")):
        files = parts.files_of(part, {"experiment": "many", "block": "1000-1999"})
        lines = [parts.arguments(stage, origins, file, Path("results"), Path("resources")) for file in files]
        length = max(length, len(" ".join(shlex.quote(shlex.join(line)) for line in lines)))
    assert (stage == "train" or length > 40_000) and length < 120_000
    subprocess.run(["bash", "-c", f": {'x' * length}"], check=True)


def test_one_command_that_is_refused_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store.write(gaussian_data(), Path("tasks.nc"), gaussian_job())
    job = train_job(steps=3).model_dump_json()
    lines = [f"train --settings '{job}' -- {file}.nc {file}-out.nc" for file in ("missing", "tasks")]
    answer = decaymerge("together", *lines)
    assert answer.returncode == 1
    assert answer.stderr.count("error: ") == 1 and "error: missing.nc is missing" in answer.stderr
    assert store.read(Path("tasks-out.nc")).sizes["seed"]


def test_a_file_is_kept_if_nothing_that_led_to_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, output = Path("tasks.nc"), Path("out.nc")
    store.write(gaussian_data(), data, gaussian_job())

    def is_kept(steps: int) -> bool:
        answer = decaymerge("train", data, output, "--settings", train_job(steps=steps).model_dump_json())
        assert answer.returncode == 0, answer.stderr
        return "is there already" in answer.stdout

    assert [is_kept(3), is_kept(3), is_kept(4), is_kept(4)] == [False, True, False, True]
    content = output.read_bytes()
    output.write_bytes(content[: len(content) // 2])
    assert not is_kept(4) and is_kept(4)
    store.write(gaussian_data().assign_attrs(other=1), data, gaussian_job())
    assert not is_kept(4) and is_kept(4)
    monkeypatch.setattr(store, "code", lambda command: f"another {command}")
    assert not is_kept(4)


def contents(workflow: Workflow) -> dict[str, str]:
    """Digests of the tensors of a run, by the path below its results."""
    results = workflow.folder / "results"
    return {str(path.relative_to(results)): content_digest(path) for path in results.rglob("*.nc")}


def test_a_job_that_runs_again_makes_only_what_is_missing_or_would_differ(copied: Workflow) -> None:
    before = contents(copied)
    training = copied.config["experiments"]["weight_decay"]["training"]
    training["weight_decay"].append(3e-3)
    target = "results/weight_decay/summary.nc"
    copied.run(target)
    after = contents(copied)
    places = (layout.TRAINED.replace("{task}", "[ab]"), layout.MERGED, layout.EVALUATED)
    new = {path for path in after if path not in before}
    assert len(new) == len(places) + 1 and all("/weight_decay=0.003/" in path for path in new)
    assert {path for path in before if after[path] != before[path]} == {"weight_decay/summary.nc"}
    lost = "results/weight_decay/train/a/weight_decay=0.003/seeds=0-1.nc"
    (copied.folder / lost).unlink()
    copied.run(target, lost)
    assert contents(copied) == after
    assert "Nothing to be done" in copied.dry_run(target)
    inode = (copied.folder / lost).stat().st_ino
    copied.run("--forcerun", "train_a_to_b_0_to_0.003", "--", lost)
    assert contents(copied) == after and (copied.folder / lost).stat().st_ino != inode


def test_files_of_a_failed_job_stay(copied: Workflow) -> None:
    """One λ of a sweep diverges: the others need not be trained again."""
    training = copied.config["experiments"]["weight_decay"]["training"]
    training["weight_decay"] += [3e-3, 1e6]
    folder = copied.folder / "results/weight_decay/train/a"
    done = copied.snakemake("results/weight_decay/summary.nc")
    assert done.returncode != 0 and "training diverged" in done.stdout + done.stderr
    good, bad = (folder / f"weight_decay={decay}/seeds=0-1.nc" for decay in ("0.003", "1000000"))
    digest = content_digest(good)
    assert not bad.exists()
    training["weight_decay"].pop()
    copied.run("results/weight_decay/summary.nc")
    assert content_digest(good) == digest
    logs = "\n".join(path.read_text() for path in copied.folder.glob("logs/weight_decay/train/**/*.log"))
    assert f"{good.relative_to(copied.folder)} is there already" in logs
    assert json.loads(store.read(good).attrs["settings"])["weight_decay"] == 3e-3
