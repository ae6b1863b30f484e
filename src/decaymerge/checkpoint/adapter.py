"""LoRA adapters as PEFT saves them: what they add to each tensor of their base, in factors.

A matrix W of the base becomes W + (α/r) B A, with A (r, in) and B (out, r); rank-stabilised adapters have α/√r.
Modules that were trained as a whole, and biases, are stored as they are and replace those of the base. Everything
else that PEFT can do changes the network in another way, and is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.form import Form
from decaymerge.checkpoint.kinds import ADAPTER_TENSOR
from decaymerge.checkpoint.model_class import build
from decaymerge.checkpoint.reader import open_file, read_header
from decaymerge.errors import UserError, listed
from decaymerge.low_rank import LowRank
from decaymerge.model_files import read_json

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of the weights, in the order in which PEFT looks for them."""
PREFIX = "base_model.model."
"""Beginning of all names in an adapter."""
STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Values of ``init_lora_weights`` that leave the base as it is."""
UNDERSTOOD = frozenset(
    {
        *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying"),
        *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights"),
        *(
            "layers_pattern",
            "layers_to_transform",
            "lora_alpha",
            "lora_bias",
            "lora_dropout",
            "megatron_core",
        ),
        *(
            "modules_to_save",
            "peft_type",
            "peft_version",
            "qalora_group_size",
            "r",
            "rank_pattern",
            "revision",
        ),
        *("runtime_config", "target_modules", "task_type", "use_rslora"),
    }
)
"""Settings that are read, or that say nothing of the finished adapter. Any other may only be empty."""
REMEDY = "merge it into its base with PEFT's merge_and_unload(), save that model, and give its folder"
REMEDY = "merge it into its base with PEFT's merge_and_unload(), save that model, and give its folder"
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>A\.weight|B\.weight|B\.bias|embedding_A|embedding_B)")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS)


class Adapter:
    """The stored tensors of an adapter, by the parameter of the model that they change.

    Args:
        folder: Holds ``adapter_config.json`` and the weights.

    Raises:
        UserError: the adapter is no LoRA, has a variant that is more than a sum, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = read_json(folder / CONFIG)
        self._refuse()
        self.file = next(folder / name for name in WEIGHTS if (folder / name).is_file())
        self.tensors = read_header(self.file)[0]
        self.factors: dict[str, dict[str, str]] = {}
        """Stored tensors ``A``, ``B`` and ``bias`` of each module with factors."""
        self.replaced: dict[str, str] = {}
        """Stored tensor of each parameter that is replaced."""
        for name in self.tensors:
            self._enter(name)
        for module, parts in self.factors.items():
            if not parts.keys() >= {"A", "B"}:
                raise UserError(
                    f"{folder}: {module} has only one of lora_A and lora_B; fetch the adapter again"
                )
        self._source = open_file(self.file)

    @property
    def base(self) -> str:
        """Folder or name of its base, as the adapter says; empty if it does not."""
        return str(self.config.get("base_model_name_or_path") or "")

    def _refuse(self) -> None:
        kind = str(self.config.get("peft_type") or "of an unknown kind")
        if kind.upper() != "LORA":
            raise UserError(f"{self.folder} is an adapter ({kind}) and no LoRA: {REMEDY}")
        extra = sorted(key for key, value in self.config.items() if value and key not in UNDERSTOOD)
        if extra:
            raise UserError(
                f"{self.folder} is a LoRA with {listed(extra)}, which is more than a sum: {REMEDY}"
            )
        start = self.config.get("init_lora_weights")
        if start not in STARTS:
            raise UserError(
                f"{self.folder}: init_lora_weights is {start!r}, which changes the base itself: convert the adapter"
                " with PEFT's path_initial_model_for_weight_conversion, and give what it saves"
            )

    def _enter(self, name: str) -> None:
        short = name.removeprefix(PREFIX)
        match = FACTOR.fullmatch(short)
        if match is None and ADAPTER_TENSOR.search(short):
            raise UserError(f"{self.folder} is a LoRA with {short}, which is more than a sum: {REMEDY}")
        if not name.startswith(PREFIX):
            raise UserError(
                f"{self.folder}: {name} does not begin with {PREFIX}; save the adapter with PEFT's save_pretrained"
            )
        if match is None:
            self.replaced[short.replace(".base_layer.", ".")] = name
            return
        kind = match["kind"].removeprefix("embedding_").removesuffix(".weight").replace("B.bias", "bias")
        self.factors.setdefault(match["module"], {})[kind] = name
        if "embedding" in match["kind"]:
            self.factors[match["module"]]["embedding"] = ""

    def read(self, name: str) -> Tensor:
        """A stored tensor.

        Raises:
            UserError: an entry is infinite or NaN.
        """
        tensor: Tensor = (
            self._source[name] if isinstance(self._source, Mapping) else self._source.get_tensor(name)
        )
        if not tensor.isfinite().all():
            raise UserError(f"{name} of {self.folder} has an infinite or NaN entry; the adapter is damaged")
        return tensor

    def scale(self, module: str) -> float:
        """α/r of a module, or α/√r; both numbers may differ between modules."""
        rank = self.pattern("rank_pattern", module, self.config.get("r"))
        alpha = self.pattern("alpha_pattern", module, self.config.get("lora_alpha"))
        if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
            raise UserError(
                f"{self.folder / CONFIG}: r is {rank!r} and lora_alpha {alpha!r}; numbers are expected"
            )
        if rank != (stored := self.tensors[self.factors[module]["A"]].shape[0]):
            raise UserError(
                f"{self.folder / CONFIG} says rank {rank} for {module}, and {stored} is stored; give the config of"
                " these weights"
            )
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    def pattern(self, key: str, module: str, default: Any) -> Any:
        """The value of the first pattern that fits the end of a module's name, as PEFT looks it up."""
        patterns = self.config.get(key) or {}
        found = (value for end, value in patterns.items() if re.match(rf"(.*\.)?({end})$", module))
        return next(found, default)


