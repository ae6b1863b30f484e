"""Stage ``merge-checkpoints``: merge several of your own checkpoints into one, and predict their interference."""

import math
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor

from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.adapted import Adapted
from decaymerge.checkpoint.form import Form
from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError, listed
from decaymerge.low_rank import LowRank
from decaymerge.merge_checkpoints.configs import compare_configs
from decaymerge.merge_checkpoints.matrices import roles_of

BASE = "the base"
"""Name of the base in messages."""


class Sources:
    """Checkpoints of one architecture that are to be merged and, optionally, the base that they were trained from.

    The constructor compares their configs, their headers, and their tensors until one differs.

    Args:
        models: Checkpoints by name. The first one decides the type in which the merged checkpoint is stored.
        base: The checkpoint from which all of them were fine-tuned, or none.
        forms: Form of each checkpoint by name; that of the base by ``BASE``.

    Raises:
        UserError: checkpoints differ in their configs, tensors or shapes, or two are the same.
    """

    def __init__(
        self,
        models: dict[str, Checkpoint],
        base: Checkpoint | None = None,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self.models, self.base, self.forms = models, base, dict(forms or {})
        checkpoints = models if base is None else {**models, BASE: base}
        first, *others = checkpoints
        known = all(name in self.forms and self.forms[name].settings for name in checkpoints)
        for name in others:
            configs = [
                self.forms[owner].settings if known else checkpoint.config
                for owner, checkpoint in ((first, models[first]), (name, checkpoints[name]))
            ]
            compare_configs(first, configs[0], name, configs[1], with_defaults=known)
        for name in others:
            _compare_tensors(first, models[first], name, checkpoints[name])
            _compare_buffers(first, models[first], name, checkpoints[name])
        for name, other in combinations(models, 2):
            if _are_equal(models[name], models[other]):
                raise UserError(f"{name} and {other} are the same checkpoint; give two different ones")
        self.untrained = [name for name in models if base is not None and _are_equal(models[name], base)]
        """Names of the models that are the base itself."""

    @property
    def first(self) -> Checkpoint:
        """The first model. The merged checkpoint has its configuration and its types."""
        return next(iter(self.models.values()))

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role of every tensor."""
        return roles_of(self.first)

    @property
    def names(self) -> list[str]:
        """Names of the models, in the order in which they were given."""
        return list(self.models)

    def read(self, tensor: str) -> tuple[list[Tensor | LowRank], Tensor | None]:
        """The summands of one tensor, and the base's tensor, all of the same shape.

        The summands are the task vectors W_i - W_base, in factors where they are those of an adapter. Without a
        base they are the weights W_i, and the second value is none. The type is float32, or float64 for tensors
        that are stored in it.

        Raises:
            UserError: an entry is infinite or NaN.
        """
        if self.base is None:
            return [_finite(name, tensor, model) for name, model in self.models.items()], None
        base = _finite(BASE, tensor, self.base)
        summands = [
            model.change(tensor, base) if isinstance(model, Adapted) else _finite(name, tensor, model) - base
            for name, model in self.models.items()
        ]
        return summands, base


def _finite(model: str, tensor: str, checkpoint: Checkpoint) -> Tensor:
    stored = checkpoint.read([tensor])[0]
    if not stored.isfinite().all():
        raise UserError(f"{tensor} of {model} has an infinite or NaN entry; the checkpoint is damaged")
    return stored if stored.dtype is torch.float64 else stored.float()


def _are_equal(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether all tensors are equal, by whatever files they are in: copies, links or shared shards."""
    if one.tensors.keys() != other.tensors.keys():
        return False
    for name, info in one.tensors.items():
        there = other.tensors[name]
        if info.shape != there.shape or info.dtype != there.dtype:
            return False
        adapted = name in one.changed | other.changed
        if (adapted or not info.file.samefile(there.file)) and not one.read([name])[0].equal(
            other.read([name])[0]
        ):
            return False
    return True


def _compare_tensors(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    expected, tensors = reference.tensors, other.tensors
    missing = {first: expected.keys() - tensors.keys(), name: tensors.keys() - expected.keys()}
    differences = [f"{owner} alone has {listed(sorted(names))}" for owner, names in missing.items() if names]
    if differences:
        raise UserError(
            f"{'; '.join(differences)}; save both as the same transformers class, with the same head"
        )
    if different := [tensor for tensor, info in expected.items() if info.shape != tensors[tensor].shape]:
        shapes = f"{_shape(expected[different[0]])} in {first} and {_shape(tensors[different[0]])} in {name}"
        raise UserError(
            f"the shapes of {listed(sorted(different))} differ; the first is {shapes}: only networks of the same"
            " form can be merged"
        )


def _compare_buffers(first: str, reference: Checkpoint, name: str, other: Checkpoint) -> None:
    for tensor, info in reference.tensors.items():
        if (info.dtype is None) != (other.tensors[tensor].dtype is None):
            raise UserError(
                f"{tensor} holds floating-point numbers in only one of {first} and {name}; save both as the same"
                " transformers class"
            )
        if tensor.endswith("num_batches_tracked"):  # of BatchNorm: it counts steps of training
            continue
        if info.dtype is None and not reference.read([tensor])[0].equal(other.read([tensor])[0]):
            raise UserError(
                f"{tensor} is {type_name(reference.read([tensor])[0].dtype)}, which is not summed, and differs"
                f" between {first} and {name}; if they are quantised, give the checkpoints in 16 or 32 bits"
            )


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
