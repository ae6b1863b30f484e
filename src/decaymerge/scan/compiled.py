"""The compiled loops of ``products``. To import them takes half a second, so only large matrices do.

Numba is its compiler, once for a machine and each pair of types. Four rows at a time, with two or four vectors,
have 8 or 16 sums, which stay in the registers of a core.
"""

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numba.types import Integer

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

PIECE = 32
"""Number of rows that stay in the second cache of a core for the second product. (16 to 64 take about as long.)"""

FEATURES = llvm.get_host_cpu_features()
AT_ONCE = 2 if platform.machine() in ("x86_64", "AMD64") and not FEATURES.get("avx512f") else 4
"""Number of vectors at a time in the first product: 4 x 4 sums need more than the 16 registers of AVX2."""
TILE = 4096 if AT_ONCE == 2 else 1024
"""Number of columns whose vectors stay in a cache. (256 to 4096 take about as long with AVX-512; with AVX2, 1024
take a fifth longer than 4096.)"""
if FEATURES.get("avx512f"):  # LLVM prefers vectors of 256 bits, which take half as long again
    numba.config.CPU_FEATURES = FEATURES.flatten() + ",-prefer-256-bit"
OPTIONS = {
    "nogil": True,
    "fastmath": {"contract", "reassoc"},  # sums in any order, by fused operations
    "error_model": "numpy",
}


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled at its first call and kept on disk."""
    try:
        return numba.njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # neither the folder of this file nor the user's cache can be written
        return numba.njit(function, **OPTIONS)


@intrinsic
def widen(_: Any, stored: Any) -> Any:
    """The number of a stored entry: uint16 holds the bits of a float16, int16 those of a bfloat16."""

    def code(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        (entry,) = arguments
        if stored == numba.uint16:
            return builder.fpext(builder.bitcast(entry, ir.HalfType()), ir.FloatType())
        if stored == numba.int16:
            bits = builder.shl(builder.zext(entry, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
            return builder.bitcast(bits, ir.FloatType())
        return entry

    return (numba.float32 if isinstance(stored, Integer) else stored)(stored), code


@numba.njit(**OPTIONS)
def four(entries: Any, start: int, stride: int, width: int) -> Any:
    """Parts of four rows, which begin ``stride`` entries apart."""
    return (
        entries[start : start + width],
        entries[start + stride : start + stride + width],
        entries[start + 2 * stride : start + 2 * stride + width],
        entries[start + 3 * stride : start + 3 * stride + width],
    )


@kept
def add_products(entries: Any, stride: int, rows: int, vectors: Any, product: Any, at_once: int) -> None:
    """Add VWᵀW to ``product``.

    Args:
        entries: W as stored, row after row.
        stride: Entries from one row to the next.
        rows: Number of rows, a multiple of four.
        vectors: V (4, columns).
        product: The sum (4, columns), in the type of V.
        at_once: Number of vectors at a time in WVᵀ, 2 or 4.
    """
    columns = vectors.shape[1]
    zero = vectors.dtype.type(0)
    outputs = np.empty((PIECE, 4), vectors.dtype)  # WVᵀ
    for top in range(0, rows, PIECE):
        height = min(PIECE, rows - top)
        outputs[:] = zero
        for left in range(0, columns, TILE):
            width = min(TILE, columns - left)
            v0, v1, v2, v3 = four(vectors.ravel(), left, columns, width)
            for row in range(0, height, 4):
                w0, w1, w2, w3 = four(entries, (top + row) * stride + left, stride, width)
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
                c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
                if at_once == 4:
                    for i in range(width):
                        a, b, c, d = widen(w0[i]), widen(w1[i]), widen(w2[i]), widen(w3[i])
                        a0 += a * v0[i]
                        a1 += a * v1[i]
                        a2 += a * v2[i]
                        a3 += a * v3[i]
                        b0 += b * v0[i]
                        b1 += b * v1[i]
                        b2 += b * v2[i]
                        b3 += b * v3[i]
                        c0 += c * v0[i]
                        c1 += c * v1[i]
                        c2 += c * v2[i]
                        c3 += c * v3[i]
                        d0 += d * v0[i]
                        d1 += d * v1[i]
                        d2 += d * v2[i]
                        d3 += d * v3[i]
                else:
                    for i in range(width):
                        a, b, c, d = widen(w0[i]), widen(w1[i]), widen(w2[i]), widen(w3[i])
                        a0 += a * v0[i]
                        a1 += a * v1[i]
                        b0 += b * v0[i]
                        b1 += b * v1[i]
                        c0 += c * v0[i]
                        c1 += c * v1[i]
                        d0 += d * v0[i]
                        d1 += d * v1[i]
                    for i in range(width):
                        a, b, c, d = widen(w0[i]), widen(w1[i]), widen(w2[i]), widen(w3[i])
                        a2 += a * v2[i]
                        a3 += a * v3[i]
                        b2 += b * v2[i]
                        b3 += b * v3[i]
                        c2 += c * v2[i]
                        c3 += c * v3[i]
                        d2 += d * v2[i]
                        d3 += d * v3[i]
                part = outputs[row : row + 4]
                part[0, 0] += a0
                part[0, 1] += a1
                part[0, 2] += a2
                part[0, 3] += a3
                part[1, 0] += b0
                part[1, 1] += b1
                part[1, 2] += b2
                part[1, 3] += b3
                part[2, 0] += c0
                part[2, 1] += c1
                part[2, 2] += c2
                part[2, 3] += c3
                part[3, 0] += d0
                part[3, 1] += d1
                part[3, 2] += d2
                part[3, 3] += d3
        for left in range(0, columns, TILE):
            width = min(TILE, columns - left)
            p0, p1, p2, p3 = four(product.ravel(), left, columns, width)
            for row in range(0, height, 4):
                w0, w1, w2, w3 = four(entries, (top + row) * stride + left, stride, width)
                part = outputs[row : row + 4]
                a0, a1, a2, a3 = part[0, 0], part[0, 1], part[0, 2], part[0, 3]
                b0, b1, b2, b3 = part[1, 0], part[1, 1], part[1, 2], part[1, 3]
                c0, c1, c2, c3 = part[2, 0], part[2, 1], part[2, 2], part[2, 3]
                d0, d1, d2, d3 = part[3, 0], part[3, 1], part[3, 2], part[3, 3]
                for i in range(width):
                    a, b, c, d = widen(w0[i]), widen(w1[i]), widen(w2[i]), widen(w3[i])
                    p0[i] += a * a0 + b * b0 + c * c0 + d * d0
                    p1[i] += a * a1 + b * b1 + c * c1 + d * d1
                    p2[i] += a * a2 + b * b2 + c * c2 + d * d2
                    p3[i] += a * a3 + b * b3 + c * c3 + d * d3


@kept
def sum_of_squares(entries: Any) -> Any:
    """Sum of the squares of stored entries, in float64."""
    total = 0.0
    for left in range(0, len(entries), TILE):
        piece, part = entries[left : left + TILE], 0.0
        for i in range(len(piece)):
            part += np.float64(widen(piece[i])) ** 2
        total += part
    return total
