"""Files of weights: their headers, and their tensors. No pickled code runs."""

import argparse
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decaymerge.errors import UserError, listed

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Floating-point types by their names in a safetensors header."""
NESTED_KEYS = ("model", "state_dict", "model_state_dict")
"""Keys under which trainers store the weights, in a file that holds more than the weights."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape, type and file of one tensor, from the header of its file."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    """Type in which the tensor is read, or none if it holds no floating-point numbers."""
    file: Path
    scale: str | None = None
    """Tensor with the scales of a quantised one."""
    copy_of: str | None = None
    """Name in the file, where another tensor stands for this one."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is read; 0 if ``dtype`` is none."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 0)


def read_header(file: Path) -> tuple[dict[str, TensorInfo], list[str], list[str]]:
    """The tensors of a file, problems, and notes on what a container holds beside them, in one line each.

    Raises:
        UserError: the file is damaged or holds more than tensors.
    """
    with file.open("rb") as opened:
        if opened.read(40).startswith(b"version https://git-lfs"):
            raise UserError(f"{file} is a Git LFS pointer, not the weights; run git lfs pull")
    if file.suffix != ".safetensors":
        tensors, problems, notes = _tensors_in(file, _unpickle(file))
        infos = {
            name: TensorInfo(tuple(tensor.shape), tensor.dtype if tensor.is_floating_point() else None, file)
            for name, tensor in tensors.items()
        }
        return infos, problems, notes
    try:
        with safe_open(file, "pt") as source:
            slices = {name: source.get_slice(name) for name in source.keys()}  # noqa: SIM118, not a mapping
            infos = {
                name: TensorInfo(tuple(part.get_shape()), DTYPES.get(part.get_dtype()), file)
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not readable as safetensors ({error}); fetch the checkpoint again"
        ) from None
    return infos, [], []


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # safetensors wraps the operating system's error, such as a full disk
        raise OSError(str(error)) from None


def open_file(file: Path) -> Any:
    """A file of which single tensors are read on demand: a safetensors file, or a mapping from names to tensors.

    Raises:
        UserError: the file is damaged or holds more than tensors.
    """
    if file.suffix == ".safetensors":
        return safe_open(file, "pt")
    return _tensors_in(file, _unpickle(file))[0]


def _tensors_in(file: Path, content: Any) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Tensors of a PyTorch file, problems, and notes on what its container holds beside them.

    Raises:
        UserError: the content is no mapping from names to dense tensors.
    """
    problems, notes = [], []
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            if beside := [str(name) for name, value in content.items() if isinstance(value, Tensor)]:
                problems.append(
                    f"{file.name} holds tensors beside {key!r}, which are not read: {listed(beside)}"
                )
            notes += [
                f"not read: {name!r} of {file.name}, which is beside {key!r}"
                for name, value in content.items()
                if name != key and isinstance(value, Mapping) and _holds_tensors(value)
            ]
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(
            f"{file} holds a {type(content).__name__}, not a mapping from names to tensors; save the state_dict"
        )
    tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    not_dense = [
        name
        for name, value in tensors.items()
        if value.layout is not torch.strided or value.is_meta or value.is_quantized
    ]
    if not_dense:
        raise UserError(
            f"{file}: {not_dense[0]} is sparse, quantised, or has no data; save the checkpoint with dense tensors"
        )
    return {name: value.resolve_neg() for name, value in tensors.items()}, problems, notes


def _holds_tensors(mapping: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in mapping.values())


def _unpickle(file: Path) -> Any:
    """Content of a PyTorch file: memory-mapped, or read as a whole where the file is no zip archive (fairseq's)."""
    try:
        # Files of PyTorch before 1.6 are no zip archives and cannot be mapped. Fairseq's also hold its arguments,
        # a Namespace.
        mapped = zipfile.is_zipfile(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # Bytes that are no checkpoint can raise anything. The message leaves out torch's, which advises unpickling.
        kind = type(error).__name__
        raise UserError(
            f"{file} is not readable as a file of tensors alone ({kind}), and nothing was unpickled; fetch the"
            " checkpoint again, or save it as safetensors"
        ) from None
