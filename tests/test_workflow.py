"""The workflow as a whole: the smoke run, and what a change re-runs (by dry run on the finished one)."""

import json
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from builders import smoke_config
from builders_runs import write_summaries
from conftest import REPOSITORY, Workflow, jobs_by_rule, outputs
from decaymerge import store
from decaymerge.config import parse

NOTHING: dict[str, int] = {}
PICTURES = {"figure1", "figure1_tiny_bert", "figure2", "figure3", "overlap", "fashion_mnist"}
CLAIMED = ["linear_gf", "overlap_000", "overlap_100"]
"""Experiments in float64: they have claims, and no summary."""
TARGETS = ["figures", "figure1", "figure2", "figure3", "overlap", "fashion_mnist", "scans", "claims", "all"]
pytestmark = pytest.mark.workflow


def assert_planned(
    workflow: Workflow, jobs: dict[str, int], drawn: Collection[str] = (), target: str = "all"
) -> set[str]:
    """A run would start these jobs, those that draw these pictures, and no others; returns the files in them."""
    output = workflow.dry_run(target)
    pictures = {"draw": len(drawn)} if drawn else NOTHING
    assert jobs_by_rule(output) == jobs | pictures
    files = outputs(output)
    assert {Path(file).stem for file in files if file.endswith(".pdf")} == set(drawn)
    return files


def test_smoke_run_makes_every_result(smoke: Workflow) -> None:
    for name in PICTURES:
        for suffix in (".pdf", ".png"):
            assert (smoke.folder / "results/figures" / name).with_suffix(suffix).stat().st_size > 10_000
    for name, experiment in smoke.config["experiments"].items():
        if name in CLAIMED:
            continue
        summary = store.read(smoke.folder / f"results/{name}/summary.nc")
        assert summary.loss.dims == ("merge_set", "weight_decay", "seed", "step", "model", "task")
        assert summary.stable_rank.dims == (*summary.loss.dims, "layer")
        single = experiment.get("task_count") == 1
        assert summary.merge_set.values.tolist() == (["a"] if single else ["a+b"])
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
    assert_planned(finished, NOTHING)


def test_one_more_weight_decay_adds_its_own_jobs(finished: Workflow) -> None:
    finished.config["experiments"]["weight_decay"]["training"]["weight_decay"].append("3e-3")
    jobs = {"train": 1, "merge": 1, "evaluate": 1, "gather": 1, "hypotheses": 1}
    files = assert_planned(finished, jobs, {"figure3"})
    assert {path.split("/")[1] for path in files if "/train/" in path} == {"weight_decay"}


def test_another_order_of_weight_decays_is_the_same_sweep(finished: Workflow) -> None:
    finished.config["experiments"]["fashion_mnist"]["training"]["weight_decay"].reverse()
    output = finished.dry_run()
    assert set(jobs_by_rule(output)) <= {"draw"}
    assert {Path(file).stem for file in outputs(output)} <= {"fashion_mnist", "summary"}


