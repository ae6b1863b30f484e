"""Inputs of the tasks at hand, from files: texts, images or tensors for each of the models, and labels."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from decaymerge.checkpoint import Checkpoint
from decaymerge.errors import UserError, listed, reason
from decaymerge.merge_checkpoints.configs import has_tokenizer
from decaymerge.merge_checkpoints.walk import Batch
from decaymerge.reading import DAMAGED, arrays_of, text_of

LEAST = 2
"""Number of inputs of a task from which on something can be said."""
TENSORS = (".npz", ".safetensors")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def assigned(option: str, arguments: Sequence[str], names: Mapping[str, str]) -> dict[str, Path]:
    """Files by model, from arguments ``NAME=FILE``.

    Args:
        option: The option, for messages.
        arguments: What was given. A name may hold ``=`` itself.
        names: Name of each model by what may stand for it.

    Raises:
        UserError: an argument names no model, or a model twice, or a model has no file, or a file is missing.
    """
    files: dict[str, Path] = {}
    for argument in arguments:
        known = [given for given in names if argument.startswith(f"{given}=")]
        if not known:
            raise UserError(
                f"{option} {argument} names none of the models; give NAME=FILE with {listed(names)}"
            )
        given = max(known, key=len)
        path = Path(argument.removeprefix(f"{given}="))
        if names[given] in files:
            raise UserError(
                f"{option} {argument} gives {names[given]} a second file; put all of them into one"
            )
        if not path.exists():
            raise UserError(f"{option} {argument}: there is no {path}")
        files[names[given]] = path
    if files and (missing := [name for name in dict.fromkeys(names.values()) if name not in files]):
        raise UserError(f"{option} is missing for {listed(missing)}; give one for every model, or none")
    return files


def read_inputs(path: Path, checkpoint: Checkpoint, fallback: Path | None, model: Any) -> dict[str, Tensor]:
    """Arguments of a model's forward pass from a text file, a folder of images, or a file of tensors.

    Args:
        path: Lines of text, a folder of images, ``.npz`` or ``.safetensors``.
        checkpoint: The model, whose tokenizer or image processor is used.
        fallback: Folder of the base, whose tokenizer is used where the model has none.
        model: The model, for the names of its arguments.

    Raises:
        UserError: the file does not hold inputs of this model, or fewer than two.
    """
    folders = [folder for folder in (checkpoint.folder, fallback) if folder is not None]
    if path.is_dir():
        batch = _images(path, folders)
    elif is_text(path):
        batch = _texts(path, folders, model)
    else:
        batch = _tensors(path, model)
    count = rows(batch)
    if count < LEAST:
        raise UserError(f"{path} holds {count} input; give {LEAST} or more, better some dozens")
    return batch


def is_text(path: Path) -> bool:
    """Whether a path is read as lines of text."""
    return not path.is_dir() and path.suffix not in TENSORS


def rows(batch: Batch) -> int:
    """Number of inputs."""
    return len(next(iter(batch.values())))


def lines_of(path: Path) -> list[str]:
    """Lines of a text file, none of them empty.

    Raises:
        UserError: it cannot be read as text, or a line is empty.
    """
    try:
        lines = text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as lines of text ({error}); save it as UTF-8") from None
    if not lines:
        raise UserError(f"{path} is empty; give a line for each input")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UserError(f"{path}: line {number} is empty; remove it, or write what belongs there")
    return lines


def _texts(path: Path, folders: Sequence[Path], model: Any) -> dict[str, Tensor]:
    from transformers import AutoTokenizer

    texts = lines_of(path)
    for folder in filter(has_tokenizer, folders):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            break
        except Exception:  # whatever a tokenizer that is not there, or damaged, raises
            continue
    else:
        raise UserError(
            f"{path} holds text, but {' and '.join(map(str, folders))} have no tokenizer that transformers reads;"
            " add it, or give token ids as .npz"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=min(most, 2048), return_tensors="pt")
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None)
    if vocabulary is not None and int(tokens["input_ids"].max()) >= vocabulary:
        raise UserError(
            f"{path}: the tokenizer of {folder} gives the token {int(tokens['input_ids'].max())}, but the model has"
            f" {vocabulary}; give it the tokenizer that it was trained with"
        )
    return _arguments(path, dict(tokens), model, strict=False)


def _images(path: Path, folders: Sequence[Path]) -> dict[str, Tensor]:
    from PIL import Image
    from transformers import AutoImageProcessor

    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGES]
    if not files:
        raise UserError(f"{path} holds no images ({', '.join(IMAGES)}); give a folder of images, or a file")
    try:
        processor = AutoImageProcessor.from_pretrained(folders[0], local_files_only=True)
        pictures = [Image.open(file).convert("RGB") for file in files]
        return dict(processor(pictures, return_tensors="pt"))
    except Exception as error:
        text = str(error).strip().split("\n")[0][:200]
        raise UserError(
            f"the images of {path} cannot be prepared ({text}); give pixel_values as .npz"
        ) from None


def _tensors(path: Path, model: Any) -> dict[str, Tensor]:
    try:
        if path.suffix == ".npz":
            arrays = {name: torch.from_numpy(array) for name, array in arrays_of(path).items()}
        else:
            arrays = load_file(path)
    except DAMAGED as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)}); save it with numpy.savez or safetensors"
        ) from None
    if not arrays or any(not array.ndim for array in arrays.values()):
        raise UserError(
            f"{path} holds no inputs; save one array for each argument of the model, a row an input"
        )
    batch = {
        name: array.float() if array.is_floating_point() else array.long() for name, array in arrays.items()
    }
    for name, array in batch.items():
        if array.is_floating_point() and not array.isfinite().all():
            raise UserError(f"{path}: {name} has an infinite or NaN entry; leave that input out")
    return _arguments(path, batch, model, strict=True)


def _arguments(path: Path, batch: dict[str, Tensor], model: Any, *, strict: bool) -> dict[str, Tensor]:
    """The arguments that the model takes, all with the same number of rows."""
    known = inspect.signature(model.forward).parameters
    unknown = [name for name in batch if name not in known]
    if strict and unknown:
        raise UserError(
            f"{path}: {type(model).__name__} takes no {listed(unknown)}; it takes {listed(known)}"
        )
    batch = {name: value for name, value in batch.items() if name in known}
    counts = {name: len(value) for name, value in batch.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"{path}: arrays differ in their number of rows: {counts}; give a row for each input")
    return batch


def read_labels(path: Path, count: int, model: Any) -> Tensor:
    """Labels of a task's inputs: 0 or 1 (also -1 or 1) for a head with one output, else the number of the class.

    Args:
        path: A label in each line: its number, or its name in the model's config.
        count: Number of inputs.
        model: A model with a head that classifies sequences or images.

    Raises:
        UserError: the model has no such head, or the file holds something else.
    """
    if not type(model).__name__.endswith(("ForSequenceClassification", "ForImageClassification")):
        raise UserError(
            f"--labels {path} needs a model that classifies sequences or images, and {type(model).__name__} does"
            " not; leave --labels out"
        )
    lines = [line.strip() for line in lines_of(path)]
    if len(lines) != count:
        raise UserError(f"{path} holds {len(lines)} labels for {count} inputs; give a line for each")
    classes = model.config.num_labels
    numbers = {"-1": 0, "0": 0, "1": 1, "+1": 1} if classes == 1 else {str(i): i for i in range(classes)}
    numbers = {str(name): int(number) for name, number in model.config.label2id.items()} | numbers
    for number, line in enumerate(lines, start=1):
        if line not in numbers:
            raise UserError(
                f"{path}: line {number} is {line[:40]!r}, no label of this head: {listed(numbers)}"
            )
    return torch.tensor([numbers[line] for line in lines])
