"""Stage ``merge-checkpoints``: merge several of your own checkpoints into one, and predict their interference."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decaymerge.errors import UserError
from decaymerge.scan.checkpoint import DTYPES, Checkpoint, TensorInfo

LISTED_NAMES = 3
"""Number of tensors that an error lists."""
FORM_KEYS = re.compile(
    r"model_type|architectures|head_dim|\w+_heads?"
    r"|(hidden_)?act(ivation)?(_function)?|feed_forward_proj|rope_\w+|rotary\w*|position_embedding_type|\w*_eps(ilon)?"
)
"""Keys of ``config.json`` that must agree where both checkpoints state them. The tensors alone do not show them."""
EMBEDDING_NAME = re.compile(
    r"(^|\.)(\w*embeddings?|embed_(in|tokens|positions)|wte|wpe|shared|relative_attention_bias)(\.weight)?$"
)
"""Names of the tensors that are tables with a row for each token, position or type."""


class Sources:
    """Checkpoints of one architecture that are to be merged and, optionally, the base that they were trained from.

    The constructor compares them. It reads their headers, and of the tensors only those without floating-point
    numbers (``position_ids``).

    Args:
        models: Checkpoints by name. The first one decides the type in which the merged checkpoint is stored.
        base: The checkpoint from which all of them were fine-tuned, or none.

    Raises:
        UserError: checkpoints differ in their tensors, shapes, architectures or heads, one is quantised, or two
            are the same.
    """

    def __init__(self, models: dict[str, Checkpoint], base: Checkpoint | None = None) -> None:
        self.models, self.base = models, base
        checkpoints = models if base is None else {**models, "the base": base}
        first, *others = checkpoints
        names_by_file: dict[Path, str] = {}
        for name, checkpoint in models.items():
            file = checkpoint.files[0].resolve()
            if file in names_by_file:
                raise UserError(
                    f"{names_by_file[file]} and {name} are the same checkpoint; give two different ones"
                )
            names_by_file[file] = name
        for name, checkpoint in checkpoints.items():
            _refuse_quantised(name, checkpoint)
        for name in others:
            _compare_configs(first, models[first], name, checkpoints[name])
            _compare_tensors(first, models[first], name, checkpoints[name])
            _compare_buffers(first, models[first], name, checkpoints[name])

    @property
    def first(self) -> Checkpoint:
        """The first model. The merged checkpoint has its configuration and its types."""
        return next(iter(self.models.values()))

    @property
    def names(self) -> list[str]:
        """Names of the models, in the order in which they were given."""
        return list(self.models)

    @property
    def untrained(self) -> list[str]:
        """Names of the models that are the base itself."""
        if self.base is None:
            return []
        base_file = self.base.files[0].resolve()
        return [name for name, model in self.models.items() if model.files[0].resolve() == base_file]

    def read(self, tensor: str) -> tuple[list[Tensor], Tensor | None]:
        """The summands of one tensor, and the base's tensor, all of the same shape.

        The summands are the task vectors W_i - W_base. Without a base they are the weights W_i, and the second
        value is none. The type is float32, or float64 for tensors that are stored in it.

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
    for key in filter(FORM_KEYS.fullmatch, reference.config):
        expected, value = reference.config[key], other.config.get(key)
        if None not in (expected, value) and expected != value:
            raise UserError(
                f"config.json: {key} is {_plain(expected)} in {first} and {_plain(value)} in {name}; only networks"
                " of the same form can be merged" + _remedy(key, expected)
            )


def _remedy(key: str, expected: Any) -> str:
    if key != "architectures":
        return ""
    return f": load the other as {_plain(expected)} with transformers, and save it again"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compare_tensors(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    expected, tensors = reference.tensors, other.tensors
    missing = {first: expected.keys() - tensors.keys(), name: tensors.keys() - expected.keys()}
    differences = [f"{owner} alone has {_listed(names)}" for owner, names in missing.items() if names]
    if differences:
        raise UserError(
            f"{'; '.join(differences)}; save both as the same transformers class, with the same head"
        )
    if different := [tensor for tensor, info in expected.items() if info.shape != tensors[tensor].shape]:
        shapes = f"{_shape(expected[different[0]])} in {first} and {_shape(tensors[different[0]])} in {name}"
        raise UserError(
            f"the shapes of {_listed(different)} differ; the first is {shapes}: only networks of the same form can"
            " be merged"
        )


def _compare_buffers(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    for tensor, info in reference.tensors.items():
        if (info.dtype is None) != (other.tensors[tensor].dtype is None):
            raise UserError(
                f"{tensor} holds floating-point numbers in only one of {first} and {name}; save both as the same"
                " transformers class"
            )
        if info.dtype is None and not reference.read([tensor])[0].equal(other.read([tensor])[0]):
            raise UserError(
                f"{tensor} is {type_name(reference.read([tensor])[0].dtype)}, which is not summed, and differs"
                f" between {first} and {name}; if they are quantised, give the checkpoints in 16 or 32 bits"
            )


def _listed(names: Any) -> str:
    ordered: Sequence[str] = sorted(names)
    more = f" and {len(ordered) - LISTED_NAMES} more" if len(ordered) > LISTED_NAMES else ""
    return f"{', '.join(ordered[:LISTED_NAMES])}{more}"


def _shape(info: TensorInfo) -> str:
    return " x ".join(map(str, info.shape)) or "a number"


def type_name(kind: torch.dtype) -> str:
    """Name of a type as users write it, such as ``float16``."""
    return str(kind).removeprefix("torch.")


def stored_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes of every tensor as stored, by name, including tensors of whole numbers."""
    return {
        name: math.prod(info.shape) * checkpoint.read([name])[0].itemsize
        if info.dtype is None
        else info.nbytes
        for name, info in checkpoint.tensors.items()
    }


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of a table with a row for each token, position or type."""
    return EMBEDDING_NAME.search(name) is not None
