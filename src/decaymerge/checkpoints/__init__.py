"""Stage ``merge-checkpoints``: one checkpoint from several of one's own, with its interference predicted before."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.scan.checkpoint import DTYPES, Checkpoint, TensorInfo

SHOWN = 3
"""Tensors that an error names."""
FORM = re.compile(
    r"model_type|architectures|head_dim|\w+_heads?"
    r"|(hidden_)?act(ivation)?(_function)?|feed_forward_proj|rope_\w+|rotary\w*|position_embedding_type|\w*_eps(ilon)?"
)
"""Keys of ``config.json`` that must agree, where both state them: the tensors alone do not show them."""
EMBEDDING = re.compile(
    r"(^|\.)(\w*embeddings?|embed_(in|tokens|positions)|wte|wpe|shared|relative_attention_bias)(\.weight)?$"
)
"""Names of tables with a row for each token, position or type."""


class Sources:
    """Checkpoints of one architecture and, if it is known, the base that all of them were trained from.

    Nothing but headers and tensors that are no floating-point numbers (``position_ids``) is read here.

    Args:
        models: Checkpoints by name, the first decides the type that is stored.
        base: What they were fine-tuned from.

    Raises:
        UserError: they have other tensors, shapes, architectures or heads, are quantised, or two are the same.
    """

    def __init__(self, models: dict[str, Checkpoint], base: Checkpoint | None = None) -> None:
        self.models, self.base = models, base
        everything = models if base is None else {**models, "the base": base}
        first, *others = everything
        places: dict[Path, str] = {}
        for name, checkpoint in models.items():
            place = checkpoint.files[0].resolve()
            if place in places:
                raise UserError(
                    f"{places[place]} and {name} are the same checkpoint; give two different ones"
                )
            places[place] = name
        for name, checkpoint in everything.items():
            _refuse_quantised(name, checkpoint)
        for name in others:
            _compare_configs(first, models[first], name, everything[name])
            _compare_tensors(first, models[first], name, everything[name])
            _compare_buffers(first, models[first], name, everything[name])

    @property
    def first(self) -> Checkpoint:
        """The checkpoint whose configuration and type the merged one has."""
        return next(iter(self.models.values()))

    @property
    def names(self) -> list[str]:
        """Names of the models."""
        return list(self.models)

    @property
    def untrained(self) -> list[str]:
        """Models that are the base itself."""
        if self.base is None:
            return []
        place = self.base.files[0].resolve()
        return [name for name, model in self.models.items() if model.files[0].resolve() == place]

    def read(self, tensor: str) -> tuple[list[Tensor], Tensor | None]:
        """What is summed, and the base: task vectors W_i - W_base, or weights W_i and none where there is no base.

        In float32, or float64 where it is stored so.

        Raises:
            UserError: an entry is infinite or NaN.
        """
        weights = [_finite(name, tensor, model) for name, model in self.models.items()]
        if self.base is None:
            return weights, None
        base = _finite("the base", tensor, self.base)
        return [weight - base for weight in weights], base


def _finite(model: str, tensor: str, checkpoint: Checkpoint) -> Tensor:
    stored = checkpoint.read([tensor])[0]
    if not stored.isfinite().all():
        raise UserError(f"{tensor} of {model} has an infinite or NaN entry; the checkpoint is damaged")
    return stored if stored.dtype is torch.float64 else stored.float()


def _refuse_quantised(name: str, checkpoint: Checkpoint) -> None:
    if "quantization_config" in checkpoint.config:
        raise UserError(
            f"{name}: config.json says that it is quantised; give the checkpoint in 16 or 32 bits"
        )
    for tensor, info in checkpoint.tensors.items():
        kind = info.dtype if info.dtype is not None else checkpoint.read([tensor])[0].dtype
        if kind.is_floating_point and kind not in DTYPES.values():
            raise UserError(
                f"{tensor} of {name} is {type_name(kind)}, which means nothing without its scales;"
                " give the checkpoint in 16 or 32 bits"
            )


def _compare_configs(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    for key in filter(FORM.fullmatch, reference.config):
        ours, theirs = reference.config[key], other.config.get(key)
        if None not in (ours, theirs) and ours != theirs:
            raise UserError(
                f"config.json: {key} is {_plain(ours)} in {first} and {_plain(theirs)} in {name}; only networks of"
                " one form merge" + _resave(key, ours)
            )


def _resave(key: str, ours: Any) -> str:
    if key != "architectures":
        return ""
    return f": load the other as {_plain(ours)} with transformers, and save it again"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compare_tensors(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    ours, theirs = reference.tensors, other.tensors
    differences = [
        f"{one} alone has {_listed(alone)}"
        for one, alone in ((first, ours.keys() - theirs.keys()), (name, theirs.keys() - ours.keys()))
        if alone
    ]
    if differences:
        raise UserError(
            f"{'; '.join(differences)}; save both as the same transformers class, with the same head"
        )
    if shapes := [tensor for tensor, info in ours.items() if info.shape != theirs[tensor].shape]:
        sizes = f"{_shape(ours[shapes[0]])} in {first} and {_shape(theirs[shapes[0]])} in {name}"
        raise UserError(
            f"shapes differ of {_listed(shapes)}; the first is {sizes}: only networks of one form merge"
        )


def _compare_buffers(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    for tensor, info in reference.tensors.items():
        if (info.dtype is None) != (other.tensors[tensor].dtype is None):
            raise UserError(f"{tensor} holds floating-point numbers in one of {first} and {name} alone")
        if info.dtype is None and not reference.read([tensor])[0].equal(other.read([tensor])[0]):
            raise UserError(
                f"{tensor} is {type_name(reference.read([tensor])[0].dtype)}, which is not summed, and differs"
                f" between {first} and {name}; quantised checkpoints do not merge"
            )


def _listed(names: Any) -> str:
    chosen: Sequence[str] = sorted(names)
    more = f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else ""
    return f"{', '.join(chosen[:SHOWN])}{more}"


def _shape(info: TensorInfo) -> str:
    return " x ".join(map(str, info.shape)) or "a number"


def type_name(kind: torch.dtype) -> str:
    """As a user writes it, such as ``float16``."""
    return str(kind).removeprefix("torch.")


def stored_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes of every tensor as stored, those of whole numbers included."""
    return {
        name: math.prod(info.shape) * checkpoint.read([name])[0].itemsize
        if info.dtype is None
        else info.nbytes
        for name, info in checkpoint.tensors.items()
    }


def is_embedding(name: str) -> bool:
    """Whether a tensor is a table of rows, one for each token or position, by its name."""
    return EMBEDDING.search(name) is not None
