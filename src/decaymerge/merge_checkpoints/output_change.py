"""How much the other models' changes of one matrix alone change a model's outputs on its inputs, to first order.

Let C be what the other models add to a matrix W that acts on inputs h, and g the gradient of an output f with
respect to W h. Adding C changes f by ⟨g, C h⟩, summed over the tokens of an input. One backward pass gives g at
every matrix. Blocks are computed again in it, so that the graph of one block is in memory; the parameters of a
module are read where it is called, and dropped.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import set_checkpoint_early_stop

from decaymerge.low_rank import LowRank, dense
from decaymerge.merge_checkpoints.walk import Batch, Parameters, empty, fill, modules_with_parameters
from decaymerge.merge_checkpoints.with_inputs import as_map, features

MOST_OUTPUTS = 16
"""Number of outputs up to which each is differentiated."""
COMBINATIONS = 4
"""Number of random combinations of more outputs, from which their norm is estimated: each costs a backward pass."""


class _Probe(torch.autograd.Function):
    """The identity on a matrix's outputs; backward, it adds up ⟨g, C h⟩ for each input."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, hidden: Tensor, anchor: Tensor, add: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(hidden)
        ctx.add = add
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (hidden,) = ctx.saved_tensors
        ctx.add(gradient, hidden)
        return gradient, None, gradient.new_zeros(()), None


def output_changes(
    model: Any,
    batch: Batch,
    parameters: Callable[[str], Parameters],
    others: Callable[[str], Tensor | LowRank | None],
    outputs_of: Callable[[Any], Tensor] | None = None,
) -> dict[str, Tensor]:
    """First-order change of the outputs by each matrix, (sample, output), by the name of its module.

    Args:
        model: A model on the meta device.
        batch: Its inputs.
        parameters: Parameters of a module, by its name.
        others: C (out, in) of a module that acts as x ↦ W x, or none.
        outputs_of: What counts as outputs (sample, output) of what the model returns; ``features`` if left out.
    """
    count = len(next(iter(batch.values())))
    anchor = torch.zeros((), requires_grad=True)
    changes: dict[str, list[Tensor]] = {}
    current: dict[str, Tensor] = {}

    def adder(name: str) -> Callable[[Tensor, Tensor], None]:
        def add(gradient: Tensor, hidden: Tensor) -> None:
            matrix = others(name)
            assert matrix is not None
            change = (gradient * dense(hidden @ matrix.mT.to(hidden.dtype))).reshape(count, -1).sum(1)
            current[name] = current[name] + change if name in current else change

        return add

    def watch(name: str) -> list[Any]:
        module = model.get_submodule(name)

        def after(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            empty(module)
            if as_map(module) and output.numel() % count == 0:
                probed: Tensor = _Probe.apply(
                    output, args[0].detach() if not args[0].requires_grad else args[0], anchor, adder(name)
                )
                return probed
            return None

        return [
            module.register_forward_pre_hook(lambda *_: fill(module, parameters(name))),
            module.register_forward_hook(after),
        ]

    handles = [handle for name in modules_with_parameters(model) for handle in watch(name)]
    _recompute_blocks(model)
    try:
        column, columns = 0, 1
        # A new forward pass for each: a graph that is retained keeps all blocks that were computed again.
        while column < columns:
            with (
                torch.enable_grad(),
                set_checkpoint_early_stop(False),
            ):  # or the last module of a block stays filled
                result = model(**batch)
                outputs = _combined(features(result, batch) if outputs_of is None else outputs_of(result))
                torch.autograd.grad(outputs[:, column].sum(), anchor)
            for name, change in current.items():
                changes.setdefault(name, []).append(change)
            current.clear()
            column, columns = column + 1, outputs.shape[1]
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(columns, 1) for name, columns in changes.items()}


def _combined(outputs: Tensor) -> Tensor:
    """The outputs, or random combinations of them whose squares add up to theirs in the mean."""
    if outputs.shape[1] <= MOST_OUTPUTS:
        return outputs
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(outputs.shape[1], COMBINATIONS, generator=generator) / COMBINATIONS**0.5
    return outputs @ mix


def _recompute_blocks(model: Any) -> None:
    """Compute a block again in the backward pass, where the class can; dropout stays off."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        for key, value in vars(module).items():
            if "drop" in key and isinstance(value, float):
                setattr(module, key, 0.0)
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # of this module alone: it decides whether the block is computed again
