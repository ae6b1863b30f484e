"""What ``merge-checkpoints`` does with ``--inputs``: read them, measure the merge on them, and merge from them."""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from decaymerge.checkpoint.model_class import build
from decaymerge.config.base import validate
from decaymerge.config.merging import merge_name
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints import Sources, measured, table
from decaymerge.merge_checkpoints import inputs as files
from decaymerge.merge_checkpoints.configs import different_tokenizers
from decaymerge.merge_checkpoints.merge import rest_of
from decaymerge.merge_checkpoints.with_inputs import Follower
from decaymerge.workflow.jobs import CheckpointsJob

COEFFICIENTS = [round(0.1 * i, 1) for i in range(1, 13)]
"""Coefficients that are tried where one is to be chosen."""


def merge(
    job: CheckpointsJob,
    sources: Sources,
    inputs: Sequence[str],
    labels: Sequence[str],
    scratch: Path,
    *,
    auto: bool,
    by_matrix: bool = True,
) -> tuple[CheckpointsJob, xr.Dataset | None, list[str]]:
    """Print what the merge does on inputs, and merge from them where the method asks for it.

    Args:
        job: The merge.
        sources: Its checkpoints.
        inputs: Arguments of ``--inputs``.
        labels: Arguments of ``--labels``.
        scratch: Folder for the matrices that are merged from their inputs.
        auto: Choose the coefficient.
        by_matrix: Measure the effect of each matrix, which takes several backward passes.

    Returns:
        The job that is done, with the chosen coefficient and the files of the inputs; the effects by matrix, if
        they were measured; and lines about those on the outputs.

    Raises:
        UserError: the inputs or labels are not as they must be, or cannot be followed through the models.
    """
    names = {text.rstrip("/"): name for name, text in zip(sources.names, job.models, strict=True)}
    names |= {name: name for name in sources.names}
    paths = files.assigned("--inputs", inputs, names)
    label_paths = files.assigned("--labels", labels, names)
    form = sources.forms[sources.names[0]]
    if not form.class_name:
        raise UserError(
            f"--inputs need a class that transformers knows, and {form.reason}; merge without --inputs"
        )
    texts = [path for path in paths.values() if files.is_text(path)]
    folders = {name: checkpoint.folder for name, checkpoint in sources.models.items()}
    if texts and (differing := different_tokenizers(folders)):
        raise UserError(f"{texts[0]} is text, but {differing[0]}; give token ids of the first as .npz")
    fallback = None if sources.base is None else sources.base.folder
    model = build(sources.first.config)
    batches = {
        name: files.read_inputs(paths[name], checkpoint, fallback, model)
        for name, checkpoint in sources.models.items()
    }
    truth = {
        name: files.read_labels(path, files.rows(batches[name]), model) for name, path in label_paths.items()
    }
    follower = Follower(sources, batches)
    job = job.model_copy(update={"inputs": {name: str(path) for name, path in paths.items()}})
    if auto:
        job = best_scaled(job, follower, scratch)
    followed = follower.follow(job, scratch)
    effects = measured.measured(sources, follower, followed) if by_matrix else None
    if effects is not None:
        print(table.inputs_table(effects))
    if followed.solved:
        rest = merge_name(rest_of(job).method)
        print(f"merged from their inputs: {len(followed.solved)} matrices; everything else: {rest}")
    lines = measured.lines(followed, truth)
    print("\n".join(lines))
    return job, effects, lines


def best_scaled(job: CheckpointsJob, follower: Follower, scratch: Path) -> CheckpointsJob:
    """The job with the coefficient that changes the outputs on the inputs least, in squares."""
    jobs = [
        validate(CheckpointsJob, job.model_dump() | {"method": {"method": "scaled", "coefficient": c}})
        for c in COEFFICIENTS
    ]
    errors = [measured.mismatch(followed) for followed in follower.follow_all(jobs, scratch)]
    best = errors.index(min(errors))
    print(
        f"--coefficient {COEFFICIENTS[best]:g} changes the outputs least, of {COEFFICIENTS[0]:g} to"
        f" {COEFFICIENTS[-1]:g}"
    )
    return jobs[best]
