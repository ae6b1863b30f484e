"""The workflow as a module of another one, which has a configuration of its own and other rules."""

import json
from collections import Counter
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import xarray as xr

from builders import smoke_config
from conftest import Workflow, jobs_by_rule, snakemake_server
from decaymerge import store

SNAKEFILE = """
configfile: "config.yaml"


module decaymerge:
    snakefile:
        "{snakefile}"
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


def snakemake(folder: Path, prefix: str, *arguments: str) -> CompletedProcess[str]:
    """Run the other workflow, which names the smoke configuration ``decaymerge``, among things of its own."""
    server = snakemake_server()
    snakefile = server.checkout / "Snakefile"
    text = SNAKEFILE.format(snakefile=snakefile, prefix=PREFIXES[prefix], folder=prefix)
    (folder / "Snakefile").write_text(text)
    (folder / "config.yaml").write_text(json.dumps({"experiments": "another", "decaymerge": smoke_config()}))
    done = server(["--cores", "2", "--directory", str(folder), *arguments], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


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
