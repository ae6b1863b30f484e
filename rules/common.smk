"""What all stages share: the checked configuration, wildcards, and the modules that a command uses."""

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

from snakemake.exceptions import WorkflowError

from decaymerge import demand, jobs
from decaymerge.config import check
from decaymerge.datasets import OwnTask
from decaymerge.experiments import experiment_pairs
from decaymerge.errors import UserError
from decaymerge.fetch import model as models
from decaymerge.settings import load

# Jobs call `decaymerge` by name, also where the environment is not activated.
shell.prefix(f"export PATH='{Path(sys.executable).parent}':\"$PATH\"; ")

try:
    for file in workflow.configfiles:
        load(Path(file))  # Snakemake lets a key stand twice, and takes the last
    CONFIG = check(config)
except UserError as error:
    raise WorkflowError(f"the configuration is refused:\n{error}") from None

EXPERIMENTS = CONFIG.experiments
MODELS = CONFIG.scan.models
CLAIMED = CONFIG.claimed
# Relative to the working folder, so that a checkout can be moved with its results.
CHECKOUT = Path(os.path.relpath(workflow.basedir))
RESOURCES = os.environ.get("DECAYMERGE_CACHE") or str(CHECKOUT / "resources")
if set("{}") & set(RESOURCES):
    raise WorkflowError(f"DECAYMERGE_CACHE = {RESOURCES}: a path with braces would be taken for wildcards")
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")


def weights(path):
    """An output of networks, which goes when nothing needs it any more unless the configuration keeps it."""
    return path if CONFIG.keep_weights else temp(path)


def one_of(values):
    """Pattern of the values that the configuration has, so that Snakemake knows no other file."""
    return "|".join(map(re.escape, sorted(set(values)))) or "nothing"


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    task=one_of(task for experiment in EXPERIMENTS.values() for task in experiment.named_tasks),
    pair=one_of(pair for experiment in EXPERIMENTS.values() for pair in experiment_pairs(experiment)),
    weight_decay=one_of(
        value for experiment in EXPERIMENTS.values() for value in jobs.weight_decays(experiment.training)
    ),
    block=one_of(block for experiment in EXPERIMENTS.values() for block in jobs.seed_blocks(experiment)),
    model=one_of(MODELS),
    checkpoint="[A-Za-z0-9._=@-]+",


def modules(*names):
    """Source files of modules, as inputs: a change in them re-runs what they made."""
    package = CHECKOUT / "src/decaymerge"
    files = []
    for name in names:
        folder = [file for file in (package / name).rglob("*") if file.suffix in (".py", ".html")]
        files += sorted(folder) or [package / f"{name}.py"]
    return [str(file) for file in files]


def demanded(stage, wildcards):
    """What a stage asks for: fixed, or computed from the experiment and the number of tasks of the pair."""
    if isinstance(stage, demand.Demand):
        return stage
    experiment = EXPERIMENTS[wildcards.experiment]
    if "pair" in wildcards.keys():
        return stage(experiment, len(experiment_pairs(experiment)[wildcards.pair]))
    return stage(experiment)


# A job that a scheduler killed for memory or time asks for more at its next attempt.


def megabytes(stage):
    return lambda wildcards, attempt: attempt * demanded(stage, wildcards).megabytes


def minutes(stage):
    return lambda wildcards, attempt: attempt * demanded(stage, wildcards).minutes


# Settings and inputs of the jobs, as functions of their wildcards.


def real_data(wildcards):
    """Files that the task's data are drawn from."""
    task = EXPERIMENTS[wildcards.experiment].named_tasks[wildcards.task]
    if task.dataset == "fashion_mnist":
        return [rules.fetch_fashion_mnist.output.images, rules.fetch_fashion_mnist.output.labels]
    return [task.file] if isinstance(task, OwnTask) else []


for name, experiment in EXPERIMENTS.items():
    for task, settings in experiment.named_tasks.items():
        if isinstance(settings, OwnTask) and not Path(settings.file).is_file():
            raise WorkflowError(
                f"experiments.{name}: task {task} needs {settings.file}, which is no file in {Path.cwd()};"
                " give its whole path, or one from that folder"
            )


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
    return jobs.merge_job(EXPERIMENTS[wildcards.experiment]).model_dump_json()


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


def claims_settings(wildcards):
    experiment = EXPERIMENTS[wildcards.experiment]
    return jobs.claims_job(wildcards.experiment, experiment).model_dump_json()


def claimed_tasks(wildcards):
    job = jobs.claims_job(wildcards.experiment, EXPERIMENTS[wildcards.experiment])
    return expand(rules.tasks.output, task=job.tasks, block=job.blocks, allow_missing=True)


def claimed_networks(wildcards):
    job = jobs.claims_job(wildcards.experiment, EXPERIMENTS[wildcards.experiment])
    return expand(
        rules.train.output,
        task=job.tasks,
        weight_decay=jobs.weight_decays(job.training),
        block=job.blocks,
        allow_missing=True,
    )


# A fetched checkpoint's folder is named by its source, so that configurations can share the cache.
FETCHED = {
    models.folder_of(model, Path(RESOURCES)).name: model
    for model in MODELS.values()
    if not model.sources[0].startswith("path:")
}


for name, model in MODELS.items():
    folder = models.folder_of(model, Path(RESOURCES))
    if folder.name not in FETCHED and (not folder.exists() or set("{}") & set(str(folder))):
        raise WorkflowError(
            f"scan.models.{name}.source = {model.source}: {folder} does not exist, or has braces"
        )


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
    files = [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.is_file())
    return [str(file) for file in files]


def title_of(figure):
    """Name of a figure as a reader knows it, such as ``Figure 2``."""
    return figure.replace("figure", "figure ").replace("_", " ").capitalize()


def scan_figure_settings(names):
    """Settings of a figure of these models."""
    return jobs.FigureJob(settings=CONFIG.figures, names=list(names), experiments=[]).model_dump_json()


def claim_labels(wildcards):
    """What the report says beside a claim's picture, from the checks of the finished run."""
    with open(rules.gather_claims.output[0]) as file:
        checks = [check for check in json.load(file) if check["claim"] == wildcards.claim]
    outcomes = Counter(check["status"] for check in checks)
    outcome = ", ".join(f"{status} {count}" for status, count in outcomes.items())
    return {"claim": wildcards.claim, "source": checks[0]["source"], "outcome": outcome}
