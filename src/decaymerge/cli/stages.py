"""Commands of the stages that make an experiment's results, each one job of the workflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import Device, JobSettings, Output
from decaymerge.errors import UserError

if TYPE_CHECKING:
    import torch

app = typer.Typer()


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but PyTorch sees no GPU; use device: cpu or auto")
    if name not in ("cpu", "cuda"):
        raise UserError(f"device: {name} is not one of cpu, cuda, auto")
    return torch.device(name)


def _kind_of(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@app.command()
def tasks(
    output: Output,
    settings: JobSettings,
    files: Annotated[list[Path] | None, typer.Argument(help="Files of real data.")] = None,
) -> None:
    """Make the data of one task."""
    from decaymerge import jobs, store
    from decaymerge import tasks as stage

    job = jobs.parse(jobs.TasksJob, settings)
    store.write(stage.make(job, files or []), output, job, compress=True)


@app.command()
def train(
    tasks: Annotated[Path, typer.Argument(help="Data of the task.")],
    output: Output,
    settings: JobSettings,
    device: Device = "cpu",
    restart_every: Annotated[
        float,
        typer.Option(min=0, help="Seconds between two writes of the state that a killed run goes on from."),
    ] = 30,
) -> None:
    """Train the networks of one task at one λ; a run that was killed goes on from the state that it has kept."""
    import torch

    from decaymerge import jobs, store
    from decaymerge import train as stage
    from decaymerge.train.restart import RestartFile, identity_of

    # Weights that decay to nothing would otherwise become denormal numbers, which slow products many times.
    torch.set_flush_denormal(True)
    job = jobs.parse(jobs.TrainJob, settings)
    data = store.read(tasks, "inputs", "labels")
    restart = RestartFile(output, identity_of(job, data), restart_every)
    where = _device(device)
    made = stage.train(job, data, where, restart).assign_attrs(device=_kind_of(where))
    store.write(made, output, job)
    restart.remove()


@app.command()
def merge(
    output: Output,
    networks: Annotated[list[Path], typer.Argument(help="Networks to merge.")],
    settings: JobSettings,
) -> None:
    """Merge trained networks by each method."""
    from decaymerge import jobs, store
    from decaymerge import merge as stage

    job = jobs.parse(jobs.MergeJob, settings)
    store.write(stage.merge(job, [store.read(path, "W1", "loss") for path in networks]), output, job)


@app.command()
def evaluate(
    output: Output,
    settings: JobSettings,
    tasks: Annotated[list[Path], typer.Option(help="Data of a task; once for each task of the pair.")],
    own: Annotated[list[Path], typer.Option(help="Network of a task; once for each task of the pair.")],
    merged: Annotated[Path | None, typer.Option(help="Merged networks.")] = None,
    device: Device = "cpu",
) -> None:
    """Evaluate own and merged networks on each task."""
    from decaymerge import evaluate as stage
    from decaymerge import jobs, store

    job = jobs.parse(jobs.EvaluateJob, settings)
    data = [store.read(path, "inputs", "labels") for path in tasks]
    networks = [store.read(path, "W1", "loss") for path in own]
    merges = None if merged is None else store.read(merged, "W1", "model")
    where = _device(device)
    made = stage.evaluate(job, data, networks, merges, where).assign_attrs(device=_kind_of(where))
    store.write(made, output, job)


@app.command()
def gather(
    folder: Annotated[Path, typer.Argument(help="Folder of an experiment's evaluations.")],
    output: Output,
    settings: JobSettings,
) -> None:
    """Gather the evaluations of one experiment."""
    from decaymerge import evaluate as stage
    from decaymerge import jobs, store

    job = jobs.parse(jobs.GatherJob, settings)
    store.write(stage.gather(job, folder), output, job)


@app.command()
def figures(
    figure: Annotated[str, typer.Argument(help="Name of the figure.")],
    output: Annotated[Path, typer.Argument(help="PDF to write; a PNG is written beside it.")],
    summaries: Annotated[list[Path], typer.Argument(help="Summaries that it shows.")],
    settings: JobSettings,
) -> None:
    """Draw one figure."""
    from decaymerge import figures as stage
    from decaymerge import jobs, store

    if figure not in (known := [*stage.FIGURES, *stage.TABLES]):
        raise UserError(f"figure {figure!r} is not known; known: {', '.join(known)}")
    job = jobs.parse(jobs.FigureJob, settings)
    shown = [store.read(path, *stage.NEEDED[figure]) for path in summaries]
    if len(shown) != len(job.names):
        raise UserError(f"{figure} shows {', '.join(job.names)}, but {len(shown)} files were given")
    stage.draw(figure, job, shown, output)


@app.command()
def claims(
    output: Output,
    experiment: Annotated[
        Path | None, typer.Option(help="Folder of an experiment whose claims are checked; needs --settings.")
    ] = None,
    settings: Annotated[str | None, typer.Option(help="Settings of this job, as JSON.")] = None,
    traces: Annotated[
        list[Path] | None,
        typer.Option(help="Both sides of each claim along training: written with --experiment, else read."),
    ] = None,
    scan: Annotated[list[str] | None, typer.Option(help="NAME=FILE of a scan to check.")] = None,
    gather: Annotated[list[Path] | None, typer.Option(help="Claims to put together into one table.")] = None,
) -> None:
    """Check the paper's claims, or gather and print those that were checked."""
    from decaymerge import claims as stage
    from decaymerge import jobs, store

    checks = [found for path in gather or [] for found in stage.read(path)]
    if experiment is not None:
        if settings is None or len(traces or []) != 1:
            raise UserError("--experiment needs --settings, and one file for --traces")
        job = jobs.parse(jobs.ClaimsJob, settings)
        found, made = stage.check_experiment(job, experiment)
        checks += found
        store.write(made, (traces or [])[0], job)
    else:
        checks += stage.check_widths([store.read(path, "claim") for path in traces or []])
    for entry in scan or []:
        name, _, path = entry.partition("=")
        if not path:
            raise UserError(f"--scan {entry} is not of the form NAME=FILE")
        checks += stage.check_scan(
            name, store.read(Path(path), "frobenius_norm", "stable_rank", "rows", "columns")
        )
    stage.write(checks, output)
    print(stage.table(checks))


