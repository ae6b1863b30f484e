"""What all stages share: the checked configuration, wildcards, and the modules that a command uses."""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from decaymerge import jobs
from decaymerge.config import check, experiment_pairs
from decaymerge.errors import UserError
from decaymerge.fetch import model as models

# Jobs call `decaymerge` by name, also where the environment is not activated.
shell.prefix(f"export PATH='{Path(sys.executable).parent}':\"$PATH\"; ")

try:
    CONFIG = check(config)
except UserError as error:
    raise WorkflowError(f"the configuration is refused:\n{error}") from None

EXPERIMENTS = CONFIG.experiments
MODELS = CONFIG.scan.models
# Relative to the working folder, so that a checkout can be moved with its results.
CHECKOUT = Path(os.path.relpath(workflow.basedir))
RESOURCES = os.environ.get("DECAYMERGE_CACHE", str(CHECKOUT / "resources"))
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")


wildcard_constraints:
    experiment="[a-z0-9_]+",
    task="[a-z0-9_]+",
    pair="[a-z0-9_+]+",
    weight_decay=r"[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?",
    block=r"[0-9]+-[0-9]+",
    model="[a-z0-9_]+",
    checkpoint="[A-Za-z0-9._=@-]+",


def modules(*names):
    """Source files of modules, as inputs: a change in them re-runs what they made."""
    package = CHECKOUT / "src/decaymerge"
    files = []
    for name in names:
        files += sorted((package / name).glob("*.py")) or [package / f"{name}.py"]
    return [str(file) for file in files]


# Settings and inputs of the jobs, as functions of their wildcards.


def real_data(wildcards):
    """Files that the task's data are drawn from."""
    task = EXPERIMENTS[wildcards.experiment].named_tasks[wildcards.task]
    if task.dataset == "fashion_mnist":
        return [rules.fetch_fashion_mnist.output.images, rules.fetch_fashion_mnist.output.labels]
    return []


def tasks_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.tasks_job(wildcards.experiment, experiment, wildcards.task, wildcards.block).model_dump_json()


def train_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.train_job(
        wildcards.experiment, experiment, wildcards.task, wildcards.weight_decay
    ).model_dump_json()


def own_networks(wildcards):
    tasks = experiment_pairs(EXPERIMENTS[wildcards.experiment])[wildcards.pair]
    return expand(rules.train.output, task=tasks, allow_missing=True)


def merge_settings(wildcards):
    return jobs.MergeJob(methods=EXPERIMENTS[wildcards.experiment].merging).model_dump_json()


def task_data(wildcards):
    tasks = experiment_pairs(EXPERIMENTS[wildcards.experiment])[wildcards.pair]
    return expand(rules.tasks.output, task=tasks, allow_missing=True)


def merged_networks(wildcards):
    return rules.merge.output if EXPERIMENTS[wildcards.experiment].merging else []


def evaluate_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.evaluate_job(experiment, wildcards.pair, wildcards.weight_decay).model_dump_json()


def gather_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.gather_job(experiment).model_dump_json()


def evaluations(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    job = jobs.gather_job(experiment)
    return expand(
        rules.evaluate.output,
        pair=job.pairs,
        weight_decay=job.weight_decay,
        block=job.blocks,
        allow_missing=True,
    )


# A fetched checkpoint's folder is named by its source, so that configurations can share the cache.
FETCHED = {
    models.folder_of(model, Path(RESOURCES)).name: model
    for model in MODELS.values()
    if not model.sources[0].startswith("path:")
}


def model_arguments(model):
    """Source, path and checksum of a checkpoint, as arguments of a command."""
    options = [f"--path={model.path}"] if model.path else []
    options += [f"--sha256={model.sha256}"] if model.sha256 else []
    return [*model.sources, *options]


def checkpoint_files(wildcards):
    """The manifest of a fetched checkpoint, or the files of one in a folder."""
    model = MODELS[wildcards.model]
    folder = models.folder_of(model, Path(RESOURCES))
    if folder.name in FETCHED:
        return folder / models.MANIFEST
    if not folder.exists():
        raise WorkflowError(f"scan.models.{wildcards.model}.source = {model.source}: {folder} does not exist")
    files = [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.is_file())
    return [str(file) for file in files]


def scan_figure_settings(names):
    """Settings of a figure of these models."""
    return jobs.FigureJob(settings=CONFIG.figures, names=list(names), experiments=[]).model_dump_json()
