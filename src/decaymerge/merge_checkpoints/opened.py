"""Open the checkpoints of a merge: models, and adapters together with their base."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from decaymerge.checkpoint import Checkpoint
from decaymerge.checkpoint.adapted import Adapted, broken_tie
from decaymerge.checkpoint.adapter import Adapter, is_adapter
from decaymerge.checkpoint.form import Form
from decaymerge.checkpoint.judge import judge
from decaymerge.config.merging import named_coefficients
from decaymerge.errors import UserError
from decaymerge.merge_checkpoints import BASE, Sources
from decaymerge.merge_methods import EVERYTHING
from decaymerge.workflow.jobs import CheckpointsJob


def open_sources(
    job: CheckpointsJob, folder_of: Callable[[str], Path]
) -> tuple[CheckpointsJob, Sources, list[str]]:
    """The checkpoints of a merge.

    Args:
        job: Its models, its base if it is named, and how they are judged.
        folder_of: Folder of a model as typed.

    Returns:
        The job with the base that adapters name, the checkpoints, and lines about them.

    Raises:
        UserError: a checkpoint cannot be read, they do not fit together, or adapters have no common base.
    """
    names = short_names(job.models)
    folders = {name: folder_of(text) for name, text in zip(names, job.models, strict=True)}
    adapters = {name: Adapter(folder) for name, folder in folders.items() if is_adapter(folder)}
    given = job.base is not None
    if job.base is None and adapters:
        job = job.model_copy(update={"base": base_of(adapters)})
    base = None if job.base is None else Checkpoint(_folder_of_base(job.base, folder_of, given=given))
    models = {name: Checkpoint(folder) for name, folder in folders.items() if name not in adapters}
    opened = models if base is None else {**models, BASE: base}
    forms = {name: judge(one, partial=job.partial, by_name=job.by_name) for name, one in opened.items()}
    lines = []
    if base is not None and adapters:
        broken: dict[str, str] = {}
        for adapter in adapters.values():
            broken |= broken_tie(base, forms[BASE], adapter)
        for copy, table in broken.items():
            lines.append(f"{copy} is no longer tied to {table}: an adapter changes one of them alone")
        for name, checkpoint in opened.items():
            forms[name] = _untied(checkpoint, forms[name], broken, partial=job.partial)
        for name, adapter in adapters.items():
            named = adapter.settings.base
            if job.base != named and Path(named).name != Path(str(job.base)).name:
                lines.append(f"{name}: trained on {named or 'a base that it does not name'}")
            models[name] = opened[name] = Adapted(base, forms[BASE], adapter)
            forms[name] = forms[BASE]
    sources = Sources({name: models[name] for name in names}, base, forms)
    for name, checkpoint in opened.items():
        about = [f"LoRA of {len(checkpoint.changed)} tensors"] if name in adapters else forms[name].lines()
        lines += [f"{name}: {line}" for line in [*about, *checkpoint.notes]]
    known = {*names, *sources.roles.values(), EVERYTHING}
    if unknown := [name for name in named_coefficients(job.method) if name not in known]:
        there = ", ".join(sorted(set(sources.roles.values())))
        raise UserError(f"--coefficient {unknown[0]}: no tensor here has this role; there are {there}")
    return job, sources, lines


def with_base(adapter: Adapter, folder: Path, *, partial: bool = False, by_name: bool = False) -> Adapted:
    """An adapter with its base.

    Args:
        adapter: The adapter.
        folder: Folder of the base.
        partial: Go on with a base that is incomplete.
        by_name: Do not ask ``transformers`` for its class.

    Raises:
        UserError: the base cannot be read, is incomplete, or does not fit.
    """
    base = Checkpoint(folder)
    form = judge(base, partial=partial, by_name=by_name)
    form = _untied(base, form, broken_tie(base, form, adapter), partial=partial)
    return Adapted(base, form, adapter)


def _untied(checkpoint: Checkpoint, form: Form, broken: Mapping[str, str], *, partial: bool) -> Form:
    """The form of a checkpoint, once both sides of a tie have numbers of their own."""
    for pair in broken.items():
        stored = {form.names.get(tensor, tensor): tensor for tensor in checkpoint.tensors}
        there, missing = (pair[1], pair[0]) if pair[1] in stored else pair
        checkpoint.untie(missing, stored[there])
    return judge(checkpoint, partial=partial) if broken else form


def _folder_of_base(base: str, folder_of: Callable[[str], Path], *, given: bool) -> Path:
    try:
        folder = folder_of(base)
    except UserError as error:
        hint = "" if given else " (the adapters name this base; another place of it can be given as --base)"
        raise UserError(f"{error}{hint}") from None
    if is_adapter(folder):
        raise UserError(f"--base {base} is an adapter itself; give the model that it was trained on")
    return folder


def short_names(models: Sequence[str]) -> list[str]:
    """Last component of each model as typed, or all of it where that is not unique."""
    last = [text.rstrip("/").split("/")[-1] for text in models]
    return last if len(set(last)) == len(last) else list(models)


def base_of(adapters: dict[str, Adapter]) -> str:
    """The base that all adapters name: a folder, or a model of the hub.

    Raises:
        UserError: they name different ones or none.
    """
    bases = {name: adapter.settings.base for name, adapter in adapters.items()}
    if len(set(bases.values())) > 1 or "" in bases.values():
        texts = [f"{base or 'none'} by {name}" for name, base in bases.items()]
        raise UserError(
            f"the adapters name different bases ({', '.join(texts)}); give the right one as --base"
        )
    base = next(iter(bases.values()))
    if len(base) > 500 or (not Path(base).exists() and (Path(base).is_absolute() or base.count("/") != 1)):
        raise UserError(
            f"the adapters name {base[:100]} as their base, and there is no such folder; give it as --base"
        )
    return base if Path(base).exists() else f"hub:{base}"