def test_more_seeds_add_blocks_only(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["seeds"] = 4
    jobs = {"tasks": 1, "train": 1, "merge": 1, "evaluate": 1, "gather": 1, "hypotheses": 1}
    blocks = {path for path in assert_planned(finished, jobs, {"figure3"}) if "seeds=" in path}
    assert all(path.startswith("results/independent/") for path in blocks)
    assert {path for path in blocks if "/train/" in path} == {
        f"results/independent/train/{task}/weight_decay=0.001/seeds=2-3.nc" for task in "ab"
    }


def test_step_size_reruns_that_experiment_from_training_on(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["training"]["step_size"] = 0.5
    files = assert_planned(
        finished, {"train": 1, "merge": 1, "evaluate": 1, "gather": 1, "hypotheses": 1}, {"figure3"}
    )
    assert not any("results/same_inputs" in path for path in files if "/train/" in path)


def test_samples_rerun_that_experiment_from_its_tasks_on(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["tasks"]["samples"] = 50
    jobs = {"tasks": 1, "train": 1, "merge": 1, "evaluate": 1, "gather": 1, "hypotheses": 1}
    assert_planned(finished, jobs, {"figure3"})


def test_merge_method_trains_nothing(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["merge"] = ["sum", {"method": "scaled", "coefficient": 0.8}]
    assert_planned(finished, {"merge": 1, "evaluate": 1, "gather": 1, "hypotheses": 1}, {"figure3"})


def test_margin_evaluates_only(finished: Workflow) -> None:
    finished.config["experiments"]["independent"]["margin"] = 0.5
    assert_planned(finished, {"evaluate": 1, "gather": 1, "hypotheses": 1}, {"figure3"})


def test_figure_setting_redraws_only(finished: Workflow) -> None:
    finished.config["figures"] |= {"dpi": 150}
    assert_planned(finished, {"table1": 1, "claims_page": 1}, PICTURES)


def test_other_experiments_of_a_figure_redraw_it_alone(finished: Workflow) -> None:
    finished.config["figures"]["experiments"]["overlap"].reverse()
    assert_planned(finished, NOTHING, {"overlap"})


def test_scan_setting_rescans_only(finished: Workflow) -> None:
    finished.config["scan"]["tolerance"] = 1e-5
    jobs = {"scan_model": 1, "check_scan": 1, "gather_claims": 1, "claims_page": 1, "table1": 1}
    assert_planned(finished, jobs, {"figure1", "figure1_tiny_bert"})


def test_exceptions_of_a_model_reach_its_scan(finished: Workflow) -> None:
    finished.config["scan"]["models"]["tiny_bert"] |= {"partial": True, "by_name": True}
    assert " --partial --by-name " in finished.dry_run()


def test_one_more_model_scans_it_alone(finished: Workflow, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tests/data/tiny_bert", tmp_path / "mine")
    finished.config["scan"]["models"]["mine"] = {"source": f"path:{tmp_path}/mine"}
    jobs = {"scan_model": 1, "check_scan": 1, "gather_claims": 1, "claims_page": 1, "table1": 1}
    assert_planned(finished, jobs, {"figure1", "figure1_mine"})


def test_model_folder_that_does_not_exist_is_told_before_any_job_starts(finished: Workflow) -> None:
    finished.config["scan"]["models"]["mine"] = {"source": "path:/nowhere"}
    done = finished.snakemake("--dry-run")
    assert done.returncode != 0
    assert "scan.models.mine.source = path:/nowhere: /nowhere does not exist" in done.stdout + done.stderr


def test_claims_of_the_smoke_run(smoke: Workflow) -> None:
    verdicts = json.loads((smoke.folder / "results/claims.json").read_text())
    assert {verdict["experiment"] for verdict in verdicts} == {"scan/tiny_bert", *CLAIMED}
    held = {verdict["claim"] for verdict in verdicts if verdict["outcome"] == "holds"}
    assert held >= {"lemma5", "corollary1", "identity", "theorem4", "theorem1", "lemma6", "lemma7"}
    assert {verdict["kind"] for verdict in verdicts} == {"equality", "upper", "lower"}
    table = (smoke.folder / "results/figures/table1.md").read_text()
    assert "| tiny_bert | 2 | 16 | 32 | 2, 16, 32 |" in table


def test_device_reruns_nothing(finished: Workflow) -> None:
    finished.config["device"] = "auto"
    assert_planned(finished, NOTHING)


def test_weights_go_where_they_are_not_kept(smoke: Workflow, tmp_path: Path) -> None:
    config = smoke_config()
    config["keep_weights"] = False
    workflow = Workflow(tmp_path, config)
    targets = ["results/linear_gf/summary.nc", "results/linear_gf/claims.nc"]
    workflow.run(*targets)
    files = {path.relative_to(tmp_path / "results").parts[1] for path in tmp_path.rglob("results/**/*.nc")}
    assert files == {"tasks", "evaluate", "summary.nc", "claims.nc"}
    xr.testing.assert_identical(store.read(tmp_path / targets[1]), store.read(smoke.folder / targets[1]))
    kept = tmp_path / "kept"
    for part in ("tasks", "train"):
        shutil.copytree(smoke.folder / "results/linear_gf" / part, kept / "linear_gf" / part)
    write_summaries(parse({"experiments": {"linear_gf": config["experiments"]["linear_gf"]}}), kept)
    xr.testing.assert_equal(store.read(tmp_path / targets[0]), store.read(kept / "linear_gf/summary.nc"))
    assert workflow.planned(*targets) == NOTHING
    config["experiments"]["linear_gf"]["training"]["weight_decay"].append(3e-3)
    assert_planned(workflow, {"train": 1, "merge": 1, "evaluate": 1, "gather": 1}, target=targets[0])


def test_three_tasks_are_merged_in_pairs_and_all(finished: Workflow) -> None:
    finished.config["experiments"]["independent"] |= {
        "tasks": smoke_config()["experiments"]["independent"]["tasks"] | {"dim": 21},
        "task_count": 3,
    }
    jobs = {"tasks": 1, "train": 1, "merge": 1, "evaluate": 1, "gather": 1}
    assert_planned(finished, jobs, target="results/independent/summary.nc")


def test_touching_files_changes_nothing(finished: Workflow) -> None:
    source = finished.server.checkout / "src"
    for path in [*(finished.folder / "results").rglob("*"), *source.rglob("*.py")]:
        if path.is_file():
            path.touch()
    assert_planned(finished, NOTHING)


@contextmanager
def edited(workflow: Workflow, module: str) -> Iterator[None]:
    """A module of the package that the workflow runs, which is a copy, with one more line."""
    path = workflow.server.checkout / "src/decaymerge" / module
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\n# edited\n")
        yield
    finally:
        path.write_bytes(content)


def test_edit_of_a_figure_module_redraws_only(finished: Workflow) -> None:
    with edited(finished, "figures/style.py"):
        assert_planned(finished, {"table1": 1, "claims_page": 1}, PICTURES)
    assert_planned(finished, NOTHING)


def test_edit_of_the_trainer_retrains(finished: Workflow) -> None:
    with edited(finished, "train/gd.py"):
        files = finished.planned_outputs()
    trained = {path for path in files if "/train/" in path}
    assert len(trained) == 20 and "tasks" not in finished.planned()


def test_edit_of_a_claim_checks_again_and_retrains_nothing(finished: Workflow) -> None:
    with edited(finished, "claims/stationary.py"):
        jobs = {"check_claims": 3, "check_scan": 1, "gather_claims": 1, "claims_page": 1}
        assert_planned(finished, jobs, {"overlap"})


def test_one_more_decay_of_a_claimed_experiment(finished: Workflow) -> None:
    finished.config["experiments"]["linear_gf"]["training"]["weight_decay"].append(0.05)
    assert_planned(finished, {"train": 1, "check_claims": 1, "gather_claims": 1, "claims_page": 1})


@pytest.mark.parametrize(
    "module", ["config/__init__.py", "config/figures.py", "workflow/jobs.py", "cli/stages.py"]
)
def test_edit_of_what_only_passes_settings_on_reruns_nothing(finished: Workflow, module: str) -> None:
    with edited(finished, module):
        assert_planned(finished, NOTHING)


def test_command_of_a_job_runs_by_hand(finished: Workflow) -> None:
    """The line in Snakemake's log, pasted into a shell, remakes the file."""
    target = "results/independent/merge/a+b/weight_decay=0.001/seeds=0-1.nc"
    lines = finished.dry_run("--forcerun", "merge", "--", target).splitlines()
    (command,) = (
        line.removeprefix("Shell command: ") for line in lines if line.startswith("Shell command: ")
    )
    before = store.read(finished.folder / target)
    (finished.folder / target).unlink()
    environment = finished.server.environment()
    environment["PATH"] = f"{Path(shutil.which('decaymerge') or '').parent}:{environment['PATH']}"
    subprocess.run(command, shell=True, check=True, cwd=finished.folder, env=environment)
    xr.testing.assert_identical(before, store.read(finished.folder / target))
    assert_planned(finished, NOTHING)


def test_job_that_meets_a_truncated_file_says_which(smoke: Workflow, tmp_path: Path) -> None:
    for part in ("results/independent/tasks", "results/independent/train"):  # with new times, in this order
        shutil.copytree(smoke.folder / part, tmp_path / part, copy_function=shutil.copy)
    path = tmp_path / "results/independent/train/a/weight_decay=0.001/seeds=0-1.nc"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    target = "results/independent/merge/a+b/weight_decay=0.001/seeds=0-1.nc"
    workflow = Workflow(tmp_path, smoke_config())
    assert workflow.planned(target) == {"merge": 1}
    done = workflow.snakemake(target)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert f"error: {path.relative_to(tmp_path)} cannot be read as NetCDF" in output
    assert f"rm -f {path}, then give the same command again" in output
    assert not (tmp_path / target).exists()


def test_named_targets(finished: Workflow) -> None:
    assert set(jobs_by_rule(finished.dry_run(*TARGETS))) <= set(TARGETS)
