"""Each row of the table against transformers: what its own forward pass applies, and what the reader finds."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builders_architectures import MODELS, saved
from builders_checkpoints import matrices_of
from builders_model_types import fault_of, types_seen
from builders_tiny_models import BY_OUTPUTS, model_types, tiny
from decaymerge import architectures
from decaymerge.architectures import ATTENTIONS, MLPS, verified_types
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.judge import judge
from decaymerge.errors import UserError
from decaymerge.scan import split_qkv
from decaymerge.scan.plan import make_plan

IDS = torch.tensor([[3, 7, 11, 2, 9]])


def run(model: Any) -> None:
    if model.config.model_type == "vit":
        model(pixel_values=torch.randn(1, 3, 16, 16))
    elif model.config.is_encoder_decoder:
        model(input_ids=IDS, decoder_input_ids=IDS)
    else:
        model(input_ids=IDS)


def applied_maps(model: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(inputs, outputs, bias) of every Linear and Conv1D module in one forward pass, as row vectors."""
    maps: list[tuple[Tensor, Tensor, Tensor]] = []

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        bias = getattr(module, "bias", None)
        zero = torch.zeros(output.shape[-1]) if bias is None else bias
        maps.append((inputs[0].flatten(0, -2), output.flatten(0, -2), zero))

    for module in model.modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            module.register_forward_hook(hook)
    run(model)
    return maps


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_every_role_is_a_map_that_the_forward_pass_applies(name: str, tmp_path: Path) -> None:
    """W x + bias equals a module's output (or, for joined and split matrices, rows of outputs)."""
    model, checkpoint = saved(name, tmp_path)
    plan = make_plan(checkpoint)
    assert plan.has_roles
    maps = applied_maps(model)
    matrices = matrices_of(checkpoint)
    assert {role for _, role in matrices} == {"Q", "K", "V", "O", "QKV", "M1", "M2"}
    layers = 4 if name == "T5" else 2
    assert len(matrices) == 7 * layers
    for (layer, role), matrix in matrices.items():
        if name != "GPT-NeoX" or role not in ("Q", "K", "V"):
            assert_applied(matrix, maps, f"{layer} {role}")


def assert_applied(matrix: Tensor, maps: list[tuple[Tensor, Tensor, Tensor]], where: str) -> None:
    """Every row of the matrix gives, on some module's inputs, one of its outputs less the bias."""
    rows = set(range(len(matrix)))
    for inputs, outputs, bias in maps:
        if inputs.shape[-1] == matrix.shape[1]:
            product = inputs @ matrix.T
            target = outputs - bias
            for row in list(rows):
                distance = (target - product[:, row : row + 1]).abs().amax(0)
                if distance.min() < 1e-4:
                    rows.discard(row)
    assert not rows, f"{where}: rows {sorted(rows)[:5]} are applied nowhere"


ATTENTION = [name for name in MODELS if not name.startswith(("T5", "DistilBERT", "MPNet", "GPT-J"))]


