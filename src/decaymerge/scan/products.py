"""Product VWᵀW of a few vectors with a matrix as it is stored: the work of a scan.

A matrix is read once for both products, and half precision is widened in registers. Neither NumPy nor PyTorch has
such a product; it is compiled by numba, once a machine.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decaymerge.errors import printable

Blocks = Sequence[Tensor]
"""The rows of one matrix in blocks (rows_b, columns), from top to bottom, in any floating-point types, on one
device."""
BITS = {torch.float16: torch.uint16, torch.bfloat16: torch.int16}
"""Types that hold the bits of half precision, for which numba has no types."""
VECTORS = 4
"""Vectors that are multiplied at a time. (1 to 32 were tried.)"""
PIECE_BYTES = 500_000
"""Size of a piece of W, as it is computed with, that is used twice while it is in the cache of a core. (.1 to 70 MB
were tried.)"""
COMPILED_ENTRIES = 1 << 22
"""Size of a matrix from which on compiled loops save more time than the import of numba takes."""


def computing_type(blocks: Blocks) -> torch.dtype:
    """float64 if any block has it, otherwise float32."""
    return torch.float64 if any(block.dtype == torch.float64 for block in blocks) else torch.float32


def sum_of_squares(block: Tensor) -> float:
    """‖B‖_F², accumulated in float64."""
    flat = (block.T if block.T.is_contiguous() else block).flatten()  # in the order of memory: no copy
    if (loops := _loops(flat)) is not None:
        return _call(loops.sum_of_squares, _stored(flat))
    wide_parts = (part.double() for part in in_cache(flat, torch.float64))
    return sum(float(wide @ wide) for wide in wide_parts)


def product_of(blocks: Blocks, vectors: Tensor) -> Tensor:
    """VWᵀW, in the precision of V.

    Args:
        blocks: W (rows, columns) in blocks of rows, whose entries lie side by side.
        vectors: V, as rows (number, columns), in float32 or float64.
    """
    vectors = vectors.contiguous()
    product = torch.zeros_like(vectors)
    for block in blocks:
        rest = block
        if len(vectors) == VECTORS and (loops := _loops(block)) is not None:
            stride, rows, columns = block.stride(0), len(block) // 4 * 4, block.shape[1]
            entries = block.as_strided(((len(block) - 1) * stride + columns,), (1,))
            arguments = _stored(entries), stride, rows, vectors.numpy(), product.numpy(), loops.AT_ONCE
            _call(loops.add_products, *arguments)
            rest = block[rows:]
        for piece in in_cache(rest, vectors.dtype):
            wide = piece.to(vectors.dtype)
            product.addmm_(vectors @ wide.T, wide)  # the piece is in the cache for the second product
    return product


def _loops(entries: Tensor) -> ModuleType | None:
    """Compiled loops for many entries on the CPU, where numba works."""
    if entries.device.type != "cpu" or entries.numel() < COMPILED_ENTRIES:
        return None
    return _compiled_loops()


@cache
def _compiled_loops() -> ModuleType | None:
    try:
        from decaymerge.scan import compiled
    except ImportError as error:
        reason = printable(f"numba cannot be used ({error}): large matrices take up to twice as long")
        print(reason, file=sys.stderr)
        return None
    return compiled


def _call(loop: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return loop(*arguments)
    except OSError:  # it was compiled, and cannot be kept: a full disk
        return loop(*arguments)


def _stored(entries: Tensor) -> np.ndarray:
    return entries.view(BITS.get(entries.dtype, entries.dtype)).numpy()


def in_cache(block: Tensor, dtype: torch.dtype) -> Sequence[Tensor]:
    """Parts along the first dimension that fit into a cache in this type; one on a GPU, where starts are slow."""
    if block.device.type != "cpu":
        return [block]
    return block.split(max(1, PIECE_BYTES * len(block) // max(1, block.numel() * dtype.itemsize)))
