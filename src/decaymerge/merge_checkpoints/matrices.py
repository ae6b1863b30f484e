"""The matrices of a checkpoint with their layers and roles, and the role of every tensor."""

import re
from dataclasses import dataclass

from decaymerge.architectures import places
from decaymerge.checkpoint import Checkpoint

EMBEDDING_NAME = re.compile(
    r"(^|\.)(\w*embeddings?|embed_(in|tokens|positions)|wte|wpe|shared|relative_attention_bias)(\.weight)?$"
)
"""Names of the tensors that are tables with a row for each token, position or type."""
ORDER = ("Q", "K", "V", "QKV", "O", "M1", "M2", "E1", "E2")
"""Roles of a layer, as an input meets them."""
OTHERS = ("embedding", "other")
"""Roles of tensors that the architecture does not know."""


@dataclass(frozen=True)
class Matrix:
    """A tensor that is a matrix, with its layer and its role."""

    name: str
    layer: str
    """Stack and index, as in ``encoder.layer.3``; empty if the architecture does not know the tensor."""
    role: str
    """Role in the architecture, or ``embedding``, or ``other``."""
    stored_inputs_first: bool
    """Whether the matrix is stored (in, out), as GPT-2's matrices and embeddings are. An embedding's inputs are
    tokens."""


def matrices_of(checkpoint: Checkpoint) -> list[Matrix]:
    """All matrices of floating-point numbers: those that the architecture knows, by layer, then the others."""
    found = places({name: info.shape for name, info in checkpoint.tensors.items()})
    known: dict[tuple[str, int, int, int, str], Matrix] = {}
    others: list[Matrix] = []
    for name, info in sorted(checkpoint.tensors.items()):
        if len(info.shape) != 2 or info.dtype is None or 0 in info.shape:
            continue
        if place := found.get(name):
            order = (place.stack, place.layer, ORDER.index(place.role), place.expert, name)
            known[order] = Matrix(name, f"{place.stack}{place.layer}", place.role, place.scheme.transposed)
        else:
            embedding = is_embedding(name)
            others.append(Matrix(name, "", "embedding" if embedding else "other", embedding))
    return [known[order] for order in sorted(known)] + others


def roles_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Role of every tensor: that of its matrix for a bias, ``embedding``, or ``other``."""
    found = places({name: info.shape for name, info in checkpoint.tensors.items()})
    roles = {}
    for name in checkpoint.tensors:
        place = found.get(name) or found.get(re.sub(r"bias$", "weight", name))
        roles[name] = place.role if place else "embedding" if is_embedding(name) else "other"
    return roles


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of a table with a row for each token, position or type."""
    return EMBEDDING_NAME.search(name) is not None
