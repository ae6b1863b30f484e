"""The workflow as a whole: the smoke run, and what a change re-runs (by dry run on the finished one)."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from conftest import REPOSITORY, Workflow, smoke_config
from decaymerge import store

NOTHING: dict[str, int] = {}
DRAWINGS = ["figure1", "figure1_overview", "figure2", "figure3", "overlap", "experiment"]
ALL_DRAWN = {f"draw_{drawing}": 1 for drawing in DRAWINGS} | {"report_claims": 1}
CLAIMED = ["linear_gf", "overlap_000", "overlap_100"]
"""Experiments in float64: they have claims, and no summary."""


def test_smoke_run_makes_every_result(smoke: Workflow) -> None:
    for name in ("figure1", "figure1_tiny_bert", "figure2", "figure3", "overlap", "fashion_mnist"):
        for suffix in (".pdf", ".png"):
            assert (smoke.folder / "results/figures" / name).with_suffix(suffix).stat().st_size > 10_000
    for name, experiment in smoke.config["experiments"].items():
        if name in CLAIMED:
            continue
        summary = store.read(smoke.folder / f"results/{name}/summary.nc")
        assert summary.loss.dims == ("pair", "weight_decay", "seed", "step", "model", "task")
        assert summary.stable_rank.dims == (*summary.loss.dims, "layer")
        single = experiment.get("task_count") == 1
        assert summary.pair.values.tolist() == (["a"] if single else ["a+b"])
        assert summary.model.values.tolist() == (["own"] if single else ["own", "sum", "average"])
        assert summary.weight_decay.values.tolist() == experiment["training"]["weight_decay"]
        assert summary.seed.values.tolist() == [0, 1] and summary.step[-1] == experiment["training"]["steps"]
        assert np.isfinite(summary.loss).all()
        for variable in summary.data_vars.values():
            assert variable.attrs["long_name"] and variable.attrs["units"] == "1"


def test_every_file_opens_with_plain_xarray(smoke: Workflow) -> None:
    files = sorted((smoke.folder / "results").rglob("*.nc"))
    assert len(files) == 16 + 20 + 6 + 8 + 6 + 1 + 3  # tasks, train, merge, evaluate, summaries, scan, claims
    for file in files:
        with xr.open_dataset(file) as dataset:
            assert {"settings", "seeds", "code_revision", "code_clean", "torch"} <= set(dataset.attrs)


def test_second_run_does_nothing(finished: Workflow) -> None:
    assert finished.planned() == NOTHING


def test_one_more_weight_decay_adds_its_own_jobs(finished: Workflow) -> None:
    finished.config["experiments"]["weight_decay"]["training"]["weight_decay"].append("3e-3")
    assert finished.planned() == {"train": 2, "merge": 1, "evaluate": 1, "gather": 1, "draw_figure3": 1}
    outputs = {path for path in finished.planned_outputs() if "/train/" in path}
    assert outputs == {f"results/weight_decay/train/{task}/weight_decay=0.003/seeds=0-1.nc" for task in "ab"}


def test_another_order_of_weight_decays_is_the_same_sweep(finished: Workflow) -> None:
    finished.config["experiments"]["fashion_mnist"]["training"]["weight_decay"].reverse()
    assert set(finished.planned()) <= {"draw_experiment"}


def test_more_seeds_add_blocks_only(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["seeds"] = 4
    assert finished.planned() == {
        "tasks": 2,
        "train": 2,
        "merge": 1,
        "evaluate": 1,
        "gather": 1,
        "draw_figure3": 1,
    }
    made = {path for path in finished.planned_outputs() if "seeds=" in path and "/evaluate/" not in path}
    assert all(path.startswith("results/independent/") for path in made)
    assert {path for path in made if "/train/" in path} == {
        f"results/independent/train/{task}/weight_decay=0.001/seeds=2-3.nc" for task in "ab"
    }


def test_step_size_reruns_that_experiment_from_training_on(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["training"]["step_size"] = 0.5
    assert finished.planned() == {"train": 2, "merge": 1, "evaluate": 1, "gather": 1, "draw_figure3": 1}
    assert not any("results/same_inputs" in path for path in finished.planned_outputs() if "/train/" in path)


def test_samples_rerun_that_experiment_from_its_tasks_on(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["tasks"]["samples"] = 50
    planned = finished.planned()
    assert planned == {"tasks": 2, "train": 2, "merge": 1, "evaluate": 1, "gather": 1, "draw_figure3": 1}


def test_merge_method_trains_nothing(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["merge"] = ["sum", {"method": "scaled", "coefficient": 0.8}]
    assert finished.planned() == {"merge": 1, "evaluate": 1, "gather": 1, "draw_figure3": 1}


def test_margin_evaluates_only(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["margin"] = 0.5
    assert finished.planned() == {"evaluate": 1, "gather": 1, "draw_figure3": 1}


def test_figure_setting_redraws_only(finished: Workflow) -> None:
    finished.config["figures"] |= {"dpi": 150}
    assert finished.planned() == ALL_DRAWN


def test_scan_setting_rescans_only(finished: Workflow) -> None:
    finished.config["scan"]["tolerance"] = 1e-5
    planned = finished.planned()
    assert planned == {
        "scan_model": 1,
        "check_scan_claims": 1,
        "gather_claims": 1,
        "report_claims": 1,
        "draw_figure1": 1,
        "draw_figure1_overview": 1,
    }


def test_one_more_model_scans_it_alone(finished: Workflow, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tests/data/tiny_bert", tmp_path / "mine")
    finished.config["scan"]["models"]["mine"] = {"source": f"path:{tmp_path}/mine"}
    assert finished.planned()["scan_model"] == 1


def test_model_folder_that_does_not_exist_is_told_before_any_job_starts(finished: Workflow) -> None:
    finished.config["scan"]["models"]["mine"] = {"source": "path:/nowhere"}
    done = finished.snakemake("--dry-run")
    assert done.returncode != 0
    assert "scan.models.mine.source = path:/nowhere: /nowhere does not exist" in done.stdout + done.stderr


def test_claims_of_the_smoke_run(smoke: Workflow) -> None:
    found = json.loads((smoke.folder / "results/claims.json").read_text())
    assert {check["experiment"] for check in found} == {"scan/tiny_bert", *CLAIMED}
    held = {check["claim"] for check in found if check["status"] in ("equality", "bound holds")}
    assert held >= {"lemma5", "corollary1", "identity", "theorem4", "theorem1", "lemma6", "lemma7"}
    assert (
        "| tiny_bert | 2 | 16 | 32 | 2, 16, 32 |" in (smoke.folder / "results/figures/table1.md").read_text()
    )


def test_device_reruns_nothing(finished: Workflow) -> None:
    finished.config["device"] = "auto"
    assert finished.planned() == NOTHING


def test_weights_go_where_they_are_not_kept(smoke: Workflow, tmp_path: Path) -> None:
    config = smoke_config()
    config["keep_weights"] = False
    workflow = Workflow(tmp_path, config)
    targets = ["results/independent/summary.nc", "results/linear_gf/claims.nc"]
    workflow.run(*targets)
    files = {path.relative_to(tmp_path / "results").parts[1] for path in tmp_path.rglob("results/**/*.nc")}
    assert files == {"tasks", "evaluate", "summary.nc", "claims.nc"}
    for target in targets:
        xr.testing.assert_identical(store.read(tmp_path / target), store.read(smoke.folder / target))
    assert workflow.planned(*targets) == NOTHING
    config["experiments"]["independent"]["training"]["weight_decay"].append(3e-3)
    assert workflow.planned(targets[0]) == {"train": 2, "merge": 1, "evaluate": 1, "gather": 1}


def test_three_tasks_are_merged_in_pairs_and_all(finished: Workflow) -> None:
    finished.config["experiments"]["independent"] |= {
        "tasks": smoke_config()["experiments"]["independent"]["tasks"] | {"dim": 21},
        "task_count": 3,
    }
    planned = finished.planned("results/independent/summary.nc")
    assert planned == {"tasks": 3, "train": 3, "merge": 4, "evaluate": 4, "gather": 1}


def test_touching_files_changes_nothing(finished: Workflow) -> None:
    for path in [*(finished.folder / "results").rglob("*"), *(REPOSITORY / "src").rglob("*.py")]:
        if path.is_file():
            path.touch()
    assert finished.planned() == NOTHING


@contextmanager
def edited(module: str) -> Iterator[None]:
    path = REPOSITORY / "src/decaymerge" / module
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\n# edited\n")
        yield
    finally:
        path.write_bytes(content)


def test_edit_of_a_figure_module_redraws_only(finished: Workflow) -> None:
    with edited("figures/style.py"):
        assert finished.planned() == ALL_DRAWN
    assert finished.planned() == NOTHING


def test_edit_of_the_trainer_retrains(finished: Workflow) -> None:
    with edited("train/gd.py"):
        planned = finished.planned()
    assert planned["train"] == 20 and "tasks" not in planned


def test_edit_of_a_claim_checks_again_and_retrains_nothing(finished: Workflow) -> None:
    with edited("claims/stationary.py"):
        planned = finished.planned()
    assert planned == {
        "check_claims": 3,
        "check_scan_claims": 1,
        "gather_claims": 1,
        "report_claims": 1,
        "draw_overlap": 1,
    }


def test_one_more_decay_of_a_claimed_experiment(finished: Workflow) -> None:
    finished.config["experiments"]["linear_gf"]["training"]["weight_decay"].append(0.05)
    planned = finished.planned()
    assert planned == {"train": 2, "check_claims": 1, "gather_claims": 1, "report_claims": 1}


def test_edit_of_the_configuration_models_reruns_nothing(finished: Workflow) -> None:
    with edited("config.py"):
        assert finished.planned() == NOTHING


def test_command_of_a_job_runs_by_hand(finished: Workflow) -> None:
    """The line in Snakemake's log, pasted into a shell, remakes the file."""
    target = "results/independent/merge/a+b/weight_decay=0.001/seeds=0-1.nc"
    done = finished.snakemake("--dry-run", "--printshellcmds", "--forcerun", "merge", "--", target)
    lines = (done.stdout + done.stderr).splitlines()
    (command,) = (
        line.removeprefix("Shell command: ") for line in lines if line.startswith("Shell command: ")
    )
    before = store.read(finished.folder / target)
    (finished.folder / target).unlink()
    path = f"{Path(shutil.which('decaymerge') or '').parent}:{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, cwd=finished.folder, env=os.environ | {"PATH": path})
    xr.testing.assert_identical(before, store.read(finished.folder / target))
    assert finished.planned() == NOTHING


def test_job_that_meets_a_truncated_file_says_which(finished: Workflow) -> None:
    path = finished.folder / "results/independent/train/a/weight_decay=0.001/seeds=0-1.nc"
    content = path.read_bytes()
    try:
        path.write_bytes(content[: len(content) // 2])
        done = finished.snakemake("--forcerun", "merge", "--", "results/independent/summary.nc")
        assert done.returncode != 0
        output = done.stdout + done.stderr
        relative = path.relative_to(finished.folder)
        assert f"error: {relative} cannot be read as NetCDF" in output
        assert f"rm -f {path}, then give the same command again" in output
    finally:
        path.write_bytes(content)
        finished.run()


@pytest.mark.parametrize(
    "target",
    ["figures", "figure1", "figure2", "figure3", "overlap", "fashion_mnist", "scans", "claims", "all"],
)
def test_named_targets(finished: Workflow, target: str) -> None:
    assert set(finished.planned(target)) <= {target}
