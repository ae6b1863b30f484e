"""The form of a model: what a complete checkpoint of it is, and what is missing from this one."""

import math
from typing import Any

from pydantic import BaseModel

from decaymerge.errors import listed


class Part(BaseModel):
    """A part of a model with a config of its own, such as the tower of a vision model."""

    model_type: str = ""
    heads: int | None = None
    key_value_heads: int | None = None


class Form(BaseModel):
    """What a complete checkpoint is, and what this one lacks. Names without ``stored`` are those of the class."""

    class_name: str = ""
    """Class of ``transformers``, or empty if it is unknown."""
    headless: str = ""
    """Class that the config names, where nothing of its masked-LM head is stored: the base model is complete."""
    base_is_complete: str = ""
    """Class of the base model, where a head is missing and the base model is complete."""
    reason: str = ""
    """Why the class is unknown."""
    parameters: int = 0
    """Number of parameters of the class; those of a tied table count once."""
    missing: dict[str, int] = {}
    """Entries of each tensor that the class needs and that is not stored: random numbers would fill it."""
    mismatched: dict[str, tuple[list[int], list[int]]] = {}
    """Stored shape and shape in the class, where they differ."""
    unexpected: list[str] = []
    """Stored tensors that the class does not have."""
    twice: dict[str, list[str]] = {}
    """Tensors of the class for which several are stored, any of which could be the one that is loaded."""
    other_types: list[str] = []
    """Stored tensors of whole or complex numbers for which the class has floating-point ones."""
    unexpected_share: float = 0.0
    """Their share of all stored entries."""
    ignored: list[str] = []
    """Stored tensors that the class knows and needs no more, such as ``position_ids``."""
    tied: dict[str, str] = {}
    """Stored tensors that the class replaces by another one, to which they are tied: copies of a table."""
    names: dict[str, str] = {}
    """Name in the class of each stored tensor. Several stored tensors may be parts of one."""
    settings: dict[str, Any] = {}
    """The config with the defaults of its class."""
    parts: dict[str, Part] = {}
    """The parts of the model, by the beginning of their names; the whole model has an empty one."""

    @property
    def problems(self) -> list[str]:
        """What is missing or of another shape, each in one line with its share of all parameters."""
        lines = []
        if self.missing:
            share = sum(self.missing.values()) / max(1, self.parameters)
            lines.append(
                f"{len(self.missing)} tensors of {self.class_name} are missing ({share:.2%} of its parameters):"
                f" {listed(self.missing)}"
            )
        if self.mismatched:
            name, (stored, expected) = next(iter(self.mismatched.items()))
            share = sum(math.prod(shape) for _, shape in self.mismatched.values()) / max(1, self.parameters)
            lines.append(
                f"{len(self.mismatched)} tensors have another shape than in {self.class_name} ({share:.2%} of its"
                f" parameters), such as {name} with {stored} for {expected}"
            )
        lines += [
            f"{listed(names)} are all {name} of {self.class_name}, which loads one of them"
            for name, names in self.twice.items()
        ]
        if self.other_types:
            lines.append(
                f"{len(self.other_types)} tensors hold no floating-point numbers, unlike {self.class_name}:"
                f" {listed(self.other_types)}"
            )
        return lines

    def lines(self) -> list[str]:
        """What the class says of the checkpoint."""
        if not self.class_name:
            return [f"class: unknown, as {self.reason}; names decide, and nothing vouches for completeness"]
        state = "incomplete" if self.problems else "complete"
        lines = [
            f"class: {self.class_name} of transformers, {self.parameters / 1e6:.4g} M parameters, {state}"
        ]
        if self.headless:
            lines[0] += f" (nothing is stored of the head of {self.headless}, which config.json names)"
        return lines

    def part_of(self, stored: str) -> str:
        """Beginning of the names of the innermost part that a stored tensor is in."""
        name = self.names.get(stored, stored)
        inside = [part for part in self.parts if not part or name.startswith(f"{part}.")]
        return max(inside, key=len, default="")
