"""A checkpoint on disk: its headers are read at once, its tensors on demand. No pickled code runs."""

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
"""Floating-point types by their names in a safetensors header. Those of 8 bits, which need scales, are missing."""

NESTED_KEYS = ("model", "state_dict", "model_state_dict")
"""Keys under which trainers store the weights, in a file that holds more than the weights."""
REOPEN_BYTES = 256_000_000
"""After this many bytes are read, the files are closed and opened again, so that mapped pages do not add up."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape, type and file of one tensor, from the header of its file."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    """None if the tensor holds no floating-point numbers, or 8-bit ones."""
    file: Path

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as stored; 0 if ``dtype`` is none."""
        count = 1
        for size in self.shape:
            count *= size
        return count * (self.dtype.itemsize if self.dtype is not None else 0)


class Checkpoint:
    """The tensors of a checkpoint by name.

    They are read from safetensors files, in shards or not, or else from ``.bin`` or ``.pt`` files, which PyTorch
    loads with ``weights_only``.

    Args:
        place: Folder with the weights and, optionally, ``config.json``; or one weights file.

    Raises:
        UserError: there are no weights, two files have a tensor of the same name, or a file is damaged or holds
            more than tensors.
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
        self.unmapped_bytes = sum(file.stat().st_size for file in legacy)
        """Bytes of the files that cannot be mapped: they are in memory as a whole."""
        self._opened: dict[Path, Any] = {}
        self._touched = 0

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Tensors as stored, in the order of ``names``. They are backed by the mapped file, not copied.

        The pages that were read stay mapped and count as the process's memory. Once ``REOPEN_BYTES`` are read, the
        next call closes the files and opens them again.

        Raises:
            UserError: a PyTorch file is damaged or holds more than tensors.
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
    """Weights files of a folder: all ``.safetensors`` files, else all ``.bin`` or else all ``.pt`` files.

    If the folder has an index of shards, these are the files that the index names.

    Raises:
        UserError: there is no weights file, a file of the index is missing, or the index is damaged.
    """
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
                    f"{index} has no weight_map from tensors to files next to it; fetch the checkpoint again"
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
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); fetch the checkpoint again") from None
    return document if isinstance(document, dict) else {}


def _header(file: Path) -> dict[str, TensorInfo]:
    if file.suffix != ".safetensors":
        return {
            name: TensorInfo(tuple(tensor.shape), tensor.dtype if tensor.is_floating_point() else None, file)
            for name, tensor in _load(file).items()
        }
    try:
        with safe_open(file, "pt") as source:
            slices = {name: source.get_slice(name) for name in source.keys()}  # noqa: SIM118, not a mapping
            return {
                name: TensorInfo(tuple(part.get_shape()), DTYPES.get(part.get_dtype()), file)
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not readable as safetensors ({error}); fetch the checkpoint again"
        ) from None


def _load(file: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch file: memory-mapped, or read as a whole where the file is no zip archive (fairseq's)."""
    with file.open("rb") as opened:
        if opened.read(40).startswith(b"version https://git-lfs"):
            raise UserError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull")
    try:
        # Files of PyTorch before 1.6 are no zip archives and cannot be mapped. Fairseq's also hold its arguments,
        # a Namespace.
        mapped = zipfile.is_zipfile(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # Bytes that are no checkpoint can raise anything. The message leaves out torch's, which advises unpickling.
        kind = type(error).__name__
        raise UserError(
            f"{file} is not readable as a file of tensors alone ({kind}), and nothing was unpickled; fetch the"
            " checkpoint again, or save it as safetensors"
        ) from None
    for key in NESTED_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise UserError(
            f"{file} holds a {type(loaded).__name__}, not a mapping from names to tensors; save the state_dict"
        )
    tensors = {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}
    not_dense = [
        name for name, value in tensors.items() if value.layout is not torch.strided or value.is_meta
    ]
    if not_dense:
        raise UserError(
            f"{file}: {not_dense[0]} is sparse or has no data; save the checkpoint with dense tensors"
        )
    return {name: value.resolve_neg() for name, value in tensors.items()}
