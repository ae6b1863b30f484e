"""Write the merged checkpoint, shard by shard; its folder appears when all of it is written."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import load_file
from torch import Tensor

from decaymerge.atomic import atomic_folder, is_result
from decaymerge.checkpoint.adapted import Adapted
from decaymerge.checkpoint.adapter import CONFIG as ADAPTER_CONFIG
from decaymerge.checkpoint.model_class import without_quantisation
from decaymerge.checkpoint.reader import save_tensors
from decaymerge.config.merging import asks_for_inputs
from decaymerge.errors import UserError
from decaymerge.low_rank import dense
from decaymerge.merge import apply
from decaymerge.merge_checkpoints import Sources, record, stored_bytes, type_name
from decaymerge.merge_checkpoints.configs import different_meanings, different_tokenizers
from decaymerge.merge_checkpoints.matrices import is_embedding
from decaymerge.model_files import belongs, has_weights_of_its_own, is_tokenizer
from decaymerge.progress import progress_bar
from decaymerge.workflow.jobs import CheckpointsJob


def merged_tensor(sources: Sources, job: CheckpointsJob, tensor: str) -> Tensor:
    """One tensor of the merged checkpoint, with the shape and type that it has in the first model.

    W_base + c Σ_i (W_i - W_base), or c Σ_i W_i without a base; the factor c depends on the method. A tensor without
    floating-point numbers is copied.

    Raises:
        UserError: an entry is infinite or NaN, in a checkpoint or after merging.
    """
    info = sources.first.tensors[tensor]
    if info.dtype is None:
        return sources.first.read([tensor])[0].contiguous().clone()
    total, base = merged_change(sources, job, tensor)
    wide: Tensor = dense(total) if base is None else base + total
    weight = wide.to(info.dtype).contiguous()
    if wide.any() and not weight.any():
        raise UserError(
            f"{tensor}: the merged numbers are all too small for {type_name(info.dtype)}; give a larger"
            f" --coefficient, or store {sources.names[0]} in a wider type"
        )
    if not weight.isfinite().all():
        raise UserError(
            f"{tensor}: the merged numbers are too large for {type_name(info.dtype)}; give a smaller --coefficient,"
            f" or store {sources.names[0]} in a wider type"
        )
    return weight


def merged_change(sources: Sources, job: CheckpointsJob, tensor: str) -> tuple[Any, Tensor | None]:
    """The merged summand of one tensor, in factors if it is of low rank, and the base's tensor, if there is one."""
    summands, base = sources.read(tensor)
    available: dict[str, Any] = {"names": sources.names, "role": sources.roles[tensor]}
    if base is not None:
        available["base"] = base
    return apply(job.method, summands, **available), base


def rest_of(job: CheckpointsJob) -> CheckpointsJob:
    """The job for tensors that no input shows: the method itself, or a sum or an average where it needs inputs."""
    if not asks_for_inputs([job.method]):
        return job
    return job.model_copy(update={"method": "average" if job.base is None else "sum"})


def write(
    sources: Sources,
    job: CheckpointsJob,
    output: Path,
    max_shard_bytes: int,
    solved: Mapping[str, Path] | None = None,
    effects: Sequence[str] = (),
    expected: record.Expected | None = None,
) -> None:
    """Write the merged checkpoint in the form that ``transformers`` reads; one shard is in memory at a time.

    Args:
        sources: The checkpoints to merge.
        job: The merge method, and what ``merge.json`` records.
        output: Folder to write.
        max_shard_bytes: Largest size of a weights file, in bytes.
        solved: Files of the tensors that were merged before, from inputs.
        effects: Lines about what was measured on inputs.
        expected: The recipe whose bits are expected, or none.

    Raises:
        UserError: ``output`` exists and is not empty or cannot be written, an entry of a checkpoint is infinite or
            NaN, or a sum is too large for its type.
    """
    refuse_existing(output)
    rest = rest_of(job)
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
                file_of = (solved or {}).get(name)
                shard[name] = load_file(file_of)[name] if file_of else merged_tensor(sources, rest, name)
                bar.update(sizes[name])
            save_tensors(shard, folder / file)
        if shards.is_sharded:
            index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        _copy_files(sources, folder)
        record.write(folder, sources, job, effects, expected)


