"""Predict, for each matrix and from weights alone, how much the networks of a sum disturb each other.

**Why the weights are enough.** Let a matrix be trained by gradient descent with weight decay towards its start W_0
(0 if nothing was pretrained), on inputs x_1 … x_n of the layer. Then Δ = W - W_0 obeys
Δ ← (1 - ηλ) Δ - η Σ_i g_i x_iᵀ, where g_i is the gradient at the layer's output. Hence, after T steps,

    Δ_T = Σ_i a_i x_iᵀ    and    Δ_T x = Σ_i a_i ⟨x_i, x⟩,
    with    a_i = -η Σ_s (1 - ηλ)^(T-1-s) g_i(s).

Lemma 5 of the paper uses this step. If the layer's inputs change during training, the sum runs over all of them. So
Δ acts on an input x of another task only through the inner products of x with Δ's own inputs. Lemma 5 bounds
‖Δ_B x‖ by the largest of these inner products, ε, and Corollary 1 bounds the change of the output of f_A by
‖a‖ ‖Δ_B x‖. (With momentum, the a_i have other values and Δ stays in the span of the inputs. Adam divides by the
size of each entry, and leaves the span.)

**What replaces the inputs.** A checkpoint contains no inputs. But A's inputs span the row space of Δ_A, and weight
decay makes Δ_A low-rank. Its leading right singular vectors V_A (their number is the stable rank, rounded up) are
the directions of A's inputs that A uses. (This replacement is ours.) So

    interference of A = ‖Δ_B V_A‖_F / ‖Δ_A V_A‖_F

compares the action of B on these directions with the action of A itself. It is 0 if the tasks' inputs are
orthogonal, and about 1 if both networks use the same inputs in the same way. If more than two networks are merged,
Δ_B is the sum of all others. Without a base, W_A takes the place of Δ_A. The merge method's coefficient cancels.

A second prediction is the inner product ⟨Δ_A, Δ_B⟩ = Σ_i a_iᵀ Δ_B x_i, a sum over A's samples. It says how far B
moves the layer's outputs on A's inputs along the directions a_i, in which A has moved them, and on which A's output
depends. It takes both sides of the matrix into account, and the size of both updates. (Ours.)

Neither prediction knows about inputs that A relies on although training A has not changed the matrix there, about
biases and LayerNorm, about the sensitivity of the network to each matrix, or about later layers, which get other
inputs after merging.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import ArpackError, svds

from decaymerge import store
from decaymerge.low_rank import small
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_checkpoints.matrices import matrices_of
from decaymerge.progress import progress_bar
from decaymerge.scan.spectral import frobenius_norm, spectral_norm

LANCZOS_SHARE = 0.05
"""Lanczos computes the singular vectors if they are at most this share of the smaller dimension, where it is faster
than a full decomposition."""
RANK_TOLERANCE = 1e-4
"""A stable rank that is above a whole number by at most this relative amount counts as that number, so that a
matrix of rank one has one direction."""
LONG_NAMES = {
    "frobenius_norm": "Frobenius norm of the summand",
    "spectral_norm": "spectral norm of the summand",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "directions": "number of leading right singular vectors that replace the inputs: the stable rank, rounded up",
    "overlap": "‖V_Aᵀ V_B‖_F² / min(r_A, r_B) of the leading right singular vectors, largest over the others",
    "action": "‖Δ_B V_A‖_F, action of the sum of the others on the model's leading input directions",
    "inner_product": "⟨Δ_A, Δ_B⟩, sum over A's inputs of how far B moves them where A has moved them",
    "interference": "‖Δ_B V_A‖_F / ‖Δ_A V_A‖_F, predicted interference",
}


@dataclass(frozen=True)
class Summand:
    """What one model adds to a matrix, (out, in): its task vector Δ or, without a base, its weights W."""

    matrix: np.ndarray
    norm: float
    """Frobenius norm."""
    spectral: float
    """Spectral norm."""
    rank: float
    """Stable rank; NaN for a matrix of zeros."""
    directions: np.ndarray
    """Leading right singular vectors, as orthonormal columns (in, r); r is the stable rank, rounded up."""

    @classmethod
    def of(cls, matrix: np.ndarray) -> Self:
        """Norms, stable rank and directions of a matrix (out, in)."""
        blocks = [torch.from_numpy(matrix)]
        norm = frobenius_norm(blocks)
        spectral = spectral_norm(blocks, norm).value
        rank = (norm / spectral) ** 2 if spectral else math.nan
        count = 0 if math.isnan(rank) else math.ceil(rank * (1 - RANK_TOLERANCE))
        return cls(matrix, norm, spectral, rank, leading_inputs(matrix, count))


def predict(sources: Sources, *, norms_alone: bool = False) -> xr.Dataset:
    """The variables of ``LONG_NAMES`` ``(matrix, model)``: norms, overlaps and predicted interference.

    One matrix of each model is in memory at a time. Ranks, overlaps and interference are NaN where a model has not
    changed a matrix: it has no directions there that could be disturbed.

    Args:
        sources: The checkpoints that are to be merged.
        norms_alone: Only ``frobenius_norm``, which takes less time than the merge.

    Returns:
        Dataset over ``matrix`` and ``model``, with role, layer and shape (``rows``, ``columns``) of each matrix.

    Raises:
        UserError: an entry is infinite or NaN.
    """
    matrices = matrices_of(sources.first)
    layers = list(dict.fromkeys(matrix.layer for matrix in matrices if matrix.layer))
    shapes = []
    for matrix in matrices:
        shape = sources.first.tensors[matrix.name].shape
        shapes.append(shape[::-1] if matrix.stored_inputs_first else shape)
    measures: list[list[dict[str, float]]] = []
    with progress_bar("predicting", len(matrices), "matrix") as bar:
        for matrix in matrices:
            summands = sources.read(matrix.name)[0]
            if matrix.stored_inputs_first:
                summands = [summand.mT for summand in summands]
            if norms_alone:
                measures.append([{"frobenius_norm": float(summand.norm())} for summand in summands])
            else:
                measures.append(measure_matrix([tensor.numpy() for tensor in small(summands)]))
            bar.update()
    variables: dict[str, Any] = {
        name: (
            ("matrix", "model"),
            np.array([[model[name] for model in row] for row in measures]).reshape(-1, len(sources.models)),
        )
        for name in (["frobenius_norm"] if norms_alone else LONG_NAMES)
    }
    dataset = xr.Dataset(
        variables,
        coords={
            "matrix": [matrix.name for matrix in matrices],
            "model": sources.names,
            "role": ("matrix", [matrix.role for matrix in matrices]),
            "layer_name": ("matrix", [matrix.layer for matrix in matrices]),
            "layer": ("matrix", [layers.index(matrix.layer) if matrix.layer else -1 for matrix in matrices]),
            "rows": ("matrix", [shape[0] for shape in shapes]),
            "columns": ("matrix", [shape[1] for shape in shapes]),
        },
        attrs={
            "summed": "weights" if sources.base is None else "task vectors",
            "no_matrix": json.dumps(
                [name for name in sources.first.tensors if name not in {matrix.name for matrix in matrices}]
            ),
        },
    )
    return store.describe(dataset, {name: LONG_NAMES[name] for name in variables})


def measure_matrix(matrices: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """For each model, the variables of ``LONG_NAMES`` of one matrix.

    Args:
        matrices: The summand of each model, its task vector Δ_i or its weights W_i, all of shape (out, in).
    """
    summands = [Summand.of(matrix) for matrix in matrices]
    total = sum(matrices[1:], start=matrices[0])
    measures = []
    for summand in summands:
        count = summand.directions.shape[1]
        own_action = summand.matrix @ summand.directions
        action = float(np.linalg.norm(total @ summand.directions - own_action))
        interference = action / float(np.linalg.norm(own_action)) if count else math.nan
        overlaps = [
            overlap(summand.directions, other.directions) for other in summands if other is not summand
        ]
        measures.append(
            {
                "frobenius_norm": summand.norm,
                "spectral_norm": summand.spectral,
                "stable_rank": summand.rank,
                "directions": count,
                "overlap": max(overlaps, default=math.nan),
                "action": action,
                "inner_product": float(np.vdot(summand.matrix, total - summand.matrix)),
                "interference": interference,
            }
        )
    return measures


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """‖V_Aᵀ V_B‖_F² / min(r_A, r_B), in [0, 1]: the mean squared cosine of the angles between two subspaces.

    NaN if one of them has no direction.

    Args:
        first: Orthonormal columns V_A (in, r_A).
        second: Orthonormal columns V_B (in, r_B).
    """
    smaller = min(first.shape[1], second.shape[1])
    return float(np.linalg.norm(first.T @ second) ** 2) / smaller if smaller else math.nan


def leading_inputs(matrix: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` leading right singular vectors of a matrix (out, in), as orthonormal columns (in, count).

    Few vectors are computed by Lanczos, many by a full decomposition.
    """
    if count == 0:
        return np.zeros((matrix.shape[1], 0), matrix.dtype)
    if count <= LANCZOS_SHARE * min(matrix.shape):
        start = np.random.default_rng(0).standard_normal(min(matrix.shape)).astype(matrix.dtype)
        with suppress(ArpackError):  # fails, for example, on a matrix of exactly this rank
            return svds(matrix, k=count, v0=start, return_singular_vectors="vh")[2].T
    return np.linalg.svd(matrix, full_matrices=False)[2][:count].T
