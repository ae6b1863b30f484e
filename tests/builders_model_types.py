"""What the forward pass of a model does with each matrix, against the roles that a scan gives to them."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builders_tiny_models import run
from decaymerge.architectures import Place
from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.judge import judge
from decaymerge.scan import matrices_by_role
from decaymerge.scan.plan import groups_of, places_of


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
