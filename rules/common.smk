"""Shared by all stages: the checked configuration, the wildcards, and the settings and resources of jobs."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

import decaymerge
from decaymerge import config as configuration
from decaymerge.config.datasets import FETCHED
from decaymerge.config.figures import COMPARISONS, Picture
from decaymerge.config import paths
from decaymerge.config.merging import asks_for_inputs
from decaymerge.errors import UserError
from decaymerge.fetch import model as models
from decaymerge.workflow import estimates, jobs, labels, layout, origins, preflight, records

# Jobs call `decaymerge` by name, which must work in an environment that is not activated, too.
shell.prefix(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; ')

# The paths start from this file, so that the workflow also runs as a module of another one. They are relative to the
# working folder, so that a checkout can be moved together with its results.
CHECKOUT = Path(os.path.relpath(workflow.current_basedir.get_path_or_uri(secret_free=True))).parent
PACKAGE = Path(os.path.relpath(decaymerge.__path__[0]))
RESOURCES = Path(os.environ.get("DECAYMERGE_CACHE") or CHECKOUT / "resources").expanduser()

try:
    # The files are read once more: Snakemake has merged them, and of a key that is given twice it takes the last.
    CONFIG = configuration.parse(paths.resolved(config, map(Path, workflow.configfiles)))
    preflight.check(CONFIG, RESOURCES)
    ORIGINS = origins.Origins(CONFIG)
    if workflow.is_main_process and "--unlock" not in sys.argv:
        records.check(ORIGINS)
except UserError as error:
    raise WorkflowError(f"the configuration is refused:\n{error}") from None

EXPERIMENTS = CONFIG.experiments
MODELS = CONFIG.scan.models
CLAIMED = CONFIG.claimed
PICTURES = CONFIG.pictures


def one_of(values):
    """Pattern that matches exactly the given values of a wildcard, so that Snakemake accepts no other file."""
    return "|".join(map(re.escape, sorted(set(values)))) or "nothing"


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    task=one_of(task for settings in EXPERIMENTS.values() for task in settings.named_tasks),
    merge_set=one_of(name for settings in EXPERIMENTS.values() for name in settings.merge_sets),
    weight_decay=one_of(
        value for settings in EXPERIMENTS.values() for value in jobs.weight_decays(settings.training)
    ),
    block=one_of(block for settings in EXPERIMENTS.values() for block in jobs.seed_blocks(settings)),
    figure=one_of(PICTURES),
    model=one_of(MODELS),
    checkpoint="[A-Za-z0-9._=@-]+",


def modules(*names):
    """Source files of modules, as inputs of a rule, so that a change in the code re-runs its jobs."""
    files = []
    for name in names:
        folder = [file for file in (PACKAGE / name).rglob("*") if file.suffix in (".py", ".html", ".txt")]
        files += sorted(folder) or [PACKAGE / f"{name}.py"]
    return shared(files)


def shared(files):
    """Paths that are the same for every run, also where the workflow is a module with a prefix."""
    return [local(str(file)) for file in files]


def weights(path):
    """A file of networks; with keep_weights: false Snakemake removes it after the last job that needs it."""
    return path if CONFIG.keep_weights else temp(path)


def settings(job):
    """A function from the wildcards of a job to its settings, as JSON."""
    return lambda wildcards: ORIGINS.job(job, **dict(wildcards.items())).model_dump_json()


def asks(estimate):
    """Memory and run time of a job, as resources. A job that a scheduler killed asks for more at its next attempt.

    ``estimate`` is an estimate, or a function that returns one: from the experiment, from the experiment and the
    number of tasks in the merge set, or from the experiments that a figure shows.
    """

    def estimated(wildcards):
        if isinstance(estimate, estimates.Estimate):
            return estimate
        if "figure" in wildcards.keys():
            names = PICTURES[wildcards.figure].names
            return estimate([EXPERIMENTS[name] for name in names if name in EXPERIMENTS])
        experiment = EXPERIMENTS[wildcards.experiment]
        if "merge_set" in wildcards.keys():
            return estimate(experiment, len(experiment.merge_sets[wildcards.merge_set]))
        return estimate(experiment)

    return {
        "mem_mb": lambda wildcards, attempt: attempt * estimated(wildcards).megabytes,
        "runtime": lambda wildcards, attempt: attempt * estimated(wildcards).minutes,
    }


# The device determines no result, so it is a resource: a change of params would re-run the jobs.
DEVICE = {"device": CONFIG.device, "gpu": int(CONFIG.device == "cuda")}


def of_tasks(output):
    """Function from wildcards to the files ``output`` of all tasks of the merge set."""
    return lambda wildcards: expand(
        output, task=EXPERIMENTS[wildcards.experiment].merge_sets[wildcards.merge_set], allow_missing=True
    )


def of_experiment(output):
    """Function from wildcards to the files ``output`` of all tasks, merge sets, λ and blocks of the experiment."""

    def outputs(wildcards):
        settings = EXPERIMENTS[wildcards.experiment]
        return expand(
            output,
            task=list(settings.named_tasks),
            merge_set=list(settings.merge_sets),
            weight_decay=jobs.weight_decays(settings.training),
            block=jobs.seed_blocks(settings),
            allow_missing=True,
        )

    return outputs


def model_arguments(model):
    """Sources, path and checksum of a checkpoint, as arguments of a command."""
    options = [f"--path={model.path}"] if model.path else []
    options += [f"--sha256={model.sha256}"] if model.sha256 else []
    return [*model.sources, *options]


def exceptions(model):
    """What a scan of a checkpoint may go on without, as arguments of a command."""
    return ["--partial"] * model.partial + ["--by-name"] * model.by_name
