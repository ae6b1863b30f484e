"""A LoRA adapter together with its base: what it adds to each tensor, in factors."""

from typing import Any

import torch
from torch import Tensor

from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.adapter import Adapter
from decaymerge.checkpoint.form import Form
from decaymerge.checkpoint.model_class import build
from decaymerge.errors import UserError, listed
from decaymerge.low_rank import LowRank


def fits(one: str, other: str) -> bool:
    """Whether two names are the same but for the prefix of a class around it."""
    return one == other or (one.endswith(f".{other}") if len(one) > len(other) else other.endswith(f".{one}"))


def ties_of(model: Any) -> dict[str, str]:
    """Parameters that a class ties, with the one that each is tied to."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def broken_tie(base: Checkpoint, form: Form, adapter: Adapter) -> dict[str, str]:
    """The tie of the base of which the adapter changes one side, or both sides apart: the copy with its table.

    Raises:
        UserError: the class has other ties, which would break as well, or the class is unknown.
    """
    changed = [*(f"{module}.weight" for module in adapter.factors), *adapter.replaced]
    if not form.class_name:
        tables = [name for name in changed if "emb" in name or "lm_head" in name or "wte" in name]
        if tables and base.config.get("tie_word_embeddings") is not False:
            raise UserError(
                f"{adapter.folder} changes {tables[0]}, and without its class nobody knows whether it is tied;"
                " leave --by-name out"
            )
        return {}
    if adapter.settings.ensure_weight_tying:
        return {}
    ties = ties_of(build(base.config))
    broken = {
        copy: table
        for copy, table in ties.items()
        if any(fits(name, side) for name in changed for side in (copy, table))
    }
    if broken and len(ties) > 1:
        raise UserError(
            f"{adapter.folder} changes one side of {listed(sorted({*broken, *broken.values()}))}, which"
            f" {form.class_name} ties with others: the result is no {form.class_name}. Leave these modules out of"
            " the adapter"
        )
    return broken


class Adapted(Checkpoint):
    """A base and an adapter of it, as the checkpoint of the whole model that they are together.

    Args:
        base: The base, complete.
        form: Its form.
        adapter: The adapter.

    Raises:
        UserError: the adapter has modules or shapes that the base lacks.
    """

    def __init__(self, base: Checkpoint, form: Form, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        self.place = self.folder = adapter.folder
        self.config, self.tensors, self.quantisation = base.config, base.tensors, base.quantisation
        self.problems, self.files, self.unmapped_bytes = [], [*base.files, adapter.file], base.unmapped_bytes
        self.notes: list[str] = []
        self._known = dict(build(base.config).named_modules()) if form.class_name else {}
        self._names = {stored: stored for stored in base.tensors}
        self._names |= {form.names.get(stored, stored): stored for stored in base.tensors}
        ties = ties_of(self._known.get("")) if adapter.settings.ensure_weight_tying else {}
        parameters = [*(f"{module}.weight" for module in adapter.factors), *adapter.replaced]
        self.prefixes: set[str] = set()
        """What the names of the adapter lack of the base's, or have before them: by this the classes differ."""
        self.modules: dict[str, str] = {}
        """Module of the adapter whose factors change each tensor."""
        self.biases: dict[str, str] = {}
        """Module of the adapter whose factors have a bias, which changes each tensor."""
        self.replaced: dict[str, str] = {}
        """Tensor of the adapter that replaces each tensor."""
        for module, parts in adapter.factors.items():
            if any(fits(f"{module}.weight", copy) for copy in ties):
                continue  # PEFT keeps it equal to that of the table
            self.modules[self._stored(f"{module}.weight")] = module
            if "bias" in parts:
                self.biases[self._stored(f"{module}.bias")] = module
        for parameter, name in adapter.replaced.items():
            if not any(fits(parameter, copy) for copy in ties):
                self.replaced[self._stored(parameter)] = name
        for stored in self.replaced.keys() & self.modules.keys():  # PEFT stores tables beside their factors
            table = adapter.read(self.replaced[stored])
            if table.equal(base.read([stored])[0].to(table.dtype)):
                del self.replaced[stored]
        self.keeps_tie = any(fits(name, side) for name in parameters for tie in ties.items() for side in tie)
        """Whether it changes a table and its tied copy together."""
        self.changed = frozenset({*self.modules, *self.biases, *self.replaced})
        for stored in sorted(self.changed):
            self._check_shape(stored)

    def _stored(self, parameter: str) -> str:
        """The base's tensor of a parameter: of that name, or of one with the prefix of another class around it."""
        found = (
            [parameter] if parameter in self._names else [one for one in self._names if fits(parameter, one)]
        )
        if len({self._names[name] for name in found}) != 1:
            raise UserError(
                f"{self.place} changes {parameter}, which is {'not' if not found else 'more than once'} in"
                f" {self.base.place} as transformers loads it; give the base that it was trained on, saved as the"
                " same class"
            )
        name = found[0]
        longer, shorter = sorted((name, parameter), key=len, reverse=True)
        self.prefixes.add(("+" if longer == name else "-") + longer.removesuffix(shorter))
        return self._names[name]

    def _check_shape(self, stored: str) -> None:
        expected = tuple(self.tensors[stored].shape)
        if stored in self.replaced:
            shape = tuple(self.adapter.tensors[self.replaced[stored]].shape)
        else:
            shape = tuple(self.change(stored, torch.empty(expected, device="meta")).shape)
        if shape != expected:
            raise UserError(
                f"{self.place} changes {stored} with the shape {shape}, which is {expected} in {self.base.place};"
                " give the base that it was trained on, with its embeddings resized as they were then"
            )

    def change(self, name: str, base: Tensor) -> Tensor | LowRank:
        """What the adapter adds to a tensor of the base, in the type of ``base``.

        Args:
            name: Name of the tensor.
            base: The tensor itself.
        """
        if name in self.replaced:
            change = self.adapter.read(self.replaced[name]).to(base.dtype) - base
            return change + self._product(name, base) if name in self.modules else change
        if name in self.biases:
            module = self.biases[name]
            bias = self.adapter.read(self.adapter.factors[module]["bias"])
            return bias.to(base.dtype) * self.adapter.scale(module)
        if name in self.modules:
            return self._product(name, base)
        if base.ndim == 2:
            return LowRank.zeros(tuple(base.shape), base.dtype)
        return torch.zeros_like(base)

    def _product(self, name: str, base: Tensor) -> Tensor | LowRank:
        module = self.modules[name]
        parts = self.adapter.factors[module]
        first, second = (self.adapter.read(parts[key]).to(base.dtype) for key in ("A", "B"))
        if first.ndim > 2:
            if getattr(self.module(module), "groups", 1) != 1:
                raise UserError(
                    f"{self.place} changes {module}, a convolution in groups, which is not understood; merge it"
                    " into its base with PEFT's merge_and_unload()"
                )
            product = (second.flatten(1) @ first.flatten(1)) * self.adapter.scale(module)
            return product.reshape(len(second), *first.shape[1:])
        factored = LowRank(second * self.adapter.scale(module), first)
        return factored.mT if "embedding" in parts or self.inputs_first(module) else factored

    def module(self, module: str) -> Any:
        """The module of the base's class that a module of the adapter changes, or none."""
        return self._known.get(module) or next(
            (one for path, one in self._known.items() if fits(module, path)), None
        )

    def inputs_first(self, module: str) -> bool:
        """Whether the base stores the matrix of a module (in, out)."""
        if not self._known:
            return self.adapter.settings.fan_in_fan_out
        return type(self.module(module)).__name__ == "Conv1D"

    def read(self, names: Any) -> list[Tensor]:
        """Tensors of the whole model; those that the adapter changes in float32, or in float64 if stored in it."""
        tensors = []
        for name, base in zip(names, self.base.read(names), strict=True):
            if name in self.changed:
                wide = base if base.dtype is torch.float64 else base.float()
                tensors.append(wide + self.change(name, wide))
            else:
                tensors.append(base)
        return tensors
