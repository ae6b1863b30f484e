"""Builders of whole runs in this process: files of a configuration's stages, where the workflow would put them."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.figure import Figure

from builders import CPU
from decaymerge import claims, evaluate, merge, store, tasks, train
from decaymerge.config import Config
from decaymerge.figures import compose
from decaymerge.workflow import jobs, layout

mpl.use("Agg")


def blocks_of(config: Config, experiment: str) -> Iterator[tuple[str, str]]:
    """λ and blocks of seeds of an experiment, as in the names of files."""
    settings = config.experiments[experiment]
    yield from itertools.product(jobs.weight_decays(settings.training), jobs.seed_blocks(settings))


def write_networks(config: Config, results: Path) -> None:
    """Data and own networks of all experiments."""
    for experiment, settings in config.experiments.items():
        for task in settings.named_tasks:
            for block in jobs.seed_blocks(settings):
                job = jobs.TasksJob.of(config, experiment, task, block)
                data = tasks.make(job, job.data.files(results))
                place = {"experiment": experiment, "task": task, "block": block}
                store.write(data, layout.path(results, layout.TASKS, **place), job)
                for decay in jobs.weight_decays(settings.training):
                    training = jobs.TrainJob.of(config, experiment, task, decay, block)
                    networks = train.train(training, data, CPU).assign_attrs(device="cpu")
                    path = layout.path(results, layout.TRAINED, weight_decay=decay, **place)
                    store.write(networks, path, training)


def write_summaries(config: Config, results: Path) -> None:
    """Merged networks, evaluations and summaries of all experiments, from ``write_networks``."""
    for experiment, settings in config.experiments.items():
        for (decay, block), (merge_set, members) in itertools.product(
            blocks_of(config, experiment), settings.merge_sets.items()
        ):
            place = {"experiment": experiment, "weight_decay": decay, "block": block}
            own = [store.read(layout.path(results, layout.TRAINED, task=task, **place)) for task in members]
            data = [
                store.read(layout.path(results, layout.TASKS, experiment=experiment, task=task, block=block))
                for task in members
            ]
            merged = None
            if settings.merges:
                merging = jobs.MergeJob.of(config, merge_set=merge_set, **place)
                merged = merge.merge(merging, own, data)
                store.write(
                    merged, layout.path(results, layout.MERGED, merge_set=merge_set, **place), merging
                )
            job = jobs.EvaluateJob.of(config, merge_set=merge_set, **place)
            evaluation = evaluate.evaluate(job, data, own, merged, CPU)
            store.write(evaluation, layout.path(results, layout.EVALUATED, merge_set=merge_set, **place), job)
        gathering = jobs.GatherJob.of(config, experiment)
        summary = evaluate.gather(gathering, results)
        store.write(summary, layout.path(results, layout.SUMMARY, experiment=experiment), gathering)


def write_claims(config: Config, results: Path) -> None:
    """Verdicts and traces of all experiments whose claims are checked, from ``write_networks``."""
    for experiment in config.claimed:
        job = jobs.ClaimsJob.of(config, experiment)
        verdicts, traces = claims.check_experiment(job, results)
        path = layout.path(results, layout.CLAIMS, experiment=experiment)
        store.write(traces, path, job)
        claims.write(verdicts, path.with_suffix(".json"))


def figure_job(config: Config, figure: str, names: list[str]) -> jobs.FigureJob:
    """A figure of some experiments, whether or not the configuration draws it."""
    experiments = [config.experiments[name] for name in names]
    return jobs.FigureJob(figure=figure, names=names, experiments=experiments, drawing=config.figures.drawing)


def drawn(job: jobs.FigureJob, files: Sequence[xr.Dataset]) -> Figure:
    """The picture itself, with everything in its place."""
    figure = compose(job, files)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    plt.close(figure)  # matplotlib would keep it otherwise
    return figure


def summaries_of(results: Path, names: Sequence[str]) -> list[xr.Dataset]:
    """Summaries of experiments."""
    return [store.read(layout.path(results, layout.SUMMARY, experiment=name)) for name in names]
