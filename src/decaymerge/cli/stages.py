"""Commands of the stages, each one job of the workflow: data, training, merging, evaluation, figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import Device, JobSettings, Output, Results, resolved_device
from decaymerge.errors import UserError

if TYPE_CHECKING:
    import torch
    import xarray as xr

app = typer.Typer()


def _device_name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="Dataset to fetch: fashion_mnist.")],
    destination: Annotated[Path, typer.Argument(help="Folder to put the files into.")],
    folder: Annotated[Path | None, typer.Option(help="Folder that is tried before other sources.")] = None,
) -> None:
    """Fetch real data from the first source that has them, and verify them."""
    from importlib import import_module

    from decaymerge.config.datasets import FETCHED

    if dataset not in FETCHED:
        raise UserError(f"dataset {dataset!r} cannot be fetched; known: {', '.join(FETCHED)}")
    source = import_module(f"decaymerge.fetch.{dataset}").fetch(destination, folder)
    print(f"{dataset} from {source}")


@app.command()
def tasks(
    output: Output,
    settings: JobSettings,
    files: Annotated[list[Path] | None, typer.Argument(help="Files that the dataset needs.")] = None,
) -> None:
    """Draw the data of one task."""
    from decaymerge import store
    from decaymerge import tasks as stage
    from decaymerge.workflow.jobs import TasksJob

    job = TasksJob.parse(settings)
    identity = store.identity_of("tasks", job, [path for path in files or [] if path.is_file()])
    if not store.is_made(output, identity):
        store.write(stage.make(job, files or []), output, job, identity=identity, compress=True)


@app.command()
def train(
    tasks: Annotated[Path, typer.Argument(help="Data of the task.")],
    output: Output,
    settings: JobSettings,
    device: Device = "cpu",
    restart_every: Annotated[
        float,
        typer.Option(min=0, help="Seconds between two writes of the state from which a killed run resumes."),
    ] = 30,
) -> None:
    """Train the networks of one task at one λ; a run that was killed resumes at its last stored state."""
    import torch

    from decaymerge import store
    from decaymerge import train as stage
    from decaymerge.train.restart import RestartFile
    from decaymerge.workflow.jobs import TrainJob

    # Weights that decay to nothing would otherwise become denormal numbers, which slow products many times.
    torch.set_flush_denormal(True)
    job = TrainJob.parse(settings)
    data = store.read(tasks, "inputs", "labels")
    store.refuse_others(job.made_from, [tasks])
    identity = store.identity_of("train", job, [tasks])
    if store.is_made(output, identity):
        return
    restart = RestartFile(output, identity, restart_every)
    torch_device = resolved_device(device)
    networks = stage.train(job, data, torch_device, restart)
    networks = networks.assign_attrs(device=_device_name(torch_device))
    store.write(networks, output, job, identity=identity)
    restart.remove()


@app.command()
def merge(
    output: Output,
    networks: Annotated[list[Path], typer.Argument(help="Networks to merge.")],
    settings: JobSettings,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(help="Data of a task; once for each network, only for methods that need inputs."),
    ] = None,
) -> None:
    """Merge the trained networks of a merge set by each method."""
    from decaymerge import merge as stage
    from decaymerge import store
    from decaymerge.workflow.jobs import MergeJob

    job = MergeJob.parse(settings)
    own = [store.read(path, "W1", "loss") for path in networks]
    data = [store.read(path, "inputs") for path in tasks or []]
    store.refuse_others(job.made_from, [*networks, *(tasks or [])])
    identity = store.identity_of("merge", job, [*networks, *(tasks or [])])
    if not store.is_made(output, identity):
        store.write(stage.merge(job, own, data), output, job, identity=identity)


@app.command()
def evaluate(
    output: Output,
    settings: JobSettings,
    tasks: Annotated[list[Path], typer.Option(help="Data of a task; once for each task of the merge set.")],
    own: Annotated[
        list[Path], typer.Option(help="Own networks of a task; once for each task of the merge set.")
    ],
    merged: Annotated[Path | None, typer.Option(help="Merged networks.")] = None,
    device: Device = "cpu",
) -> None:
    """Evaluate own and merged networks on each task of a merge set."""
    from decaymerge import evaluate as stage
    from decaymerge import store
    from decaymerge.workflow.jobs import EvaluateJob

    job = EvaluateJob.parse(settings)
    data = [store.read(path, "inputs", "labels") for path in tasks]
    networks = [store.read(path, "W1", "loss") for path in own]
    merged_networks = None if merged is None else store.read(merged, "W1", "model")
    files = [*tasks, *own, *([] if merged is None else [merged])]
    store.refuse_others(job.made_from, files)
    identity = store.identity_of("evaluate", job, files)
    if store.is_made(output, identity):
        return
    torch_device = resolved_device(device)
    evaluation = stage.evaluate(job, data, networks, merged_networks, torch_device)
    store.write(evaluation.assign_attrs(device=_device_name(torch_device)), output, job, identity=identity)


@app.command()
def gather(results: Results, output: Output, settings: JobSettings) -> None:
    """Gather all evaluations of one experiment in one file, and write its table next to it."""
    from decaymerge import evaluate as stage
    from decaymerge import store
    from decaymerge.evaluate.table import table
    from decaymerge.workflow.jobs import GatherJob

    job = GatherJob.parse(settings)
    summary = stage.gather(job, results)
    store.write(summary, output, job)
    store.write_table(table(summary), output.with_name("table.csv"))


@app.command()
def hypotheses(
    output: Annotated[Path, typer.Argument(help="Table to write, CSV.")],
    summaries: Annotated[list[Path], typer.Argument(help="Summaries of the experiments, in their order.")],
    settings: JobSettings,
) -> None:
    """Judge the hypotheses about sums of networks."""
    from decaymerge import hypotheses as stage
    from decaymerge import store
    from decaymerge.workflow.jobs import HypothesesJob

    job = HypothesesJob.parse(settings)
    files = [store.read(path, "loss", "test_loss", "largest_output") for path in summaries]
    store.refuse_others(job.made_from, summaries)
    verdicts = stage.judge(job.same_inputs, files, job.weight_decay)
    store.write_table(verdicts, output)
    print(verdicts.to_string(index=False, float_format="{:.3g}".format))


@app.command()
def figures(
    output: Annotated[
        Path, typer.Argument(help="PDF to write, with a PNG next to it; Markdown for a table.")
    ],
    files: Annotated[list[Path], typer.Argument(help="Summaries, claims or scans that the figure shows.")],
    settings: JobSettings,
) -> None:
    """Draw one figure."""
    from decaymerge import figures as stage
    from decaymerge import store
    from decaymerge.config.figures import FIGURES
    from decaymerge.workflow.jobs import FigureJob

    job = FigureJob.parse(settings)
    if job.figure not in FIGURES:
        raise UserError(f"figure {job.figure!r} is not known; known: {', '.join(FIGURES)}")
    if len(files) != len(job.names):
        raise UserError(
            f"{job.figure} shows {', '.join(job.names)}, but {len(files)} files were given; give one for each"
        )
    shown = [store.read(path, *FIGURES[job.figure].needs) for path in files]
    store.refuse_others(job.made_from, files)
    stage.draw(job, shown, output)


@app.command()
def together(
    commands: Annotated[
        list[str], typer.Argument(help="Commands of this program, each with its arguments as one text.")
    ],
) -> None:
    """Run several commands one after the other in one process, which starts PyTorch once.

    A command that is refused stops no other.
    """
    import shlex
    import sys

    from decaymerge.cli import app as every_command

    try:
        lines = [shlex.split(line) for line in commands]
    except ValueError as error:
        raise UserError(f"a command has {str(error).lower()}: quote each one as a whole") from None
    is_refused = False
    for line in lines:
        try:
            every_command(line, standalone_mode=False)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            is_refused = True
    if is_refused:
        raise typer.Exit(1)


@app.command()
def overview(
    output: Annotated[Path, typer.Argument(help="Page to write.")],
    settings: Annotated[str, typer.Option("--settings", help="The configuration, as JSON.")],
    results: Annotated[list[Path] | None, typer.Argument(help="Results of the run, including scans.")] = None,
) -> None:
    """Write a page with a run's settings, the tables of its scans, and the origin of its results."""
    import json

    from decaymerge import config
    from decaymerge.figures.overview import write_overview

    write_overview(config.parse(json.loads(settings)), results or [], output)


@app.command()
def explore(
    output: Annotated[Path, typer.Argument(help="Page to write.")],
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="summary.nc and claims.nc of experiments, in folders with their names."),
    ] = None,
) -> None:
    """Write a page on which a reader moves λ, step and number of tasks of the run."""
    from decaymerge import store
    from decaymerge.figures.explore import write_explore

    needed = {"summary.nc": ("loss", "stable_rank"), "claims.nc": ("measured",)}
    read: dict[str, dict[str, xr.Dataset]] = {name: {} for name in needed}
    for path in results or []:
        if path.name not in needed:
            raise UserError(f"{path} is neither summary.nc nor claims.nc of an experiment; leave it out")
        read[path.name][path.absolute().parent.name] = store.read(path, *needed[path.name])
    write_explore(read["summary.nc"], read["claims.nc"], output)
