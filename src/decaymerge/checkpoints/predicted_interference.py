"""How much the networks of a sum will disturb each other, matrix by matrix, from their weights alone.

**Why weights tell it.** Let a matrix be trained by gradient descent with decay towards where it starts, W_0 (0 for
a network from nothing), on inputs x_1 … x_n of the layer: Δ = W - W_0 obeys Δ ← (1 - ηλ) Δ - η Σ_i g_i x_iᵀ, where
g_i is the gradient at the layer's output, hence

    Δ_T = Σ_i a_i x_iᵀ    and    Δ_T x = Σ_i a_i ⟨x_i, x⟩,
    with    a_i = -η Σ_s (1 - ηλ)^(T-1-s) g_i(s),

which is the step on which Lemma 5 of the paper stands. Where the layer's inputs move during training, all of them
count. So Δ acts on the inputs of another task through the inner products with its own inputs alone; Lemma 5 bounds
‖Δ_B x‖ by their largest, ε, and Corollary 1 the change of the output of f_A by ‖a‖ ‖Δ_B x‖. (With momentum the
a_i are others, and Δ stays in the span of the inputs; Adam, which divides by each entry's size, leaves it.)

**What stands for the inputs.** A checkpoint comes without them. But the row space of Δ_A is spanned by A's inputs,
and weight decay makes Δ_A low-rank: its leading right singular vectors V_A, as many as its stable rank, are the
directions of A's inputs that A makes use of. (This replacement is ours.) So

    interference of A = ‖Δ_B V_A‖_F / ‖Δ_A V_A‖_F

is what B does to these inputs over what A itself does there: 0 where the tasks' inputs are orthogonal, about 1
where both make the same use of the same inputs. Δ_B is the sum of all others where more than two are merged;
without a base W_A stands for Δ_A. No coefficient matters: it multiplies both.

The inner product ⟨Δ_A, Δ_B⟩ = Σ_i a_iᵀ Δ_B x_i, over A's samples, is beside it: how far B moves the layer's outputs
on A's inputs along the directions a_i in which A has moved them, which are those that A's output depends on. It
knows both sides of the matrix, and the size. (Ours.)

Both say nothing of inputs on which A relies without having changed the matrix there; of biases and LayerNorm; of
how sensitive the network is to each matrix; nor of layers further on, which get other inputs after merging.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse.linalg import ArpackError, svds

from decaymerge import store
from decaymerge.checkpoints import Sources, is_embedding
from decaymerge.progress import progress_bar
from decaymerge.scan.architectures import recognise
from decaymerge.scan.checkpoint import Checkpoint
from decaymerge.scan.spectral import frobenius_norm, spectral_norm

COLLIDES = 0.25
"""Interference from which two networks are said to collide in a matrix; ours, not the paper's. Shallow networks
that were trained on the same Gaussian inputs with other labels have .25 to .35."""
FEW = 0.05
"""Share of the smaller dimension up to which Lanczos is faster than a full decomposition."""
ROUNDING = 1e-4
"""A stable rank this close (relatively) above a whole number is that number: rank one is one direction."""
LONG_NAMES = {
    "frobenius_norm": "Frobenius norm of what is summed",
    "spectral_norm": "spectral norm of what is summed",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "directions": "leading right singular vectors that stand for the inputs: the stable rank, rounded up",
    "overlap": "‖V_Aᵀ V_B‖_F² / min(r_A, r_B) of the leading right singular vectors, largest over the others",
    "action": "‖Δ_B V_A‖_F, action of the sum of the others on the model's leading input directions",
    "inner_product": "⟨Δ_A, Δ_B⟩, sum over A's inputs of how far B moves them where A has moved them",
    "interference": "‖Δ_B V_A‖_F / ‖Δ_A V_A‖_F, predicted interference",
    "collides": "1 where the predicted interference reaches the threshold",
}


@dataclass(frozen=True)
class Matrix:
    """A tensor that is a matrix, and where it stands."""

    name: str
    layer: str
    """Stack and index, as in ``encoder.layer.3``; empty where the architecture does not know the tensor."""
    role: str
    """Role in the architecture, or ``embedding``, or ``other``."""
    stored_inputs_first: bool
    """Stored (in, out): GPT-2's, and embeddings, whose inputs are tokens."""


def matrices_of(checkpoint: Checkpoint) -> list[Matrix]:
    """All matrices of floating-point numbers: those of the architecture by layer, then all others."""
    architecture = recognise({name: info.shape for name, info in checkpoint.tensors.items()})
    known: dict[tuple[str, int, str, str], Matrix] = {}
    others: list[Matrix] = []
    for name, info in sorted(checkpoint.tensors.items()):
        if len(info.shape) != 2 or info.dtype is None or 0 in info.shape:
            continue
        if architecture is not None and (place := architecture.role_of(name)):
            stack, layer, role = place
            found = Matrix(name, f"{stack}{layer}", role, architecture.transposed)
            known[stack, layer, role, name] = found
        else:
            embedding = is_embedding(name)
            others.append(Matrix(name, "", "embedding" if embedding else "other", embedding))
    order = list(architecture.suffixes) if architecture else []
    keys = sorted(known, key=lambda key: (key[0], key[1], order.index(key[2]), key[3]))
    return [known[key] for key in keys] + others


