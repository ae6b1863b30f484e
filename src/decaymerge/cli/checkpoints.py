"""Commands that get real data and checkpoints, and scan them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import CACHE, Cache, ModelPath, Sha256, Source
from decaymerge.errors import UserError

if TYPE_CHECKING:
    from decaymerge.config import ScanModel

app = typer.Typer()


def _model(source: list[str], path: str, sha256: str | None) -> "ScanModel":
    from decaymerge.config import ScanModel
    from decaymerge.settings import validate

    one_or_all = source if len(source) > 1 else source[0]
    return validate(ScanModel, {"source": one_or_all, "path": path, "sha256": sha256})


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
