"""Checkpoints that are no models in plain numbers: adapters, and quantised ones, of which two kinds can be read."""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decaymerge.checkpoint.reader import TensorInfo
from decaymerge.errors import UserError
from decaymerge.model_files import read_json

ADAPTER_TENSOR = re.compile(
    r"(^|\.)(lora_(A|B|embedding_A|embedding_B|magnitude_vector|E)|ia3_l|vera_lambda_[bd]|hada_w\d_[ab]|lokr_w\d(_[ab])?"
    r"|oft_[rRsS]\w*|boft_\w+|prompt_embeddings|adaption_prompt|trainable_tokens_delta)(\.|$)"
)
"""Names of the tensors of adapters, as PEFT calls them."""
SIGNS = {
    "GPTQ or AWQ": re.compile(r".*\.(qweight|qzeros)"),
    "bitsandbytes": re.compile(r".*\.(SCB|absmax|quant_map|nested_absmax|quant_state\..+)"),
    "compressed-tensors": re.compile(r".*\.(weight_packed|weight_global_scale)"),
}
"""Names of the tensors that only a kind of quantised checkpoint has."""
READ = ("fp8", "mxfp4")
"""Kinds of quantised checkpoints that are read in their numbers."""
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
BLOCK = 128
"""Rows and columns that share a scale in fp8, where the config does not say how many."""


def refuse_adapter(place: Path, tensors: Collection[str], adapter: Path) -> None:
    """Refuse an adapter, which is a change to a base and no model.

    Args:
        place: Folder or file.
        tensors: Names of the tensors.
        adapter: Its ``adapter_config.json``, if there is one.

    Raises:
        UserError: the tensors are those of an adapter, alone or inside a model.
    """
    found = next((name for name in tensors if ADAPTER_TENSOR.search(name)), None)
    if found is None:
        return
    raise UserError(of_adapter(place, adapter, f", as {found} shows"))


def of_adapter(place: Path, adapter: Path, sign: str = "") -> str:
    """Words for an adapter that is given as a model.

    Raises:
        UserError: its ``adapter_config.json`` is not readable.
    """
    settings = read_json(adapter)
    base = settings.get("base_model_name_or_path")
    kind = settings.get("peft_type") or "of PEFT"
    remedy = "give its folder" if place.is_file() else "merge it into its base first, and give that model"
    return f"{place} is an adapter ({kind}{f', for {base}' if base else ''}) and no model{sign}: {remedy}"


def _settings(config: Mapping[str, Any]) -> Any:
    """The ``quantization_config`` of a config, or of one of its parts, such as ``text_config``."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    return next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)


def quantisation(config: Mapping[str, Any], tensors: Collection[str]) -> str | None:
    """How a checkpoint is quantised: a kind of ``READ``, the name of another one, or none."""
    settings = _settings(config)
    for kind, sign in SIGNS.items():
        if any(sign.fullmatch(name) for name in tensors):
            return kind
    if isinstance(settings, dict):
        method = settings.get("quant_method")
        if method is None and (settings.get("load_in_8bit") or settings.get("load_in_4bit")):
            return "bitsandbytes"
        return str(method or "unknown")
    if any(name.endswith("weight_scale_inv") for name in tensors):
        return "fp8 whose config.json has no quantization_config"
    return None


def refuse_quantised(place: Path, kind: str | None) -> None:
    """Refuse the kinds of quantised checkpoints that are not read.

    Raises:
        UserError: the checkpoint is quantised, and not in fp8 or MXFP4.
    """
    if kind is not None and kind not in READ:
        raise UserError(
            f"{place} is quantised ({kind}), and its integers are no weights: load it with transformers, call"
            " dequantize(), save it in 16 bits, and give that folder"
        )


def check_scale(
    place: Path, name: str, matrix: TensorInfo, scale: TensorInfo, config: Mapping[str, Any]
) -> None:
    """Refuse scales that are not one for each block of a matrix in fp8, or one for all.

    Raises:
        UserError: the scale has another shape.
    """
    block = block_of(config)
    rows, columns = ([1, 1, *matrix.shape][-2:]) if len(matrix.shape) > 1 else (1, 1)
    expected = (*matrix.shape[:-2], math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    if math.prod(scale.shape) != 1 and tuple(scale.shape) != expected:
        raise UserError(
            f"{name} of {place} has {tuple(scale.shape)} scales for blocks of {block[0]} x {block[1]}, where"
            f" {expected} are expected; state the blocks as weight_block_size in quantization_config, or give the"
            " checkpoint in 16 bits"
        )


def from_float8(stored: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """Numbers (…, rows, columns) in float32 of a matrix in fp8: each block of rows and columns times its scale.

    Args:
        stored: The matrix, (…, rows, columns).
        scale: A scale for each block, (…, rows / block, columns / block) rounded up, or one for all. Bytes are
            exponents of 2, plus 127.
        block: Rows and columns of a block.
    """
    wide = stored.float()
    scale = (scale.float() - 127).exp2() if scale.dtype is torch.uint8 else scale.float()
    if scale.numel() == 1:
        return wide * scale
    rows, columns = wide.shape[-2:]
    spread = scale.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return wide * spread[..., :rows, :columns]


def block_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns that share a scale in fp8."""
    settings = _settings(config)
    size = settings.get("weight_block_size") if isinstance(settings, dict) else None
    if isinstance(size, list) and len(size) == 2 and all(isinstance(x, int) and x > 0 for x in size):
        return size[0], size[1]
    return BLOCK, BLOCK


def from_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Numbers (experts, in, out) of the experts of a layer, by the function of ``transformers``.

    Args:
        blocks: Pairs of numbers of 4 bits, (experts, out, in / 32, 16).
        scales: Exponents, (experts, out, in / 32).
    """
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    return convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
