"""The merged checkpoint: tensor by tensor, written shard by shard, there whole or not at all."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from decaymerge.atomic import atomic_folder
from decaymerge.checkpoints import Sources, is_embedding, stored_bytes, type_name
from decaymerge.errors import UserError
from decaymerge.fetch.model import TOKENIZER
from decaymerge.merge import apply
from decaymerge.progress import progress_bar
from decaymerge.provenance import provenance
from decaymerge.workflow.jobs import CheckpointsJob

COPIED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template*",
    "configuration_*.py",
    "modeling_*.py",
    "tokenization_*.py",
)
"""Files that a checkpoint needs beside its weights and its tokenizer."""
RECORD = "merge.json"
"""Where the merged checkpoint comes from."""


def merged(sources: Sources, job: CheckpointsJob, tensor: str) -> Tensor:
    """W_base + c Σ_i (W_i - W_base), or c Σ_i W_i without a base, in the type of the first model.

    Raises:
        UserError: an entry is infinite or NaN, before or after.
    """
    info = sources.first.tensors[tensor]
    if info.dtype is None:
        return sources.first.read([tensor])[0].clone()
    summands, base = sources.read(tensor)
    available = {} if base is None else {"base": base}
    total: Tensor = apply(job.method, summands, **available)
    made = (total if base is None else base + total).to(info.dtype).contiguous()
    if not made.isfinite().all():
        raise UserError(
            f"{tensor}: the merged numbers are too large for {type_name(info.dtype)}; give a smaller --coefficient,"
            f" or store {sources.names[0]} in a wider type"
        )
    return made


def write(sources: Sources, job: CheckpointsJob, output: Path, max_shard_bytes: int) -> None:
    """Write the merged checkpoint as ``transformers`` reads it; one shard is in memory at a time.

    Raises:
        UserError: ``output`` is not empty, or cannot be written.
    """
    refuse_existing(output)
    sizes = stored_bytes(sources.first)
    shards = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    with atomic_folder(output) as folder, progress_bar("merging", sum(sizes.values()), "B") as bar:
        for file, names in shards.filename_to_tensors.items():
            shard: dict[str, Tensor] = {}
            for name in names:
                shard[name] = merged(sources, job, name)
                bar.update(sizes[name])
            _save(shard, folder / file)
        if shards.is_sharded:
            index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        _copy_files(sources, folder)
        record = {"settings": job.model_dump(), **provenance()}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def refuse_existing(output: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        UserError: ``output`` is a file, or a folder that is not empty.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"--output {output} exists and is not empty; give another folder, or remove it")


def _save(shard: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(shard, path, metadata={"format": "pt"})
    except SafetensorError as error:  # it hides the operating system's error, such as a full disk
        raise OSError(str(error)) from None


def _copy_files(sources: Sources, folder: Path) -> None:
    """The first model's or, where it lacks one, the base's; but the files of a tokenizer go together."""
    places = [one.files[0].parent for one in (sources.first, sources.base) if one is not None]
    tokenizer = next(filter(None, (_matching(place, TOKENIZER) for place in places)), [])
    others = [path for place in reversed(places) for path in _matching(place, COPIED)]  # the last ones stay
    for path in [*tokenizer, *others]:
        shutil.copyfile(path, folder / path.name)


def _matching(place: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in place.glob(pattern) if path.is_file()]


def warnings(sources: Sources, job: CheckpointsJob) -> list[str]:
    """What a user should know of this merge, one line each."""
    lines = [f"{name} is the base itself: its task vector is zero" for name in sources.untrained]
    if sources.base is None and job.method != "average":
        other = [
            name
            for name, info in sources.first.tensors.items()
            if info.dtype and _not_a_map(name, info.shape)
        ]
        if other:
            lines.append(
                f"without --base, biases, LayerNorm and embeddings are summed as the matrices are ({len(other)}"
                f" tensors, as {other[0]}), which few networks survive; --base sums only what training has changed"
            )
    return lines


def _not_a_map(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) < 2 or is_embedding(name)
