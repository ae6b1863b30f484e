"""Write the merged checkpoint, shard by shard; its folder appears when all of it is written."""

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
from decaymerge.fetch.model import TOKENIZER_FILES
from decaymerge.merge import apply
from decaymerge.progress import progress_bar
from decaymerge.provenance import provenance
from decaymerge.workflow.jobs import CheckpointsJob

COPIED_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template*",
    "configuration_*.py",
    "modeling_*.py",
    "tokenization_*.py",
)
"""Files that a checkpoint needs besides its weights and its tokenizer."""
RECORD = "merge.json"
"""File of the merged checkpoint that records its settings and the code that made it."""


def merged_tensor(sources: Sources, job: CheckpointsJob, tensor: str) -> Tensor:
    """One tensor of the merged checkpoint, with the shape and type that it has in the first model.

    W_base + c Σ_i (W_i - W_base), or c Σ_i W_i without a base; the factor c depends on the method. A tensor without
    floating-point numbers is copied.

    Raises:
        UserError: an entry is infinite or NaN, in a checkpoint or after merging.
    """
    info = sources.first.tensors[tensor]
    if info.dtype is None:
        return sources.first.read([tensor])[0].clone()
    summands, base = sources.read(tensor)
    available = {} if base is None else {"base": base}
    total: Tensor = apply(job.method, summands, **available)
    weight = (total if base is None else base + total).to(info.dtype).contiguous()
    if not weight.isfinite().all():
        raise UserError(
            f"{tensor}: the merged numbers are too large for {type_name(info.dtype)}; give a smaller --coefficient,"
            f" or store {sources.names[0]} in a wider type"
        )
    return weight


def write(sources: Sources, job: CheckpointsJob, output: Path, max_shard_bytes: int) -> None:
    """Write the merged checkpoint in the form that ``transformers`` reads; one shard is in memory at a time.

    Args:
        sources: The checkpoints to merge.
        job: The merge method, and what ``merge.json`` records.
        output: Folder to write.
        max_shard_bytes: Largest size of a weights file, in bytes.

    Raises:
        UserError: ``output`` exists and is not empty or cannot be written, an entry of a checkpoint is infinite or
            NaN, or a sum is too large for its type.
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
                shard[name] = merged_tensor(sources, job, name)
                bar.update(sizes[name])
            _save(shard, folder / file)
        if shards.is_sharded:
            index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        _copy_files(sources, folder)
        record = {"settings": job.model_dump(), **provenance()}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def refuse_existing(output: Path) -> None:
    """Refuse to write over existing files.

    Raises:
        UserError: ``output`` is a file, or a folder that is not empty.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"--output {output} exists and is not empty; give another folder, or remove it")


def _save(shard: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(shard, path, metadata={"format": "pt"})
    except SafetensorError as error:  # safetensors wraps the operating system's error, such as a full disk
        raise OSError(str(error)) from None


def _copy_files(sources: Sources, folder: Path) -> None:
    """Copy the first model's files, and those of the base that the first model lacks.

    The files of a tokenizer are all taken from the same checkpoint.
    """
    checkpoints = [sources.first] if sources.base is None else [sources.first, sources.base]
    origins = [checkpoint.files[0].parent for checkpoint in checkpoints]
    tokenizer = next(filter(None, (_matching(origin, TOKENIZER_FILES) for origin in origins)), [])
    # Files of the first model come last: they replace the base's.
    others = [path for origin in reversed(origins) for path in _matching(origin, COPIED_FILES)]
    for path in [*tokenizer, *others]:
        shutil.copyfile(path, folder / path.name)


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]


def warnings(sources: Sources, job: CheckpointsJob) -> list[str]:
    """Warnings about this merge, one line each: models that equal the base, and sums that few networks survive."""
    lines = [f"{name} is the base itself: its task vector is zero" for name in sources.untrained]
    if sources.base is None and job.method != "average":
        not_maps = [
            name
            for name, info in sources.first.tensors.items()
            if info.dtype and not _is_linear_map(name, info.shape)
        ]
        if not_maps:
            lines.append(
                f"without --base, biases, LayerNorm and embeddings are summed like the matrices ({len(not_maps)}"
                f" tensors, such as {not_maps[0]}), which few networks survive; --base sums only the changes by"
                " training"
            )
    return lines


def _is_linear_map(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and not is_embedding(name)