def refuse_existing(output: Path) -> None:
    """Refuse to write over existing files.

    Raises:
        UserError: ``output`` is a file, or a folder that is not empty.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"--output {output} exists and is not empty; give another folder, or remove it")


def refuse_inside(output: Path, sources: Sources) -> None:
    """Refuse an output inside a folder that is read: later it would count as a part of that model.

    Raises:
        UserError: ``output`` is in the folder of a model or of the base.
    """
    checkpoints = [*sources.models.values(), *([] if sources.base is None else [sources.base])]
    for folder in (folder for checkpoint in checkpoints for folder in (checkpoint.folder, checkpoint.place)):
        if folder.resolve() in output.resolve().parents:
            raise UserError(f"--output {output} is inside {folder}, which is read; give a place outside")


def _copy_files(sources: Sources, folder: Path) -> None:
    """Copy the first model's files, and those of the base that the first model lacks.

    The files of a tokenizer are all taken from the same checkpoint. The config of a merged model says no more that
    it is quantised.
    """
    origins = [sources.first.folder] if sources.base is None else [sources.first.folder, sources.base.folder]
    has_tokenizer = any(is_tokenizer(path) for path in files_beside(origins[0]))
    for origin in origins:
        of_adapter = isinstance(sources.first, Adapted) and origin == sources.first.folder
        for path in files_beside(origin):
            if is_result(origin / path):
                continue  # a scan or a report that lies there
            if of_adapter and ("/" in path or path in ("config.json", "generation_config.json")):
                continue  # an adapter has neither parts nor a config of its own
            if (folder / path).exists() or (origin != origins[0] and has_tokenizer and is_tokenizer(path)):
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin / path, folder / path)
    config = folder / "config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    plain = without_quantisation(
        {key: value for key, value in settings.items() if key != "transformers_weights"}
    )
    if sources.first.quantisation:
        plain |= {"dtype": "float32", "torch_dtype": "float32"}
    if "tie_word_embeddings" in sources.first.config:
        plain["tie_word_embeddings"] = sources.first.config["tie_word_embeddings"]
    if plain != settings:
        config.write_text(json.dumps(plain, indent=2) + "\n")


def files_beside(folder: Path) -> list[str]:
    """Files of a model beside its weights, in its folder and in those below, and weights of parts of it there."""
    paths: list[str] = []
    seen = {folder.resolve()}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [
            name
            for name in folders
            if (Path(place) / name).resolve() not in seen
            and not (Path(place) / name / ADAPTER_CONFIG).exists()
        ]
        seen |= {(Path(place) / name).resolve() for name in folders}
        paths += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
    return [path for path in sorted(paths) if belongs(path) or has_weights_of_its_own(path)]


def refuse_other_parts(sources: Sources) -> None:
    """Refuse parts in sub-folders whose weights differ: the merge would drop all of them but the first model's.

    Raises:
        UserError: a sub-folder's weights are not the same in all checkpoints.
    """
    models = [checkpoint for checkpoint in sources.models.values() if not isinstance(checkpoint, Adapted)]
    folders = [checkpoint.folder for checkpoint in models]
    for folder in folders:
        for path in filter(has_weights_of_its_own, files_beside(folder)):
            contents = [
                (other / path).read_bytes() if (other / path).is_file() else None for other in folders
            ]
            if any(content != contents[0] for content in contents):
                raise UserError(
                    f"{path} is a part of {folder} with weights of its own, which differ between the checkpoints:"
                    f" merge the folders {Path(path).parent} by themselves, and this model without them"
                )


def warnings(sources: Sources, job: CheckpointsJob) -> list[str]:
    """Warnings about this merge, one line each: models that equal the base, and sums that few networks survive."""
    lines = [f"{name} is the base itself: its task vector is zero" for name in sources.untrained]
    folders = {name: checkpoint.folder for name, checkpoint in sources.models.items()}
    lines += different_tokenizers(folders)
    lines += different_meanings({name: checkpoint.config for name, checkpoint in sources.models.items()})
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
