"""Tiny models of every ``model_type`` of ``transformers``, and what their forward passes do with each matrix."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from decaymerge.architectures import Place
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.form import judge
from decaymerge.scan import matrices_by_role
from decaymerge.scan.plan import groups_of, places_of

MAPPINGS = (
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
SIZES = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "width"), 32)
    | dict.fromkeys(("embedding_size", "word_embed_proj_dim", "hidden_size_per_layer_input"), 32)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), 4)
    | dict.fromkeys(("decoder_layers", "num_encoder_layers", "num_decoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4)
    | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    | dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_topk"), 2)
    | dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"), 48)
    | dict.fromkeys(("n_inner", "d_ff", "ffn_hidden_size", "dense_intermediate_size"), 48)
    | dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24
    )
    | dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "entity_vocab_size"), 64)
    | dict.fromkeys(("vocab_size_per_layer_input", "pronunciation_vocab_size", "shape_vocab_size"), 64)
    | {
        "head_dim": 8,
        "image_size": 32,
        "patch_size": 8,
        "entity_emb_size": 32,
        "n_group": 1,
        "topk_group": 1,
        "rotary_dim": 4,
    }
    | {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    | {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
)
"""Sizes of tiny models, by the keys of their configs."""
TOKENS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "unk_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
)
BY_OUTPUTS = {"mpnet", "t5"}
"""Types whose attention cannot be watched. What their modules apply is compared with the table in another test."""
LARGEST = 20_000_000
"""Parameters of the largest model that is built."""


def model_types() -> list[str]:
    """Every ``model_type`` that is mapped to causal, masked or image classification models."""
    return sorted(set().union(*MAPPINGS))


def tiny(model_type: str) -> Any:
    """A random tiny model of a type.

    Raises:
        Exception: whatever its class raises at this size.
    """
    names = next(mapping[model_type] for mapping in MAPPINGS if model_type in mapping)
    model_class = getattr(hf, names if isinstance(names, str) else names[0])
    config_class = model_class.config_class or CONFIG_MAPPING[model_type]
    config = config_class()
    _shrink(config)
    content = _without_layer_types(config.to_dict())
    for attempt in (lambda: config_class.from_dict(content), lambda: config):
        try:
            settings = attempt()
            _shrink(settings)
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in model_class(settings).parameters())
        except Exception as error:
            last = error
            continue
        if count > LARGEST:
            raise MemoryError(f"{count / 1e6:.0f} M parameters at the smallest size that was tried")
        torch.manual_seed(0)
        model = model_class(settings).eval().float()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        return model
    raise last


def _without_layer_types(content: dict[str, Any]) -> dict[str, Any]:
    """A config, in which lists with an entry for each layer take their defaults again."""
    return {
        key: _without_layer_types(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if not str(key).endswith(("layer_types", "no_rope_layers"))
    }


def _shrink(config: Any) -> None:
    for key, size in SIZES.items():
        with suppress(AttributeError):  # some are properties
            if type(getattr(config, key, None)) is int:
                setattr(config, key, size)
    if getattr(config, "use_cache", False):
        config.use_cache = False
    for key in TOKENS:
        if type(getattr(config, key, None)) is int:
            setattr(config, key, 1)
    for part in list(vars(config).values()):
        if isinstance(part, hf.PreTrainedConfig):
            _shrink(part)


def run(model: Any) -> None:
    """A forward pass on random inputs of the model's kind."""
    torch.manual_seed(1)
    ids = torch.randint(3, 60, (1, 24))
    if model.main_input_name == "pixel_values":
        size = getattr(model.config, "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        model(pixel_values=torch.randn(1, getattr(model.config, "num_channels", 3), size, size))
    elif model.config.is_encoder_decoder and "decoder_input_ids" in model.forward.__code__.co_varnames:
        model(input_ids=ids, decoder_input_ids=ids)
    else:
        model(input_ids=ids)


class Attention:
    """One call of attention: the module, and what it made of its inputs."""

    def __init__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> None:
        self.module = module
        self.states = {"Q": query, "K": key, "V": value}
        self.output: Tensor | None = None
        self.mixed: Tensor | None = None
        """Values mixed by the attention's weights, (1, samples, heads · head dimension)."""


def attentions(model: Any) -> list[Attention]:
    """Every call of attention in a forward pass, with gradients that stop at the inputs of its module."""
    calls: list[Attention] = []

    def spy(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        calls.append(Attention(module, query, key, value))
        with torch.no_grad():
            groups = query.shape[1] // key.shape[1]
            keys, values = (states.repeat_interleave(groups, 1) for states in (key, value))
            weights = (query @ keys.mT / query.shape[-1] ** 0.5).softmax(-1)
            mixed = (weights @ values).transpose(1, 2).contiguous()
        calls[-1].mixed = mixed.flatten(2)
        return mixed, None

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    for module in model.modules():
        if isinstance(getattr(module, "config", None), hf.PreTrainedConfig):
            module.config._attn_implementation = "spy"
    run(model)
    modules = {id(call.module): call.module for call in calls}
    calls.clear()
    handles = []
    for module in modules.values():
        handles.append(module.register_forward_pre_hook(_detach_inputs, with_kwargs=True))
        handles.append(
            module.register_forward_hook(lambda module, _, output: _keep_output(calls, module, output))
        )
    run(model)
    for handle in handles:
        handle.remove()
    return list(calls)  # later passes go on to fill the list


def _detach_inputs(_: nn.Module, args: Any, kwargs: Any) -> Any:
    return _detached(args), {name: _detached(value) for name, value in kwargs.items()}


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple):
        return tuple(_detached(part) for part in value)
    return value


def _keep_output(calls: list[Attention], module: nn.Module, output: Any) -> None:
    for call in calls:
        if call.module is module:
            call.output = output[0] if isinstance(output, tuple) else output


def matrices_behind(outputs: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """The rows of matrices by name that a tensor depends on, as masks over output dimensions."""
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and parameter.requires_grad
    }
    weight = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(
        (outputs * weight).sum(), list(parameters.values()), allow_unused=True, retain_graph=True
    )
    found = {}
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is None or parameter.ndim != 2:
            if gradient is not None and gradient.any():
                found[name] = torch.ones(len(parameter), dtype=torch.bool)
            continue
        rows = gradient.abs().amax(0 if is_transposed(model, name) else 1) > 0
        if rows.any():
            found[name] = rows
    return found


def is_transposed(model: nn.Module, name: str) -> bool:
    """Whether a matrix is stored (in, out)."""
    return type(model.get_submodule(name.rpartition(".")[0])).__name__ == "Conv1D"


def rows_of(model: nn.Module, name: str, rows: Tensor) -> Tensor:
    """Rows (out, in) of a matrix."""
    matrix = model.get_parameter(name).detach()
    return (matrix.T if is_transposed(model, name) else matrix)[rows]


def uses(model: Any) -> dict[str, dict[str, Tensor | None]]:
    """What attention uses, by the name of its module: Q, K, V and O, or none where it is no single matrix."""
    names = {id(module): name for name, module in model.named_modules()}
    calls = attentions(model)
    readers = _readers(model, calls)
    found: dict[str, dict[str, Tensor | None]] = {}
    for call in calls:
        behind = {
            role: matrices_behind(states, model) if states.requires_grad else {}
            for role, states in call.states.items()
        }
        roles = {role: _single(model, rows) for role, rows in behind.items()}
        output = call.output
        outer = matrices_behind(output, model) if output is not None and output.requires_grad else {}
        outer = {
            name: rows for name, rows in outer.items() if not any(name in rows for rows in behind.values())
        }
        roles["O"] = _single(model, outer or readers.get(id(call), {}))
        found[names[id(call.module)]] = roles
    return found


def fault_of(model: Any, folder: Path) -> str:
    """What the scan's table says wrongly of a model, or leaves out of its layers; empty if it is right.

    Q, K, V and O are compared with what attention uses, by their norms, which no conversion changes. M1 and M2 must
    be all that the output of the last of them depends on, from the inputs of the first.
    """
    model.save_pretrained(folder)
    checkpoint = Checkpoint(folder)
    form = judge(checkpoint)
    found = places_of(checkpoint, form)
    if not found:
        return "no role by its names"
    class_names = {name: form.names.get(name, name) for name in found}
    table: dict[tuple[str, int], dict[str, list[Tensor]]] = {}
    for group in groups_of(checkpoint, form, found):
        names = [name for part in group.parts.values() for name in part]
        for role, matrices in matrices_by_role(group, checkpoint.read(names)).items():
            layer = table.setdefault((group.stack, group.number), {})
            layer.setdefault(role, []).extend(torch.cat(list(blocks)) for blocks in matrices)
    by_module = uses(model)
    if not by_module:
        return "its attention cannot be observed"
    seen = set()
    for module, roles in by_module.items():
        owners = {
            (found[name].stack.rstrip("."), found[name].layer)
            for name, target in class_names.items()
            if found[name].role in ("Q", "QKV") and target.startswith(f"{module}.")
        }
        if not owners:
            continue  # attention of another kind, such as to an encoder
        (place,) = owners
        seen.add(place)
        for role, matrix in roles.items():
            listed = table[place].get(role, [])
            if matrix is None or len(listed) != 1:
                return f"{module}: {role} is no single matrix"
            for norm in ("fro", 2):
                if not torch.isclose(
                    torch.linalg.matrix_norm(matrix, norm),
                    torch.linalg.matrix_norm(listed[0].float(), norm),
                    rtol=1e-4,
                ):
                    return f"{module}: {role} is another matrix"
    if not seen:
        return "its attention cannot be observed"
    places = {class_names[name]: place for name, place in found.items()}
    return _fault_of_mlps(
        model,
        {name: place for name, place in places.items() if (place.stack.rstrip("."), place.layer) in seen},
    )


def types_seen(model: Any, folder: Path) -> set[str]:
    """Types of the parts of a model all of whose layers with roles have been seen at work, from its checkpoint."""
    checkpoint = Checkpoint(folder)
    form = judge(checkpoint)
    if not form.class_name:  # the class refuses the config of a tiny model; names have been right
        return {str(model.config.model_type)}
    modules = [f"{name}." for name in uses(model)]
    unseen, types = set(), set()
    for name, place in places_of(checkpoint, form).items():
        if place.role in ("Q", "QKV"):
            model_type = form.parts[form.part_of(name)].model_type
            types.add(model_type)
            if not any(form.names.get(name, name).startswith(module) for module in modules):
                unseen.add(model_type)
    return types - unseen


def _fault_of_mlps(model: Any, found: dict[str, Place]) -> str:
    """Like ``fault_of`` for M1 and M2."""
    layers: dict[tuple[str, int], dict[str, list[str]]] = {}
    for name, place in found.items():
        if place.role in ("M1", "M2"):
            layers.setdefault((place.stack, place.layer), {}).setdefault(place.role, []).append(name)
    for layer, roles in layers.items():
        if set(roles) != {"M1", "M2"} or len(roles["M2"]) != 1:
            return f"{layer}: M1 or M2 is missing"
        inputs, output = _cut_between(model, roles["M1"], roles["M2"][0])
        behind = matrices_behind(output, model)
        # Some units of M1 are not active on any input.
        if set(behind) != {*roles["M1"], *roles["M2"]} or any(
            rows.float().mean() < 0.3 for rows in behind.values()
        ):
            return f"{layer}: the MLP uses {sorted(behind)}"
        if any(not torch.equal(states, inputs[0]) for states in inputs):
            return f"{layer}: the parts of M1 have different inputs"
    return ""


def _cut_between(model: Any, first: list[str], second: str) -> tuple[list[Tensor], Tensor]:
    """Inputs of the first maps, without gradients, and the output of the second map that follows from them."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs.append(args[0].detach())
        return (inputs[-1],)

    handles = [model.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(cut) for name in first]
    last = model.get_submodule(second.rpartition(".")[0])
    handles.append(last.register_forward_hook(lambda _, args, output: outputs.append(output)))
    run(model)
    for handle in handles:
        handle.remove()
    return inputs, outputs[-1]


def _single(model: nn.Module, behind: dict[str, Tensor]) -> Tensor | None:
    if len(behind) != 1:
        return None
    ((name, rows),) = behind.items()
    return rows_of(model, name, rows)


def _readers(model: Any, calls: list[Attention]) -> dict[int, dict[str, Tensor]]:
    """The matrix that reads the output of each call of attention, where it lies outside of the call's module."""
    inputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach()}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    run(model)
    for handle in handles:
        handle.remove()
    found: dict[int, dict[str, Tensor]] = {}
    for call in calls:
        for name, states in inputs.items():
            mixed = call.mixed
            if mixed is None or states.numel() != mixed.numel():
                continue
            if torch.allclose(states.flatten(), mixed.flatten(), atol=1e-6):
                weight = f"{name}.weight"
                rows = model.get_parameter(weight).shape[1 if is_transposed(model, weight) else 0]
                found.setdefault(id(call), {})[weight] = torch.ones(rows, dtype=torch.bool)
    return found
