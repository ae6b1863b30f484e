"""LoRA adapters as PEFT saves them: what they store, and what of it is understood.

A matrix W of the base becomes W + (α/r) B A, with A (r, in) and B (out, r); rank-stabilised adapters have α/√r.
Modules that were trained as a whole, and biases, are stored as they are and replace those of the base. Everything
else that PEFT can do changes the network in another way, and is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from torch import Tensor

from decaymerge.checkpoint.kinds import ADAPTER_TENSOR
from decaymerge.checkpoint.reader import DTYPES, open_file, read_header
from decaymerge.config.base import Settings, refuse, validate
from decaymerge.errors import UserError, listed
from decaymerge.model_files import MAIN_FILES, read_json

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of the weights, in the order in which PEFT looks for them."""
PREFIX = "base_model.model."
"""Beginning of all names in an adapter."""
STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Values of ``init_lora_weights`` that leave the base as it is."""
WHERE = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
TRAINING = {"bias", "eva_config", "init_lora_weights", "lora_bias", "lora_dropout", "qalora_group_size"}
ABOUT = {"auto_mapping", "inference_mode", "megatron_core", "peft_type", "peft_version", "runtime_config"}
ABOUT |= {"task_type"}
"""Settings of where factors were put, how they were trained, and by which program: the tensors say the rest."""
REMEDY = "merge it into its base with PEFT's merge_and_unload(), save that model, and give its folder"
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>A\.weight|B\.weight|B\.bias|embedding_A|embedding_B)")
TYPES = [DTYPES[name] for name in ("F64", "F32", "F16", "BF16")]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model beside it."""
    there = {name for name in (CONFIG, *WEIGHTS, *MAIN_FILES) if (folder / name).is_file()}
    return CONFIG in there and bool(there & set(WEIGHTS)) and not there & set(MAIN_FILES)


def _pattern(value: Any) -> Any:
    try:
        re.compile(str(value))
    except re.error as error:
        raise refuse(f"{value} is no regular expression ({error})") from None
    return value


Rank = Annotated[int, Field(strict=True, ge=1)]
Alpha = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
Pattern = Annotated[str, BeforeValidator(_pattern)]


class AdapterSettings(Settings):
    """What is read of ``adapter_config.json``."""

    r: Rank = 8
    lora_alpha: Alpha = 8.0
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, Alpha] | None = None
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    ensure_weight_tying: bool = False
    modules_to_save: list[str] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None

    @property
    def base(self) -> str:
        """Folder or name of the base, with its revision; empty if it is not named."""
        base = self.base_model_name_or_path or ""
        return f"{base}@{self.revision}" if base and self.revision and not Path(base).exists() else base


READ = AdapterSettings.model_fields.keys()
UNDERSTOOD = READ | WHERE | TRAINING | ABOUT
"""Settings of an adapter that is understood. Any other may only be empty."""


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
        try:
            self.settings = validate(
                AdapterSettings, {key: self.config[key] for key in READ if key in self.config}
            )
        except UserError as error:
            raise UserError(f"{folder / CONFIG}: {str(error).splitlines()[0]}") from None
        self.file = next(folder / name for name in WEIGHTS if (folder / name).is_file())
        self.tensors = read_header(self.file)[0]
        self.factors: dict[str, dict[str, str]] = {}
        """Stored tensors ``A``, ``B`` and ``bias`` of each module with factors."""
        self.replaced: dict[str, str] = {}
        """Stored tensor of each parameter that is replaced."""
        for name in self.tensors:
            self._enter(name)
        for module, parts in self.factors.items():
            self._check_factors(module, parts)
        self._source = open_file(self.file)

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
                f"{self.folder}: init_lora_weights is {start!r}, which may change the base itself: convert the"
                " adapter with PEFT's path_initial_model_for_weight_conversion, and give what it saves"
            )

    def _enter(self, name: str) -> None:
        short = name.removeprefix(PREFIX)
        match = FACTOR.fullmatch(short)
        if match is None and re.search(r"\.lora_[AB]\.\w+\.weight$", short):
            raise UserError(
                f"{self.folder}: {name} is a name in training; save the adapter with PEFT's save_pretrained"
            )
        if match is None and ADAPTER_TENSOR.search(short):
            raise UserError(f"{self.folder} is a LoRA with {short}, which is more than a sum: {REMEDY}")
        if not name.startswith(PREFIX):
            raise UserError(
                f"{self.folder}: {name} does not begin with {PREFIX}; save the adapter with PEFT's save_pretrained"
            )
        if match is None:
            parameter = short.replace(".base_layer.", ".")
            if parameter in self.replaced:
                raise UserError(f"{self.folder} has {parameter} twice; save the adapter again")
            self.replaced[parameter] = name
            return
        kind = match["kind"].removeprefix("embedding_").removesuffix(".weight").replace("B.bias", "bias")
        self.factors.setdefault(match["module"], {})[kind] = name
        if "embedding" in match["kind"]:
            self.factors[match["module"]]["embedding"] = ""

    def _check_factors(self, module: str, parts: Mapping[str, str]) -> None:
        if not parts.keys() >= {"A", "B"}:
            raise UserError(
                f"{self.folder}: {module} has only one of lora_A and lora_B; fetch the adapter again"
            )
        first, second = (self.tensors[parts[key]] for key in "AB")
        rank = self.pattern(self.settings.rank_pattern, module, self.settings.r)
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        if len(first.shape) < 2 or len(first.shape) != len(second.shape) or first.shape[0] != second.shape[1]:
            raise UserError(
                f"{self.folder}: lora_A and lora_B of {module} have the shapes {shapes}, which do not fit together;"
                " fetch the adapter again"
            )
        if first.shape[0] != rank:
            raise UserError(
                f"{self.folder / CONFIG} says rank {rank} for {module}, and {first.shape[0]} is stored; give the"
                " config of these weights"
            )
        if not {first.dtype, second.dtype} <= set(TYPES):
            raise UserError(
                f"{self.folder}: the factors of {module} are no floating-point numbers of 16 bits or more; save the"
                " adapter in 16 or 32 bits"
            )

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
        rank = self.pattern(self.settings.rank_pattern, module, self.settings.r)
        alpha = self.pattern(self.settings.alpha_pattern, module, self.settings.lora_alpha)
        return alpha / (rank**0.5 if self.settings.use_rslora else rank)

    def pattern(self, patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
        """The value of the first pattern that fits the end of a module's name, as PEFT looks it up."""
        found = (value for end, value in (patterns or {}).items() if re.match(rf"(.*\.)?({end})$", module))
        return next(found, default)
