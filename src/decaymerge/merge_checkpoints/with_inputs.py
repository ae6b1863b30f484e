"""Merge with inputs of the tasks at hand: each matrix from what it is given, and the change of the outputs.

Own and merged networks walk through their layers together (see ``walk``). Where a matrix acts as x ↦ W x, its merge
method gets the inputs of that matrix: in each own network, and in the merged network so far. Everything else
(biases, LayerNorm, embeddings, tensors that are tied or used more than once) is summed as changes of the base, or
averaged where there is none.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from decaymerge.checkpoint.form import Form
from decaymerge.checkpoint.model_class import build
from decaymerge.checkpoint.reader import save_tensors
from decaymerge.config.merging import MergeSettings, asks_for_inputs
from decaymerge.errors import UserError
from decaymerge.low_rank import LowRank
from decaymerge.merge import apply
from decaymerge.merge_checkpoints import Sources
from decaymerge.merge_checkpoints.merge import merged_tensor, rest_of
from decaymerge.merge_checkpoints.walk import Batch, Parameters, walk
from decaymerge.merge_methods import sum_weights
from decaymerge.progress import progress_bar
from decaymerge.workflow.jobs import CheckpointsJob


class Names:
    """Names of the tensors of a checkpoint for the parameters of its class.

    Args:
        model: A model of the class.
        form: What the class makes of the checkpoint.
        stored: Names of the stored tensors.

    Raises:
        UserError: the class is unknown, or converts tensors: then no stored one is a parameter by itself.
    """

    def __init__(self, model: Any, form: Form, stored: list[str]) -> None:
        self.tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        self.stored: dict[str, str] = {}
        for name in stored:
            self.stored.setdefault(form.names.get(name, name), name)
        missing = [name for name, _ in model.named_parameters() if self.of(name) is None]
        if missing or len(self.stored) < len(stored) - len(form.unexpected):
            example = missing[0] if missing else "experts"
            raise UserError(
                f"{form.class_name} joins stored tensors into others (such as {example}): inputs cannot be followed"
                " through it; merge without --inputs"
            )

    def of(self, parameter: str) -> str | None:
        """The stored tensor of a parameter, or none."""
        return self.stored.get(parameter, self.stored.get(self.tied.get(parameter, "")))

    def is_tied(self, parameter: str) -> bool:
        """Whether a parameter is the same tensor as another one."""
        return parameter in self.tied or parameter in self.tied.values()


class Change(NamedTuple):
    """What the others do to one matrix of one model, on that model's inputs."""

    matrix: str
    model: str
    action: float
    """‖C H‖_F / ‖W H‖_F, with C the sum of the other models' changes, or weights without a base."""


@dataclass
class Followed:
    """What own and merged networks give on the inputs."""

    own: dict[str, Tensor] = field(default_factory=dict)
    """Outputs (sample, …) of each model on its inputs."""
    merged: dict[str, Tensor] = field(default_factory=dict)
    """Outputs of the merged network on the inputs of each model."""
    changes: list[Change] = field(default_factory=list)
    solved: list[str] = field(default_factory=list)
    """Matrices that were merged from their inputs."""


def as_map(module: nn.Module) -> str:
    """``out, in`` for a module whose weight acts as x ↦ W x, ``in, out`` if it is stored transposed, else empty."""
    if isinstance(module, nn.Linear):
        return "out, in"
    return "in, out" if type(module).__name__ == "Conv1D" else ""


def applied_rows(hidden: Tensor, batch: Batch) -> Tensor:
    """Inputs of a matrix as rows (sample, in), without those of padding."""
    mask = batch.get("attention_mask")
    if mask is not None and hidden.ndim == 3 and hidden.shape[:2] == mask.shape:
        return hidden[mask.bool()]
    return hidden.flatten(0, -2)