def predict(sources: Sources) -> xr.Dataset:
    """Norms, overlaps and predicted interference ``(matrix, model)``; one matrix of each model is in memory.

    NaN where a model has not changed a matrix: it has no directions there that could be disturbed.

    Raises:
        UserError: an entry is infinite or NaN.
    """
    matrices = matrices_of(sources.first)
    layers = list(dict.fromkeys(matrix.layer for matrix in matrices if matrix.layer))
    shapes = [sources.first.tensors[matrix.name].shape for matrix in matrices]
    shapes = [
        shape[::-1] if m.stored_inputs_first else shape for m, shape in zip(matrices, shapes, strict=True)
    ]
    measured: list[list[dict[str, float]]] = []
    with progress_bar("predicting", len(matrices), "matrix") as bar:
        for matrix in matrices:
            summands = [tensor.numpy() for tensor in sources.read(matrix.name)[0]]
            measured.append(
                of_matrix([part.T for part in summands] if matrix.stored_inputs_first else summands)
            )
            bar.update()
    variables: dict[str, Any] = {
        name: (
            ("matrix", "model"),
            np.array([[model[name] for model in row] for row in measured]).reshape(-1, len(sources.models)),
        )
        for name in LONG_NAMES
    }
    made = xr.Dataset(
        variables,
        coords={
            "matrix": [matrix.name for matrix in matrices],
            "model": sources.names,
            "role": ("matrix", [matrix.role for matrix in matrices]),
            "layer_name": ("matrix", [matrix.layer for matrix in matrices]),
            "layer": ("matrix", [layers.index(m.layer) if m.layer else -1 for m in matrices]),
            "rows": ("matrix", [shape[0] for shape in shapes]),
            "columns": ("matrix", [shape[1] for shape in shapes]),
        },
        attrs={
            "summed": "weights" if sources.base is None else "task vectors",
            "collides_from": COLLIDES,
            "no_matrix": json.dumps(
                [name for name in sources.first.tensors if name not in {m.name for m in matrices}]
            ),
        },
    )
    return store.describe(made, LONG_NAMES)


def of_matrix(summands: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """For each model the variables of ``LONG_NAMES``, from its matrix (out, in) Δ_i or W_i."""
    norms = [frobenius_norm([summand]) for summand in summands]
    spectral = [spectral_norm([summand], norm).value for summand, norm in zip(summands, norms, strict=True)]
    ranks = [
        (norm / largest) ** 2 if largest else math.nan for norm, largest in zip(norms, spectral, strict=True)
    ]
    counts = [math.ceil(rank * (1 - ROUNDING)) if rank == rank else 0 for rank in ranks]
    inputs = [leading_inputs(summand, count) for summand, count in zip(summands, counts, strict=True)]
    total = sum(summands[1:], start=summands[0])
    measured = []
    for i, (summand, directions) in enumerate(zip(summands, inputs, strict=True)):
        own = summand @ directions
        action = float(np.linalg.norm(total @ directions - own))
        others = [other for j, other in enumerate(inputs) if j != i]
        interference = action / float(np.linalg.norm(own)) if counts[i] else math.nan
        measured.append(
            {
                "frobenius_norm": norms[i],
                "spectral_norm": spectral[i],
                "stable_rank": ranks[i],
                "directions": counts[i],
                "overlap": max((overlap(directions, other) for other in others), default=math.nan),
                "action": action,
                "inner_product": float(np.vdot(summand, total - summand)),
                "interference": interference,
                "collides": float(interference >= COLLIDES),
            }
        )
    return measured


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """‖V_Aᵀ V_B‖_F² / min(r_A, r_B) of orthonormal columns, in [0, 1]: mean squared cosine of their angles."""
    smaller = min(first.shape[1], second.shape[1])
    return float(np.linalg.norm(first.T @ second) ** 2) / smaller if smaller else math.nan


def leading_inputs(matrix: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` leading right singular vectors of a matrix (out, in), as orthonormal columns (in, count)."""
    if count == 0:
        return np.zeros((matrix.shape[1], 0), matrix.dtype)
    if count <= FEW * min(matrix.shape):
        start = np.random.default_rng(0).standard_normal(min(matrix.shape)).astype(matrix.dtype)
        with suppress(ArpackError):  # as on a matrix of exactly that rank
            return svds(matrix, k=count, v0=start, return_singular_vectors="vh")[2].T
    return np.linalg.svd(matrix, full_matrices=False)[2][:count].T