@pytest.mark.parametrize("name", ATTENTION)
@torch.no_grad()
def test_query_key_and_value_are_those_that_attention_gets(name: str, tmp_path: Path) -> None:
    """Q x, K x and V x of the first token are what the attention function gets; rotary angles are zero there."""
    model, checkpoint = saved(name, tmp_path)
    received: list[dict[str, Tensor]] = []

    def spy(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
        heads = {"Q": query, "K": key, "V": value}
        # (head · head dimension)
        received.append({role: states[0, :, 0].flatten() for role, states in heads.items()})
        groups = query.shape[1] // key.shape[1]
        options.setdefault("scaling", query.shape[-1] ** -0.5)
        key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
        # Any weights do: roles are seen before them.
        weights = (query @ key.mT * options["scaling"]).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    model.config._attn_implementation = "spy"
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "spy"
    inputs: list[Tensor] = []
    for module in model.modules():
        if type(module).__name__.endswith(("SelfAttention", "Attention")) and not any(
            type(child).__name__.endswith("SelfAttention") for child in module.children()
        ):
            module.register_forward_pre_hook(
                lambda _, args, kwargs: inputs.append((args[0] if args else kwargs["hidden_states"])[0, 0]),
                with_kwargs=True,
            )
    run(model)
    assert len(received) == 2 and len(inputs) == 2
    matrices = matrices_of(checkpoint)
    for layer, (states, x) in enumerate(zip(received, inputs, strict=True)):
        label = sorted({name for name, _ in matrices})[layer]
        for role in ("Q", "K", "V"):
            bias = bias_of(checkpoint, label, role, len(states[role]))
            expected = matrices[label, role] @ x + bias
            # OPT scales its queries beforehand.
            scale = float(states[role] @ expected / (expected @ expected))
            torch.testing.assert_close(states[role], scale * expected, rtol=1e-4, atol=1e-4)
            assert scale == pytest.approx(1, rel=1e-4) or (name == "OPT" and role == "Q")


@pytest.mark.parametrize(
    ("name", "where", "label", "heads", "scaled"),
    [
        ("MPNet", "encoder.layer.1.attention.attn", "encoder.layer.1", 4, True),
        # Only the first layer of T5 has biases of positions.
        ("T5", "encoder.block.1.layer.0.SelfAttention", "encoder.block.1", 4, False),
    ],
)
@torch.no_grad()
def test_attention_that_cannot_be_watched_is_that_of_the_roles(
    name: str, where: str, label: str, heads: int, scaled: bool, tmp_path: Path
) -> None:
    model, checkpoint = saved(name, tmp_path)
    module = model.get_submodule(where)
    states = torch.randn(1, 5, module.q.in_features, generator=torch.Generator().manual_seed(1))
    matrices = matrices_of(checkpoint)
    query, key, value = (
        nn.functional.linear(states, matrices[label, role], bias_of(checkpoint, label, role, 32))
        .unflatten(-1, (heads, -1))
        .transpose(1, 2)
        for role in "QKV"
    )
    mixed = (query @ key.mT / (query.shape[-1] ** 0.5 if scaled else 1)).softmax(-1) @ value
    expected = nn.functional.linear(
        mixed.transpose(1, 2).flatten(2), matrices[label, "O"], bias_of(checkpoint, label, "O", 32)
    )
    torch.testing.assert_close(module(states)[0], expected)


def bias_of(checkpoint: Checkpoint, layer: str, role: str, size: int) -> Tensor:
    """Bias of a role by the reader's own table: the weight's name with ``bias`` in place of ``weight``."""
    for group in make_plan(checkpoint).groups:
        if group.layer == layer and ("QKV" in group.parts or role in group.parts):
            fused = role not in group.parts
            (name,) = group.parts["QKV" if fused else role]
            bias_name = name.removesuffix("weight") + "bias"
            if bias_name not in checkpoint.tensors:
                return torch.zeros(size)
            (bias,) = checkpoint.read([bias_name])
            if not fused:
                return bias
            return split_qkv(group, bias.unsqueeze(1))["QKV".index(role)].squeeze(1)
    raise AssertionError(layer)


SAMPLE = [
    "bert",
    "bart",
    "clip",
    "deit",
    "distilbert",
    "gpt2",
    "gpt_neox",
    "gptj",
    "lfm2",
    "llama",
    "mixtral",
    "modernbert",
]
SAMPLE += ["opt", "phi", "phi3", "qwen3_next", "starcoder2", "ctrl"]
"""Types that have every scheme among them; the slow test tries all."""
UNSEEN = {"MPNet", "T5", "packed ViT"}
"""Schemes whose attention cannot be watched: the test above compares what their modules apply."""


@pytest.mark.parametrize("model_type", SAMPLE)
def test_roles_are_those_that_the_class_uses(model_type: str, tmp_path: Path) -> None:
    assert fault_of(tiny(model_type), tmp_path) == ""
    assert types_seen(tiny(model_type), tmp_path) <= verified_types()


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_type", sorted(set(model_types()) & verified_types() - set(SAMPLE) - BY_OUTPUTS)
)
def test_all_verified_types_are_right(model_type: str, tmp_path: Path) -> None:
    assert fault_of(tiny(model_type), tmp_path) == ""


def test_every_scheme_has_a_test(tmp_path: Path) -> None:
    """Each is the best for a model of the sample, or of those whose modules' outputs are compared."""
    seen = set()
    for model_type in SAMPLE:
        tiny(model_type).save_pretrained(tmp_path / model_type)
        plan = make_plan(Checkpoint(tmp_path / model_type), judge(Checkpoint(tmp_path / model_type)))
        seen |= {group.scheme.name for group in plan.groups if group.scheme is not None}
    assert {scheme.name for scheme in (*ATTENTIONS, *MLPS)} - UNSEEN <= seen


@pytest.mark.parametrize(
    ("role", "change"),
    [("Q", {"self_attn.q_proj": "self_attn.k_proj"}), ("M1", {"mlp.gate_proj": "mlp.down_proj"})],
)
def test_a_wrong_table_would_be_noticed(role: str, change: dict[str, str], tmp_path: Path) -> None:
    """Two matrices of one shape change names in the table: the class does something else with them."""
    model = tiny("llama")
    ((one, other),) = change.items()
    wrong = [
        replace(
            scheme, suffixes={name: _swapped(suffix, one, other) for name, suffix in scheme.suffixes.items()}
        )
        for scheme in (ATTENTIONS[1], MLPS[0])
    ]
    assert role in wrong[0].suffixes or role in wrong[1].suffixes
    with (
        mock.patch.object(architectures, "ATTENTIONS", (wrong[0],)),
        mock.patch.object(architectures, "MLPS", (wrong[1],)),
    ):
        try:
            fault = fault_of(model, tmp_path)
        except UserError as error:
            fault = str(error)
        assert fault != ""


def _swapped(suffix: str, one: str, other: str) -> str:
    first, second = (re.escape(name.split(".")[1]) for name in (one, other))
    if "gate|up" in suffix:
        return suffix.replace("gate|up|gate_up", "up|down")
    return suffix.replace(first, "\0").replace(second, first).replace("\0", second)
