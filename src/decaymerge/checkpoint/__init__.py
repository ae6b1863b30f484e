"""A checkpoint on disk: its headers are read at once, its tensors on demand. No pickled code runs.

``model_files`` decides which files are read, ``kinds`` refuses adapters and quantised weights, and ``form``
compares the tensors with the model that ``transformers`` would build.
"""

import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decaymerge import model_files as rule
from decaymerge.checkpoint import kinds
from decaymerge.checkpoint.reader import TensorInfo, open_file, read_header
from decaymerge.errors import UserError, listed
from decaymerge.model_files import read_json

REOPEN_BYTES = 256_000_000
"""After this many bytes are read, the files are closed and opened again, so that mapped pages do not add up."""


class Checkpoint:
    """The tensors of a checkpoint by name.

    They are read from the files from which ``transformers`` would read them. PyTorch loads ``.bin`` and ``.pt``
    files with ``weights_only``. Weights in fp8 and MXFP4 are read as the numbers that they stand for.

    Args:
        place: Folder with the weights and, optionally, ``config.json``; or one weights file.

    Raises:
        UserError: there are no weights, or several that could be meant; two files have a tensor of the same name;
            a file is damaged or holds more than tensors; the checkpoint is an adapter, or quantised in another way.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place if place.is_dir() else place.parent
        self.config: dict[str, Any] = read_json(self.folder / "config.json")
        self.changed: frozenset[str] = frozenset()
        """Tensors that an adapter changes."""
        self.problems: list[str] = []
        """What is missing of the files, each in one line."""
        self.notes: list[str] = []
        """Lines about what lies in the folder and is not read."""
        self._opened: dict[Path, Any] = {}
        self._touched = 0
        self.files, named = self._weight_files()
        stored: dict[str, TensorInfo] = {}
        for file in self.files:
            header, problems, notes = read_header(file)
            self.problems += problems
            self.notes += notes
            for name, info in header.items():
                if name in stored and not self._same(name, stored[name].file, file):
                    raise UserError(
                        f"{name} is in {stored[name].file.name} and in {file.name}, with other numbers; fetch the"
                        " checkpoint again"
                    )
                stored.setdefault(name, info)
        kinds.refuse_adapter(place, stored, self.folder / "adapter_config.json")
        self.quantisation = kinds.quantisation(self.config, stored)
        kinds.refuse_quantised(place, self.quantisation)
        if lost := sorted(named - stored.keys()):
            self.problems.append(f"the index names {len(lost)} tensors that no file holds: {listed(lost)}")
        self.tensors = self._in_numbers(stored)
        legacy = [
            file for file in self.files if file.suffix != ".safetensors" and not zipfile.is_zipfile(file)
        ]
        self.unmapped_bytes = sum(file.stat().st_size for file in legacy)
        """Bytes of the files that cannot be mapped: they are in memory as a whole."""

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Tensors in the order of ``names``, as stored and backed by the mapped file; quantised ones in float32.

        The pages that were read stay mapped and count as the process's memory. Once ``REOPEN_BYTES`` are read, the
        next call closes the files and opens them again.

        Raises:
            UserError: a PyTorch file is damaged or holds more than tensors.
        """
        if self._touched > REOPEN_BYTES:
            self._opened.clear()
            self._touched = 0
        self._touched += sum(self.tensors[name].nbytes for name in names)
        return [self._numbers(name) for name in names]

    def untie(self, copy: str, table: str) -> None:
        """Give a tied copy of a table numbers of its own: those of the table, which is stored alone.

        Args:
            copy: Name of the parameter that is tied.
            table: Name of the stored tensor.
        """
        self.tensors[copy] = replace(self.tensors[table], copy_of=table)
        self.config = {**self.config, "tie_word_embeddings": False}

    def _numbers(self, name: str) -> Tensor:
        info = self.tensors[name]
        if info.scale is None:
            return self._tensor(info.file, info.copy_of or name)
        scale = self._tensor(self._scale_files[info.scale], info.scale)
        if info.scale == f"{name}_scales":
            return kinds.from_mxfp4(self._tensor(info.file, f"{name}_blocks"), scale)
        return kinds.from_float8(self._tensor(info.file, name), scale, kinds.block_of(self.config))

    def _tensor(self, file: Path, name: str) -> Tensor:
        if file not in self._opened:
            self._opened[file] = open_file(file)
        source = self._opened[file]
        tensor: Tensor = source[name] if isinstance(source, Mapping) else source.get_tensor(name)
        return tensor

    def _same(self, name: str, one: Path, other: Path) -> bool:
        return self._tensor(one, name).equal(self._tensor(other, name))

    def _weight_files(self) -> tuple[list[Path], set[str]]:
        """Weights files, and the tensors that an index names; missing files are added to ``problems``.

        Raises:
            UserError: there is no weights file, there are several that could be meant, or the index is damaged.
        """
        if self.place.is_file():
            if rule.missing_shards([self.place.name]):
                self.problems.append(f"{self.place.name} is one of several shards; give their folder")
            return [self.place], set()
        names = {path.name for path in self.place.iterdir() if path.is_file()}
        choice = rule.choose(names | self._inside(self.config.get("transformers_weights")), self.config)
        if choice is None:
            raise UserError(self._without_weights(names))
        read, tensors = choice.files, set[str]()
        if not read:
            raise UserError(
                f"{self.place / 'config.json'} names {choice.missing[0]} as transformers_weights, and it is not"
                " there; fetch it, or remove the key"
            )
        self._lacks(choice.missing)
        if read[0].endswith(".index.json"):
            index = self.place / read[0]
            weight_map = read_json(index).get("weight_map")
            shards = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
            there = set().union(*map(self._inside, shards))
            outside = [name for name in shards if ".." in Path(name).parts or Path(name).is_absolute()]
            if not shards or outside:
                raise UserError(
                    f"{index} has no weight_map from tensors to files in its folder"
                    f"{f' ({listed(outside)} is outside)' if outside else ''}; put all files into one folder"
                )
            self._lacks(sorted(shards - there))
            read, tensors = sorted(there), set(weight_map or {})
            if not read:
                raise UserError(f"{index} names {listed(sorted(shards))}, and none is there; fetch them")
        if others := rule.not_read(names, [Path(name).name for name in read]):
            self.notes.append(f"not read: {listed(others)}, as transformers reads {listed(read)}")
        return [self.place / name for name in read], tensors

    def _inside(self, name: object) -> set[str]:
        """A path relative to the folder, if there is such a file in it, or below it."""
        if not isinstance(name, str):
            return set()
        path, folder = (self.place / name), self.place.resolve()
        # A file may be a link to elsewhere, as in the hub's cache; its place may not.
        inside = folder in (path.parent.resolve() / path.name).parents
        return {name} if inside and path.is_file() else set()

    def _lacks(self, names: Sequence[str]) -> None:
        if names:
            self.problems.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} missing")

    def _without_weights(self, names: Collection[str]) -> str:
        weights = sorted(filter(rule.is_weights, names))
        if any(map(rule.ADAPTER.fullmatch, weights)):
            return kinds.of_adapter(self.place, self.place / "adapter_config.json")
        if weights:
            return f"{self.place} holds {listed(weights)}, of which transformers reads none; give one of the files"
        below = sorted({path.parent.name for path in self.place.glob("*/*") if rule.is_weights(path.name)})
        hint = f", such as one of its folders {listed(below)}" if below else ""
        return (
            f"{self.place} holds no *.safetensors, *.bin or *.pt file; give the folder of a checkpoint{hint}"
        )

    def _in_numbers(self, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        """The tensors that the stored ones stand for: those of quantised weights without their scales.

        Raises:
            UserError: weights of 4 or 8 bits have no scale.
        """
        packed = {
            name: f"{name.removesuffix('_blocks')}_scales"
            for name, info in stored.items()
            if self.quantisation == "mxfp4" and name.endswith("_blocks") and len(info.shape) == 4
        }
        scales = {
            name: f"{name}_scale_inv" for name, info in stored.items() if info.dtype in kinds.FLOAT8
        } | packed
        self._scale_files = {name: stored[name].file for name in scales.values() if name in stored}
        tensors = {}
        for name, info in stored.items():
            scale = scales.get(name)
            if name in self._scale_files:
                continue
            if scale is not None and scale in stored and name not in packed:
                kinds.check_scale(self.place, name, info, stored[scale], self.config)
            if scale is not None and scale not in stored:
                raise UserError(
                    f"{name} of {self.place} has few bits, which mean nothing without their scale; give the"
                    " checkpoint in 16 or 32 bits"
                )
            if name in packed:
                experts, out, blocks, pairs = info.shape
                shape = (experts, blocks * 2 * pairs, out)
                tensors[name.removesuffix("_blocks")] = TensorInfo(shape, torch.float32, info.file, scale)
            else:
                tensors[name] = replace(info, dtype=torch.float32, scale=scale) if scale else info
        return tensors