@app.command()
def report(
    checked: Annotated[Path, typer.Argument(help="Checks of all claims, JSON.")],
    output: Annotated[Path, typer.Argument(help="Page to write; pictures go to figures/claims beside it.")],
    settings: JobSettings,
    traces: Annotated[
        list[Path] | None, typer.Option(help="Claims along training, in the job's order.")
    ] = None,
) -> None:
    """Write the page of all claims, and draw a picture of each."""
    from decaymerge import claims as claims_stage
    from decaymerge import jobs, store
    from decaymerge.figures.report import write_report

    job = jobs.parse(jobs.FigureJob, settings)
    if len(job.names) != len(traces or []):
        raise UserError(f"{len(traces or [])} traces were given for {len(job.names)} experiments")
    read = {name: store.read(path, "claim") for name, path in zip(job.names, traces or [], strict=True)}
    write_report(job, claims_stage.read(checked), read, output)


@app.command()
def overview(
    output: Annotated[Path, typer.Argument(help="Page to write.")],
    settings: Annotated[str, typer.Option("--settings", help="The configuration, as JSON.")],
    results: Annotated[
        list[Path] | None, typer.Argument(help="Results of the run, scans among them.")
    ] = None,
) -> None:
    """Write the page of a run's settings, of its scans' tables, and of where its results come from."""
    from decaymerge import jobs
    from decaymerge.config import Config
    from decaymerge.figures.overview import write_overview

    write_overview(jobs.parse(Config, settings), results or [], output)
