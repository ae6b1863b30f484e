"""A checkpoint on disk: what its headers say, and tensors read one layer at a time. No pickled code runs."""

import argparse
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decaymerge.errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Floating-point types of a safetensors header that are numbers by themselves; 8-bit ones need scales."""

NESTED = ("model", "state_dict", "model_state_dict")
"""Where trainers put the weights in a file that holds more."""
REOPEN_BYTES = 256_000_000
"""Bytes that are read before files are closed and opened again, so that mapped pages do not add up."""


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor; ``dtype`` is none where it is not floating-point."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    file: Path

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        count = 1
        for size in self.shape:
            count *= size
        return count * (self.dtype.itemsize if self.dtype is not None else 0)


class Checkpoint:
    """Tensors of a folder by name: safetensors, sharded or not, else ``.bin`` or ``.pt`` with ``weights_only``.

    Args:
        place: Folder with the weights and, if there is one, ``config.json``; or one weights file.

    Raises:
        UserError: there are no weights, or a file is damaged or holds more than tensors.
    """

    def __init__(self, place: Path) -> None:
        self.files = weight_files(place)
        folder = place if place.is_dir() else place.parent
        self.config: dict[str, Any] = _read_json(folder / "config.json")
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, info in _header(file).items():
                if name in self.tensors:
                    raise UserError(
                        f"{name} is in {self.tensors[name].file.name} and in {file.name}; give one of the files"
                    )
                self.tensors[name] = info

        legacy = [
            file for file in self.files if file.suffix != ".safetensors" and not zipfile.is_zipfile(file)
        ]
        self.whole_bytes = sum(file.stat().st_size for file in legacy)
        """Of files that cannot be mapped."""
        self._opened: dict[Path, Any] = {}
        self._touched = 0

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Tensors as stored, backed by the file.

        What was read stays mapped, and counts as the process's memory, until ``REOPEN_BYTES`` were read: then the
        files are closed, and opened again for this call.
        """
        if self._touched > REOPEN_BYTES:
            self._opened.clear()
            self._touched = 0
        self._touched += sum(self.tensors[name].nbytes for name in names)
        return [self._tensor(self.tensors[name].file, name) for name in names]

    def _tensor(self, file: Path, name: str) -> Tensor:
        if file not in self._opened:
            self._opened[file] = safe_open(file, "pt") if file.suffix == ".safetensors" else _load(file)
        source = self._opened[file]
        tensor: Tensor = source[name] if isinstance(source, Mapping) else source.get_tensor(name)
        return tensor


def weight_files(place: Path) -> list[Path]:
    """Weights files of a folder: all safetensors, else one kind of PyTorch file."""
    if place.is_file():
        return [place]
    for pattern in ("*.safetensors", "*.bin", "*.pt"):
        files = sorted(path for path in place.glob(pattern) if path.name != "training_args.bin")
        index = next(iter(sorted(place.glob(f"{pattern}.index.json"))), None)
        if index is not None:
            weight_map = _read_json(index).get("weight_map")
            names = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
            if not names or any(name != Path(name).name for name in names):
                raise UserError(
                    f"{index} has no weight_map from tensors to files beside it; fetch the checkpoint again"
                )
            files = sorted(place / name for name in names)
        if missing := [path.name for path in files if not path.is_file()]:
            raise UserError(
                f"{place} lacks {', '.join(missing)}, which its index names; fetch the checkpoint again"
            )
        if files:
            return files
    raise UserError(f"{place} holds no *.safetensors, *.bin or *.pt file; give the folder of a checkpoint")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); fetch the checkpoint again") from None
    return found if isinstance(found, dict) else {}


def _header(file: Path) -> dict[str, TensorInfo]:
    if file.suffix != ".safetensors":
        return {
            name: TensorInfo(tuple(tensor.shape), tensor.dtype if tensor.is_floating_point() else None, file)
            for name, tensor in _load(file).items()
        }
    try:
        with safe_open(file, "pt") as source:
            slices = {name: source.get_slice(name) for name in source.keys()}  # noqa: SIM118, it is no mapping
            return {
                name: TensorInfo(tuple(part.get_shape()), DTYPES.get(part.get_dtype()), file)
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not readable as safetensors ({error}); fetch the checkpoint again"
        ) from None


def _load(file: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch file, memory-mapped; fairseq's legacy files (not zip archives) are read whole."""
    with file.open("rb") as opened:
        if opened.read(40).startswith(b"version https://git-lfs"):
            raise UserError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull")
    try:
        # A file of before PyTorch 1.6 is no archive and cannot be mapped; fairseq keeps its arguments beside.
        mapped = zipfile.is_zipfile(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        Exception
    ) as error:  # bytes that are no checkpoint fail in any way; torch's advice to unpickle is not given
        kind = type(error).__name__
        raise UserError(
            f"{file} is not readable as a file of tensors alone ({kind}); nothing was unpickled"
        ) from None
    for key in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise UserError(f"{file} holds a {type(loaded).__name__}, not a mapping from names to tensors")
    tensors = {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}
    if odd := [name for name, value in tensors.items() if value.layout is not torch.strided or value.is_meta]:
        raise UserError(f"{file}: {odd[0]} is sparse or without data; save the checkpoint with dense tensors")
    return {name: value.resolve_neg() for name, value in tensors.items()}
