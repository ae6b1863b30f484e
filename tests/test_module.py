"""The workflow as a module of another one, which has a configuration of its own and other rules."""

import json
import shutil
from collections import Counter
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import xarray as xr

from builders import smoke_config
from conftest import REPOSITORY, Workflow, jobs_by_rule, snakemake_server
from decaymerge import store
from decaymerge.workflow import pipeline

SNAKEFILE = """
configfile: "config.yaml"


module decaymerge:
    snakefile:
        {snakefile!r}
    config:
        config["decaymerge"]
    {prefix}


use rule * from decaymerge as d_*


rule copy:
    default_target: True
    input:
        rules.d_figures.input,
        rules.d_claims.input,
        rules.d_hypotheses.output,
        summary="{folder}results/labels_linear/summary.nc",
    output:
        "copy.nc",
    shell:
        "cp {{input.summary}} {{output}}"
"""
PREFIXES = {"": "", "parts/": 'prefix: "parts"'}
"""By the folder of the results, which is the working folder or one in it."""
pytestmark = pytest.mark.workflow


def snakemake(
    folder: Path, prefix: str, *arguments: str, snakefile: Path | None = None
) -> CompletedProcess[str]:
    """Run the other workflow, which names the smoke configuration ``decaymerge``, among things of its own."""
    server = snakemake_server()
    snakefile = snakefile or server.checkout / "Snakefile"
    text = SNAKEFILE.format(snakefile=str(snakefile), prefix=PREFIXES[prefix], folder=prefix)
    (folder / "Snakefile").write_text(text)
    (folder / "config.yaml").write_text(json.dumps({"experiments": "another", "decaymerge": smoke_config()}))
    done = server(["--cores", "2", "--directory", str(folder), *arguments], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", ["it's a clone/Snakefile", "link/Snakefile", "link/workflow/Snakefile"])
def test_module_by_other_paths(tmp_path: Path, name: str) -> None:
    checkout = snakemake_server().checkout
    (tmp_path / "link").symlink_to(checkout)
    for part in ("Snakefile", "rules", "report", "config", "profiles"):
        source, copy = checkout / part, tmp_path / "it's a clone" / part
        copy.parent.mkdir(exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    target = "results/labels_linear/summary.nc"
    (tmp_path / "work").mkdir()
    done = snakemake(tmp_path / "work", "", "--dry-run", target, snakefile=tmp_path / name)
    (tmp_path / "alone").mkdir()
    alone = Workflow(tmp_path / "alone", smoke_config()).planned(target)
    assert jobs_by_rule((done.stdout + done.stderr).replace("\nd_", "\n")) == alone


@pytest.mark.parametrize("is_writable", [True, False])
def test_data_are_fetched_into_a_clone_that_can_be_written_to(
    is_writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: is_writable)  # root may write everywhere
    expected = REPOSITORY / "resources" if is_writable else Path("resources")
    assert pipeline.resources(REPOSITORY) == expected


@pytest.mark.parametrize("prefix", PREFIXES)
def test_module_plans_the_jobs_of_the_workflow_alone(tmp_path: Path, prefix: str) -> None:
    done = snakemake(tmp_path, prefix, "--dry-run")
    (tmp_path / "alone").mkdir()
    alone = Workflow(tmp_path / "alone", smoke_config()).planned()
    of_module = jobs_by_rule((done.stdout + done.stderr).replace("\nd_", "\n"))
    assert of_module == alone | Counter(copy=1)


@pytest.mark.parametrize("prefix", ["", pytest.param("parts/", marks=pytest.mark.slow)])
def test_results_of_a_module_are_those_of_the_workflow_alone(
    smoke: Workflow, tmp_path: Path, prefix: str
) -> None:
    targets = ["results/labels_linear/summary.nc"]
    targets += ["results/linear_gf/claims.nc"] if prefix else []
    snakemake(tmp_path, prefix, *(prefix + target for target in targets))
    for target in targets:
        xr.testing.assert_identical(store.read(tmp_path / prefix / target), store.read(smoke.folder / target))
    done = snakemake(tmp_path, prefix, "--dry-run", *(prefix + target for target in targets))
    assert "Nothing to be done" in done.stdout + done.stderr
