"""Shared by all stages: the checked configuration, the wildcards, and the settings and resources of jobs."""

import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from decaymerge import config as configuration
from decaymerge.config.datasets import FETCHED
from decaymerge.config.figures import COMPARISONS, Picture
from decaymerge.config import paths
from decaymerge.errors import UserError
from decaymerge.fetch import model as models
from decaymerge.workflow import (
    estimates,
    jobs,
    labels,
    layout,
    origins,
    parts,
    pipeline,
    preflight,
    records,
    terminal,
)
from decaymerge.workflow.code import REMAKE, code

# Jobs call `decaymerge` by name, which must work in an environment that is not activated, too.
shell.prefix(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; ')

# The paths start from this file, so that the workflow also runs as a module of another one. They are relative to the
# working folder, so that a checkout can be moved together with its results.
CHECKOUT = Path(os.path.relpath(workflow.current_basedir.get_path_or_uri(secret_free=True))).parent
RESOURCES = Path(os.environ.get("DECAYMERGE_CACHE") or pipeline.resources(CHECKOUT)).expanduser()

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


def shared(files):
    """Paths that are the same for every run, also where the workflow is a module with a prefix."""
    return [local(str(file)) for file in files]


def settings(job):
    """A function from the wildcards of a job to its settings, as JSON."""
    return lambda wildcards: ORIGINS.settings(job, **dict(wildcards.items()))


def asks(estimate, files=1):
    """Memory and run time of a job, as resources. A job that a scheduler killed asks for more at its next attempt.

    ``estimate`` is an estimate for one of ``files``, or a function that returns one: from the experiment, from the
    experiment and the number of tasks in the merge set, or from the experiments that a figure shows.
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
        "runtime": lambda wildcards, attempt: attempt * estimated(wildcards).minutes(files),
    }


# The device determines no result, so it is a resource: a change of params would re-run the jobs.
DEVICE = {"device": CONFIG.device, "gpu": int(CONFIG.device == "cuda")}


def parts_of(stage):
    """The parts of a stage, each with the name of its rule and the experiments that have it."""
    found = parts.parts(stage, ORIGINS, RESOURCES)
    names = parts.rule_names(stage, found)
    return [(part, names[part], experiments) for part, experiments in found.items()]


def reads(stage, part):
    """Function from wildcards to the files that are read for a part, by kind."""

    def files(wildcards):
        found = {}
        for file in parts.files_of(part, dict(wildcards.items())):
            for kind, paths in parts.inputs(stage, CONFIG, file, Path("results"), RESOURCES).items():
                found.setdefault(kind, {}).update(dict.fromkeys(map(str, paths)))
        return {kind: shared(paths) if stage == "tasks" else list(paths) for kind, paths in found.items()}

    return files


def written(stage, part):
    """The files of a part; the log is at the place of the first. A job that runs again makes only what has changed.

    With keep_weights: false Snakemake removes networks after the last job that needs them. Of files in a storage it
    would keep local copies that are not there, so such a job makes all of its files again.
    """
    is_temporary = stage in ("train", "merge") and not CONFIG.keep_weights
    files = [layout.result(parts.place(stage, file)) for file in part]
    if workflow.storage_settings.default_storage_provider:
        return files
    return [temp(file) if is_temporary else update(file) for file in files]


def settings_of(stage, part):
    """Function from the wildcards of a job to the settings of its files. Of params that depend on the outputs, as the
    command does, Snakemake notices no change."""

    def texts(wildcards):
        files = parts.files_of(part, dict(wildcards.items()))
        return [ORIGINS.settings(parts.STAGES[stage].job, **file) for file in files]

    return texts


def command(stage, part):
    """Function from the wildcards and outputs of a job to its command line, without the program's name."""

    def line(wildcards, output):
        files = list(parts.files_of(part, dict(wildcards.items())))
        first = parts.STAGES[stage].place.format_map(files[0])
        results = Path(str(output[0]).removesuffix(f"{first}.nc"))
        lines = [parts.arguments(stage, ORIGINS, file, results, RESOURCES) for file in files]
        if len(lines) == 1:
            return shlex.join(lines[0])
        return " ".join(["together", *(shlex.quote(shlex.join(one)) for one in lines)])

    return line


def of_experiment(place):
    """Function from wildcards to the files at ``place`` of all tasks, merge sets, λ and blocks of the experiment."""

    def outputs(wildcards):
        settings = EXPERIMENTS[wildcards.experiment]
        return expand(
            layout.result(place),
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