def fits(one: str, other: str) -> bool:
    """Whether two names are the same but for the prefix of a class around it."""
    return one == other or (one.endswith(f".{other}") if len(one) > len(other) else other.endswith(f".{one}"))


def ties_of(model: Any) -> dict[str, str]:
    """Parameters that a class ties, with the one that each is tied to."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def broken_ties(base: Checkpoint, form: Form, adapter: Adapter) -> dict[str, str]:
    """Ties of the base of which the adapter changes one side, or both sides apart: copies with their tables.

    Raises:
        UserError: more than one tensor is tied to the table.
    """
    if not form.class_name or adapter.config.get("ensure_weight_tying"):
        return {}
    changed = [*(f"{module}.weight" for module in adapter.factors), *adapter.replaced]
    ties = ties_of(build(base.config))
    broken = {
        copy: table
        for copy, table in ties.items()
        if any(fits(name, side) for name in changed for side in (copy, table))
    }
    if len(broken) > 1:
        raise UserError(
            f"{adapter.folder} changes {listed(sorted(set(broken.values())))}, to which {listed(sorted(broken))}"
            " are tied: untie them in the base with tie_word_embeddings false, and save it"
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
        self._model = build(base.config) if form.class_name else None
        names = {form.names.get(stored, stored): stored for stored in base.tensors}
        ties = set(ties_of(self._model)) if adapter.config.get("ensure_weight_tying") else set()
        self.modules: dict[str, str] = {}
        """Module of the adapter whose factors change each tensor."""
        self.biases: dict[str, str] = {}
        """Module of the adapter whose factors have a bias, which changes each tensor."""
        self.replaced: dict[str, str] = {}
        """Tensor of the adapter that replaces each tensor."""
        for module, parts in adapter.factors.items():
            if any(fits(f"{module}.weight", copy) for copy in ties):
                continue  # PEFT keeps it equal to that of the table
            self.modules[self._stored(f"{module}.weight", names)] = module
            if "bias" in parts:
                self.biases[self._stored(f"{module}.bias", names)] = module
        for parameter, name in adapter.replaced.items():
            if any(fits(parameter, copy) for copy in ties):
                continue
            self.replaced[self._stored(parameter, names)] = name
        for stored in self.replaced.keys() & self.modules.keys():  # PEFT stores tables beside their factors
            if adapter.read(self.replaced[stored]).equal(base.read([stored])[0]):
                del self.replaced[stored]
        self.changed = frozenset({*self.modules, *self.biases, *self.replaced})
        for stored in sorted(self.changed):
            self._check_shape(stored)

    def _stored(self, parameter: str, names: Mapping[str, str]) -> str:
        """The base's tensor of a parameter: of that name, or of one with the prefix of another class around it."""
        if parameter in names:
            return names[parameter]
        found = [stored for name, stored in names.items() if fits(parameter, name)]
        if len(found) != 1:
            raise UserError(
                f"{self.place} changes {parameter}, which is {'not' if not found else 'more than once'} in"
                f" {self.base.place}; give the base that it was trained on, saved as the same transformers class"
            )
        return found[0]

    def _check_shape(self, stored: str) -> None:
        expected = self.tensors[stored].shape
        if stored in self.replaced:
            shape = self.adapter.tensors[self.replaced[stored]].shape
        else:
            shape = tuple(self.change(stored, torch.empty(expected, device="meta")).shape)
        if tuple(shape) != tuple(expected):
            raise UserError(
                f"{self.place} changes {stored} with the shape {tuple(shape)}, which is {tuple(expected)} in"
                f" {self.base.place}; give the base that it was trained on"
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
        if first.ndim == 4:  # of a convolution
            return ((second.flatten(1) @ first.flatten(1)) * self.adapter.scale(module)).reshape(base.shape)
        product = LowRank(second * self.adapter.scale(module), first)
        return product.mT if "embedding" in parts or self.inputs_first(module) else product

    def inputs_first(self, module: str) -> bool:
        """Whether the base stores the matrix of a module (in, out)."""
        if self._model is None:
            return bool(self.adapter.config.get("fan_in_fan_out"))
        known = dict(self._model.named_modules())
        found = known.get(module) or next((one for path, one in known.items() if fits(module, path)), None)
        return type(found).__name__ == "Conv1D"

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
