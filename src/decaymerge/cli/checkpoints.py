"""Commands about checkpoints of transformers: fetch them, and scan them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import (
    CACHE,
    ByName,
    Cache,
    Device,
    ModelPath,
    Overwrite,
    Partial,
    Sha256,
    Source,
    resolved_device,
)
from decaymerge.errors import UserError, printable

if TYPE_CHECKING:
    from decaymerge.config.scan import ScanModel

app = typer.Typer()


def model_of(source: list[str], path: str, sha256: str | None) -> "ScanModel":
    """Settings of a checkpoint from the arguments of a command."""
    from decaymerge.config.base import validate
    from decaymerge.config.scan import ScanModel

    sources = source if len(source) > 1 else source[0]
    return validate(ScanModel, {"source": sources, "path": path, "sha256": sha256})


def check_files(files: dict[str, Path | None], plot: Path | None) -> None:
    """Refuse folders where files are expected, and a picture that is no PDF, or for which packages are missing."""
    if plot is not None:
        import decaymerge.figures  # noqa: F401
    if plot is not None and plot.suffix != ".pdf":
        raise UserError(f"--plot {plot} must end in .pdf; a PNG is written next to it")
    for option, path in files.items():
        if path is not None and path.is_dir():
            raise UserError(f"{option} {path} is a folder; give a file")


@app.command()
def fetch_model(source: Source, path: ModelPath = "", sha256: Sha256 = None, cache: Cache = CACHE) -> None:
    """Fetch a checkpoint into the cache, verify it, and print its folder."""
    from decaymerge.fetch import model

    print(model.fetch_model(model_of(source, path, sha256), cache))


@app.command()
def scan(
    source: Source,
    path: ModelPath = "",
    sha256: Sha256 = None,
    cache: Cache = CACHE,
    output: Annotated[Path | None, typer.Option(help="NetCDF file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PDF to draw; a PNG is written next to it.")] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory to use, such as 2GB: as many matrices at a time as fit, and no scan if one does not."
            " Without it, half of the memory that is free, or what one matrix needs."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative tolerance of spectral norms.")] = 1e-6,
    spectrum: Annotated[
        bool, typer.Option(help="Compute all singular values and the effective rank as well.")
    ] = False,
    partial: Partial = False,
    by_name: ByName = False,
    base: Annotated[
        str | None,
        typer.Option(help="Base of an adapter, where its adapter_config.json names another place."),
    ] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Measure norms and stable ranks of a transformer's matrices, in your own checkpoint or a published one.

    Of a LoRA adapter, what it adds to each matrix is measured, beside
    the matrix of its base.
    """
    import psutil
    import torch

    from decaymerge import scan as stage
    from decaymerge import store
    from decaymerge.checkpoint import Checkpoint
    from decaymerge.checkpoint.adapter import is_adapter
    from decaymerge.checkpoint.judge import judge
    from decaymerge.config.base import parse_bytes, validate
    from decaymerge.config.scan import Scan
    from decaymerge.fetch import model
    from decaymerge.scan import table
    from decaymerge.scan.plan import make_plan
    from decaymerge.workflow.jobs import FigureJob, ScanJob

    scan_model = model_of(source, path, sha256)
    settings = validate(Scan, {"tolerance": tolerance, "spectrum": spectrum})
    check_files({"--output": output, "--plot": plot}, plot)
    max_bytes = None if max_memory is None else parse_bytes("--max-memory", max_memory)
    torch_device = resolved_device(device)
    folder = model.fetch_model(scan_model, cache)
    if is_adapter(folder):
        if plot is not None or spectrum or max_memory is not None or torch_device.type != "cpu":
            raise UserError(
                f"{folder} is an adapter, for which there is no --plot, --spectrum, --max-memory or --device; leave"
                " them out"
            )
        how = {"partial": partial, "by_name": by_name}
        _scan_adapter(scan_model, folder, base, cache, output, settings.tolerance, **how)
        return
    if base is not None:
        raise UserError(f"--base {base} is that of an adapter, and {folder} is none; leave it out")
    checkpoint = Checkpoint(folder)
    form = judge(checkpoint, partial=partial, by_name=by_name)
    print("\n".join(map(printable, [*form.lines(), *checkpoint.notes])))
    plan = make_plan(checkpoint, form, spectrum=spectrum)
    plan.use(torch.get_num_threads(), max_bytes or psutil.virtual_memory().available // 2)
    print(table.plan_table(checkpoint, plan))
    if max_bytes is not None:
        plan.check(max_bytes)
    job = ScanJob(
        source=scan_model.sources, path=path, tolerance=settings.tolerance, spectrum=settings.spectrum
    )
    scanned = stage.scan(job, checkpoint, plan, torch_device)
    print(table.scan_table(scanned))
    if output is not None:
        store.write(scanned, output, job)
        print(f"wrote {output}")
    if plot is not None:
        from decaymerge import figures

        figures.draw(FigureJob(figure="figure1", names=[Path(scan_model.sources[0]).name]), [scanned], plot)
        print(f"wrote {plot} and {plot.with_suffix('.png')}")


def _scan_adapter(
    scan_model: "ScanModel",
    folder: Path,
    base: str | None,
    cache: Path,
    output: Path | None,
    tolerance: float,
    **how: bool,
) -> None:
    from decaymerge import store
    from decaymerge.checkpoint.adapter import Adapter
    from decaymerge.fetch.model import fetch_model
    from decaymerge.merge_checkpoints.opened import base_of, with_base
    from decaymerge.scan import adapters
    from decaymerge.workflow.jobs import AdapterScanJob

    adapter = Adapter(folder)
    name = base or base_of({folder.name: adapter})
    source = name if name.startswith(("hub:", "path:")) else f"path:{name}"
    adapted = with_base(adapter, fetch_model(model_of([source], "", None), cache), **how)
    print(f"LoRA of {len(adapted.changed)} tensors of {name}")
    job = AdapterScanJob(source=scan_model.sources, base=name, tolerance=tolerance)
    scanned = adapters.scan(job, adapted)
    print(adapters.table(scanned))
    if output is not None:
        store.write(scanned, output, job)