class Follower:
    """Own and merged networks on the inputs of each task.

    Args:
        sources: The checkpoints.
        batches: Inputs of each model.
    """

    def __init__(self, sources: Sources, batches: Mapping[str, Batch]) -> None:
        self.sources, self.batches = sources, batches
        self.models = [self.fresh_model() for _ in range(2 * len(batches))]
        form = sources.forms[sources.names[0]]
        self.names = Names(self.models[0], form, list(sources.first.tensors))

    def own_parameters(self, model: str, module: str) -> Parameters:
        """Parameters of one module of a model, in the type in which it computes."""
        return {key: self._finite(model, self.stored(module, key)) for key in self._keys(module)}

    def others(self, model: str, module: str) -> Tensor | LowRank | None:
        """C (out, in), the sum of the other models' summands, for a module that acts as x ↦ W x; else none."""
        layout = as_map(self.models[0].get_submodule(module))
        if not layout:
            return None
        summands, _ = self.sources.read(self.stored(module, "weight"))
        mine = self.sources.names.index(model)
        total = sum_weights([summand for i, summand in enumerate(summands) if i != mine])
        return total if layout == "out, in" else total.mT

    def _keys(self, module: str) -> list[str]:
        return [key for key, _ in self.models[0].get_submodule(module).named_parameters(recurse=False)]

    def stored(self, module: str, key: str) -> str:
        """Name of the stored tensor of a parameter of a module."""
        stored = self.names.of(f"{module}.{key}" if module else key)
        assert stored is not None
        return stored

    def _finite(self, model: str, tensor: str) -> Tensor:
        stored = self.sources.models[model].read([tensor])[0].float()
        if not stored.isfinite().all():
            raise UserError(f"{tensor} of {model} has an infinite or NaN entry; the checkpoint is damaged")
        return stored

    def fresh_model(self) -> Any:
        """A model on the meta device, which a caller may change; it keeps no keys and values of its layers."""
        model = build(self.sources.first.config)
        for module in model.modules():
            if getattr(getattr(module, "config", None), "use_cache", None):
                module.config.use_cache = False
        return model

    def calls(self) -> Counter[str]:
        """How often a forward pass calls each module, in the order of the first calls."""
        model, batch = next(iter(self.batches.items()))
        counts: Counter[str] = Counter()

        def visit(module: str, _: list[Tensor | None]) -> list[Parameters]:
            counts.update([module])
            return [self.own_parameters(model, module)]

        walk(self.models[:1], [{key: value[:1] for key, value in batch.items()}], visit)
        return counts

    def follow(self, job: CheckpointsJob, scratch: Path) -> Followed:
        """Walk through all layers, merging each on the way.

        Args:
            job: The merge method.
            scratch: Folder for the matrices that are merged from their inputs, each in a file of its own.

        Raises:
            UserError: the forward pass fails, or activations are infinite or NaN.
        """
        return self.follow_all([job], scratch)[0]

    def follow_all(self, jobs: Sequence[CheckpointsJob], scratch: Path) -> list[Followed]:
        """Like ``follow``, for several merges at once; at most one of them asks for inputs."""
        names, count = list(self.batches), len(self.batches)
        calls = self.calls()
        results = [Followed() for _ in jobs]

        def visit(module: str, inputs: list[Tensor | None]) -> list[Parameters]:
            own = [self.own_parameters(name, module) for name in names]
            merged: list[Parameters] = [{} for _ in jobs]
            layout = as_map(self.models[0].get_submodule(module))
            for key in own[0]:
                parameter = f"{module}.{key}" if module else key
                stored = self.stored(module, key)
                once = calls[module] == 1 and not self.names.is_tied(parameter)
                is_map = key == "weight" and layout != "" and once and None not in inputs
                rows = self._rows(stored, inputs) if is_map else []
                if is_map:
                    self._record(results[0], stored, layout, [weights[key] for weights in own], rows)
                for i, job in enumerate(jobs):
                    if is_map and asks_for_inputs([job.method]):
                        given = [*rows[:count], *rows[(i + 1) * count : (i + 2) * count]]
                        matrix, factors = self._solve(job.method, stored, layout, given)
                        file = scratch / f"{len(results[i].solved)}.safetensors"
                        save_tensors({stored: matrix, **factors}, file)
                        results[i].solved.append(stored)
                    else:
                        matrix = merged_tensor(self.sources, rest_of(job), stored)
                    merged[i][key] = matrix.float()
            bar.update()
            return [*own, *(parameters for parameters in merged for _ in names)]

        batches = [*self.batches.values()] * (1 + len(jobs))
        models = [*self.models, *(self.fresh_model() for _ in batches[len(self.models) :])]
        with progress_bar("following the inputs", sum(calls.values()), "module") as bar:
            outputs = walk(models, batches, visit)
        values = [features(output, batch) for output, batch in zip(outputs, batches, strict=True)]
        for i, result in enumerate(results, start=1):
            result.own = dict(zip(names, values, strict=False))
            result.merged = dict(zip(names, values[i * count :], strict=False))
        return results

    def _rows(self, stored: str, inputs: list[Tensor | None]) -> list[Tensor]:
        """Inputs of a matrix in each run, as rows."""
        rows = []
        batches = [*self.batches.values()] * (len(inputs) // len(self.batches))
        for run, (hidden, batch) in enumerate(zip(inputs, batches, strict=True)):
            assert hidden is not None
            kind = "own" if run < len(self.batches) else "merged"
            if not hidden.isfinite().all():
                owner = list(self.batches)[run % len(self.batches)]
                raise UserError(
                    f"the activations that {stored} gets in the {kind} network are infinite or NaN on the inputs of"
                    f" {owner}; store the models in a wider type, or leave that input out"
                )
            rows.append(applied_rows(hidden, batch))
        return rows

    def _record(
        self, result: Followed, stored: str, layout: str, own: list[Tensor], rows: list[Tensor]
    ) -> None:
        summands, _ = self.sources.read(stored)
        for i, (name, weight, h) in enumerate(zip(self.batches, own, rows, strict=False)):
            others = sum_weights([summand for j, summand in enumerate(summands) if j != i])
            matrix, other = (w if layout == "out, in" else w.mT for w in (weight, others))
            norm = float((h @ matrix.mT).norm())
            action = float((h @ other.mT.to(h.dtype)).norm()) / norm if norm else math.nan
            result.changes.append(Change(stored, name, action))

    def _solve(
        self, method: MergeSettings, stored: str, layout: str, rows: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The merged matrix in the shape and type of the first model's, and factors of its change.

        Factors ``left`` and ``right`` are there where the change is of low rank.
        """
        turned: Callable[[Any], Any] = (lambda w: w) if layout == "out, in" else (lambda w: w.mT)
        summands, base = self.sources.read(stored)
        count, rows = len(self.batches), [h.to(summands[0].dtype) for h in rows]
        available: dict[str, Any] = {"own_inputs": rows[:count], "merged_inputs": rows[count:], "layer": 2}
        if base is not None:
            available["base"] = turned(base)
        change = turned(apply(method, [turned(summand) for summand in summands], **available))
        weight = change if base is None else base + change
        factors = {"left": change.left, "right": change.right} if isinstance(change, LowRank) else {}
        matrix = weight.to(self.sources.first.tensors[stored].dtype).contiguous()
        return matrix, {name: factor.contiguous() for name, factor in factors.items()}


def solved_tensors(scratch: Path) -> dict[str, Path]:
    """Files of the matrices that ``follow`` has written, by the name of the tensor."""
    files = sorted(scratch.glob("*.safetensors"))
    return {name: file for file in files for name in load_file(file) if name not in ("left", "right")}


def features(output: Any, batch: Batch) -> Tensor:
    """What a model says of each input, (sample, feature): its logits, else the mean of its last hidden state.

    A language model says it by its logits at the last token that is not padding.
    """
    mask = batch.get("attention_mask")
    values: Tensor | None = getattr(output, "logits", None)
    if values is not None and values.ndim == 3:
        last = values.shape[1] - 1 if mask is None else mask.cumsum(1).argmax(1)
        return values[torch.arange(len(values)), last]
    if values is None:
        hidden: Tensor = output.last_hidden_state
        if mask is None or hidden.shape[:2] != mask.shape:
            return hidden.flatten(1, -2).mean(1) if hidden.ndim > 2 else hidden
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)
    return values.flatten(1)
