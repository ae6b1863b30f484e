"""Write a merge of adapters as one adapter, which PEFT loads: the ranks add up, and nothing is lost.

The change of each matrix is Σ_i c_i B_i A_i = [c_1 B_1, c_2 B_2, …] [A_1; A_2; …]. Truncated to a smaller rank, it
is the nearest matrix of that rank.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from decaymerge.atomic import atomic_folder
from decaymerge.checkpoint.adapted import Adapted
from decaymerge.checkpoint.adapter import CONFIG, PREFIX, WEIGHTS
from decaymerge.checkpoint.reader import save_tensors
from decaymerge.errors import UserError, listed
from decaymerge.low_rank import LowRank
from decaymerge.merge_checkpoints import Sources, record
from decaymerge.merge_checkpoints.merge import files_beside, merged_change, refuse_existing, rest_of
from decaymerge.model_files import is_tokenizer
from decaymerge.progress import progress_bar
from decaymerge.workflow.jobs import CheckpointsJob

KEPT = ("task_type", "fan_in_fan_out", "auto_mapping")
"""Settings of the first adapter that the merged one keeps."""


def refuse_models(sources: Sources) -> None:
    """Refuse models that are no adapters, or that have biases, which PEFT cannot load for some modules alone.

    Raises:
        UserError: a model is no adapter, or its adapter has biases.
    """
    for name, model in sources.models.items():
        if not isinstance(model, Adapted):
            raise UserError(f"--as-adapter merges adapters, and {name} is a whole model; leave it out")
        biases = [one for one in model.adapter.replaced if one.endswith(".bias") and not _saved(model, one)]
        if model.biases or biases:
            raise UserError(f"--as-adapter: {name} has biases beside its matrices; leave --as-adapter out")
    adapters = [model for model in sources.models.values() if isinstance(model, Adapted)]
    if len(set().union(*(model.prefixes for model in adapters))) > 1:
        raise UserError(
            f"--as-adapter: the modules of {listed(sources.names)} have names of different classes around one base;"
            " leave --as-adapter out"
        )
    for name, model in sources.models.items():
        if isinstance(model, Adapted) and model.keeps_tie:
            raise UserError(
                f"--as-adapter: {name} changes tied tables together, which PEFT writes in another way; leave"
                " --as-adapter out"
            )


def _saved(model: Adapted, parameter: str) -> bool:
    """Whether a parameter is one of a module that was trained as a whole."""
    modules = model.adapter.settings.modules_to_save or []
    return parameter.rpartition(".")[0].split(".")[-1] in {one.split(".")[-1] for one in modules}


def write(
    sources: Sources,
    job: CheckpointsJob,
    output: Path,
    solved: Mapping[str, Path] | None = None,
    effects: Sequence[str] = (),
    expected: record.Expected | None = None,
) -> str:
    """Write the merged adapter.

    Args:
        sources: Adapters of one base.
        job: The merge method, and what ``merge.json`` records.
        output: Folder to write.
        solved: Files of the changes that were merged before, from inputs, with the factors ``left`` and ``right``.
        effects: Lines about what was measured on inputs.
        expected: The recipe whose bits are expected, or none.

    Returns:
        What the ranks are, and what truncation loses, in one line.

    Raises:
        UserError: ``output`` exists and is not empty or cannot be written, a merged change is not of low rank, or
            an entry is infinite or NaN.
    """
    refuse_existing(output)
    adapters = [model for model in sources.models.values() if isinstance(model, Adapted)]
    names = list(dict.fromkeys(name for model in adapters for name in sorted(model.changed)))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    lost = whole = 0.0
    with progress_bar("merging", len(names), "tensor") as bar:
        for name in names:
            owner = next(model for model in adapters if name in model.changed)
            whole_of = next((model for model in adapters if name in model.replaced), None)
            change, base = _change(sources, job, name, solved or {})
            if whole_of is not None and name not in whole_of.modules:
                tensors[whole_of.replaced[name]] = (base + change).contiguous()
            elif isinstance(change, LowRank) and name in owner.modules:
                module = owner.modules[name]
                needed = sum(one.rank for one in sources.read(name)[0] if isinstance(one, LowRank))
                if change.rank > needed:  # factors that are there twice
                    change = change.truncated(needed)
                kept = change if job.rank is None else change.truncated(job.rank)
                lost, whole = lost + float((change - kept).norm()) ** 2, whole + float(change.norm()) ** 2
                tensors |= _factors(owner, name, kept)
                ranks[module] = kept.rank
            else:
                remedy = (
                    "give --activations own, or leave --as-adapter out"
                    if solved
                    else "leave --as-adapter out"
                )
                raise UserError(f"--as-adapter: the merged change of {name} is not of low rank; {remedy}")
            bar.update()
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError("the merged adapter has infinite or NaN entries; give a smaller --coefficient")
    with atomic_folder(output) as folder:
        save_tensors(tensors, folder / WEIGHTS[0])
        (folder / CONFIG).write_text(json.dumps(_config(adapters, str(job.base), ranks), indent=2) + "\n")
        for path in filter(is_tokenizer, files_beside(adapters[0].folder)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(adapters[0].folder / path, folder / path)
        record.write(folder, sources, job, effects, expected)
    text = f"rank {max(ranks.values(), default=0)} at most"
    return (
        text if job.rank is None else f"{text}; truncation loses {(lost / whole) ** 0.5 if whole else 0:.2%}"
    )


def _change(
    sources: Sources, job: CheckpointsJob, name: str, solved: Mapping[str, Path]
) -> tuple[Any, Tensor]:
    """The merged change of a tensor, and the base's tensor."""
    if name not in solved:
        change, base = merged_change(sources, job.model_copy(update={"method": rest_of(job).method}), name)
        assert base is not None
        return change, base
    _, base = sources.read(name)
    assert base is not None
    factors = load_file(solved[name])
    return (LowRank(factors["left"], factors["right"]) if "left" in factors else factors[name] - base), base


def _factors(owner: Adapted, name: str, change: LowRank) -> dict[str, Tensor]:
    """A and B by the names under which PEFT stores them."""
    module = owner.modules[name]
    embedding = "embedding" in owner.adapter.factors[module]
    product = change.mT if embedding or owner.inputs_first(module) else change
    first, second = ("embedding_A", "embedding_B") if embedding else ("A.weight", "B.weight")
    return {
        f"{PREFIX}{module}.lora_{first}": product.right.contiguous(),
        f"{PREFIX}{module}.lora_{second}": product.left.contiguous(),
    }


def _config(adapters: Sequence[Adapted], base: str, ranks: Mapping[str, int]) -> dict[str, Any]:
    """Settings of an adapter whose factors are used as they are: α is r in every module."""
    largest = max(ranks.values(), default=1)
    others = {re.escape(module): rank for module, rank in ranks.items() if rank != largest}
    first = adapters[0].adapter.config
    name, _, revision = base.removeprefix("path:").removeprefix("hub:").partition("@")
    modules = [one for adapter in adapters for one in adapter.adapter.settings.modules_to_save or []]
    return {
        "peft_type": "LORA",
        **{key: first[key] for key in KEPT if key in first},
        "base_model_name_or_path": name if base.startswith("hub:") else base.removeprefix("path:"),
        "revision": revision if base.startswith("hub:") and revision else None,
        "modules_to_save": list(dict.fromkeys(modules)) or None,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
