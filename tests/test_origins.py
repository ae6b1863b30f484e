"""Results of other settings, or of another experiment, are told from those that a run asks for."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from builders import smoke_config
from conftest import Workflow
from decaymerge import store
from decaymerge.config import parse
from decaymerge.digests import combined, digest
from decaymerge.errors import UserError
from decaymerge.workflow.jobs import EvaluateJob, MergeJob, TasksJob, TrainJob
from decaymerge.workflow.origins import Origins

NETWORK = "results/{}/train/a/weight_decay=0.001/seeds=0-1.nc"


def test_results_without_records_are_taken_if_their_settings_are_these(copied: Workflow) -> None:
    shutil.rmtree(copied.folder / ".snakemake")
    assert "Nothing to be done" in copied.dry_run()


def one(config: dict[str, Any]) -> dict[str, Any]:
    """An experiment."""
    experiment: dict[str, Any] = config["experiments"]["independent"]
    return experiment


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "training": (lambda all_: one(all_)["training"].update(steps=25), "steps = 300, which is 25 now"),
    "data": (lambda all_: one(all_)["tasks"].update(samples=50), "data.samples = 40, which is 50 now"),
    "evaluation": (lambda all_: one(all_).update(margin=0.5), "margin = "),
    "merging": (lambda all_: one(all_).update(merge=["sum"]), "methods = "),
    "network": (lambda all_: one(all_)["network"].update(hidden=[5, 5]), "network.hidden = "),
    "scan": (lambda all_: all_["scan"].update(tolerance=1e-4), "tolerance = 1e-06, which is 0.0001 now"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_results_without_records_of_other_settings_are_refused(change: str, copied: Workflow) -> None:
    shutil.rmtree(copied.folder / ".snakemake")
    edit, expected = CHANGES[change]
    edit(copied.config)
    done = copied.snakemake("--dry-run")
    text = done.stdout + done.stderr
    assert done.returncode == 1 and expected in text
    assert ".snakemake has no record of it" in text and "put .snakemake back" in text
    shutil.rmtree(copied.folder / "results")
    assert len([file for file in copied.planned_outputs() if "/train/" in file]) == 20


def test_a_single_file_without_a_record(copied: Workflow) -> None:
    """One λ more, whose networks somebody put in place."""
    place = copied.folder / NETWORK.format("weight_decay").replace("0.001", "0.003")
    place.parent.mkdir(parents=True)
    shutil.copy2(copied.folder / NETWORK.format("weight_decay"), place)
    assert "Nothing to be done" in copied.dry_run()  # nobody asks for it
    copied.config["experiments"]["weight_decay"]["training"]["weight_decay"].append(3e-3)
    done = copied.snakemake("--dry-run")
    assert done.returncode == 1 and "weight_decay = 0.001, which is 0.003 now" in done.stdout + done.stderr


@pytest.mark.parametrize("stage", ["merge", "evaluate", "gather"])
def test_another_experiments_file_is_refused_where_it_is_read(stage: str, copied: Workflow) -> None:
    """Its date is that of the file that it replaces, so that Snakemake sees no difference."""
    name = "evaluate/a+b" if stage == "gather" else "train/a"
    paths = [
        copied.folder / f"results/{experiment}/{name}/weight_decay=0.001/seeds=0-1.nc"
        for experiment in ("same_inputs", "independent")
    ]
    date = paths[1].stat().st_mtime_ns
    shutil.copyfile(*paths)
    os.utime(paths[1], ns=(date, date))
    assert "Nothing to be done" in copied.dry_run()
    done = copied.snakemake("--forcerun", stage, "--", "results/independent/summary.nc")
    text = done.stdout + done.stderr
    assert done.returncode == 1
    logs = [
        log for log in copied.folder.glob("logs/independent/**/*.log") if "not made with" in log.read_text()
    ]
    assert len(logs) == 1, text
    assert (
        str(paths[1].relative_to(copied.folder)) in logs[0].read_text()
        and "Traceback" not in logs[0].read_text()
    )


def test_digests_stand_for_all_that_led_to_a_file() -> None:
    place = {"experiment": "independent", "weight_decay": "0.001", "block": "0-1"}

    def digests(**changes: Any) -> list[str]:
        raw = smoke_config()
        raw["experiments"]["independent"].update(changes)
        origins = Origins(parse(raw))
        data = origins.digest(TasksJob, experiment="independent", task="a", block="0-1")
        return [
            data,
            origins.digest(TrainJob, task="a", **place),
            origins.digest(MergeJob, merge_set="a+b", **place),
            origins.digest(EvaluateJob, merge_set="a+b", **place),
        ]

    before = digests()
    data = {"dataset": "gaussian", "dim": 20, "samples": 50}
    cases = (
        ({"margin": 0.5}, 3),
        ({"merge": ["sum"]}, 2),
        ({"network": {"hidden": [5]}}, 1),
        ({"tasks": data}, 0),
    )
    for changes, same in cases:
        after = digests(**changes)
        assert [one == other for one, other in zip(before, after, strict=True)] == [True] * same + [False] * (
            4 - same
        )


def test_files_are_compared_one_by_one_or_all_together(tmp_path: Path) -> None:
    job = MergeJob.of(parse(smoke_config()), "independent", "a+b", "0.001", "0-1")
    jobs = [job, job.model_copy(update={"made_from": ["x"]})]
    paths = [tmp_path / "one.nc", tmp_path / "other.nc"]
    for one, path in zip(jobs, paths, strict=True):
        store.write(xr.Dataset({"x": 1.0}), path, one)
    right = [digest(one.model_dump_json()) for one in jobs]
    store.refuse_others([], paths)
    store.refuse_others(right, paths)
    store.refuse_others(right[:1], paths[:1])
    store.refuse_others([combined(right)], paths)
    store.refuse_others([combined(right[:1])], paths[:1])
    with pytest.raises(UserError, match=r"other\.nc: not made with the settings of this configuration"):
        store.refuse_others([right[0], right[0]], paths)
    with pytest.raises(UserError, match=r"one\.nc and 1 more: not made"):
        store.refuse_others([combined(right[::-1])], paths)
    with pytest.raises(UserError, match="is missing"):
        store.refuse_others(right, [paths[0], tmp_path / "none.nc"])
