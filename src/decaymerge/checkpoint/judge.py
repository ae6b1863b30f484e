"""Whether a checkpoint is complete, as the class that will load it says.

The answer of ``transformers`` depends on config, names and shapes alone. It is kept in the user's cache, as the
import takes seconds.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from pydantic import ValidationError

from decaymerge.atomic import atomic_file
from decaymerge.checkpoint import Checkpoint, model_class
from decaymerge.checkpoint.form import Form
from decaymerge.errors import UserError, listed

LAYER_COUNTS = re.compile(r"(\w+_)?(layers?|experts|depth|blocks)")
"""Keys of a config that say how many layers or experts there are."""
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module"}
"""Prefixes that training in parallel, or compilation, puts before all names."""
SOURCES = [Path(__file__).with_name("form.py"), Path(__file__).with_name("model_class.py")]
"""What the kept answers depend on, beside the version of ``transformers``."""


def judge(checkpoint: Checkpoint, *, partial: bool = False, by_name: bool = False) -> Form:
    """The form of a checkpoint that is complete. Tied copies and buffers that nobody needs are left out of it.

    Args:
        checkpoint: The checkpoint, whose ``tensors`` and ``notes`` change.
        partial: Go on with a checkpoint that is incomplete.
        by_name: Do not ask ``transformers``.

    Raises:
        UserError: the checkpoint is incomplete, and ``partial`` is false.
    """
    form = Form(reason="--by-name was given") if by_name else form_of(checkpoint)
    form = _without_untied(form, checkpoint)
    problems = checkpoint.problems + form.problems
    if problems and not partial:
        raise UserError(
            f"{checkpoint.place} is incomplete: {'; '.join(problems)}. {_remedy(form)}Fetch what is missing,"
            " or give --partial to go on without it"
        )
    if form.tied:
        copies = [f"{name} (tied to {table})" for name, table in form.tied.items()]
        checkpoint.notes.append(f"left out, copies of a tied table: {listed(copies)}")
    if form.unexpected:
        checkpoint.notes.append(
            f"left out, not in {form.class_name}: {listed(form.unexpected)} ({form.unexpected_share:.2%} of what is"
            " stored)"
        )
    for name in [*form.tied, *form.ignored, *form.unexpected]:
        del checkpoint.tensors[name]
    checkpoint.notes += [f"incomplete: {problem}" for problem in problems]
    return form


def _remedy(form: Form) -> str:
    """What else may be the cause of missing tensors, in a sentence, or an empty text."""
    prefixes = {name.split(".")[0] for name in form.unexpected}
    if form.missing and len(prefixes) == 1 and (prefix := prefixes.pop()) in WRAPPERS:
        return f"All names begin with {prefix}., which is a wrapper's: save the model inside it. "
    if form.missing and form.base_is_complete:
        return f"If its base model is meant, name {form.base_is_complete} as architectures in config.json. "
    return ""


def _without_untied(form: Form, checkpoint: Checkpoint) -> Form:
    """The form without the ties of tensors that differ from their table: ``transformers`` does not tie these."""
    stored = {form.names.get(name, name): name for name in checkpoint.tensors}
    equal = {
        copy: table
        for copy, table in form.tied.items()
        if table in stored and checkpoint.read([copy])[0].equal(checkpoint.read([stored[table]])[0])
    }
    if apart := sorted(form.tied.keys() - equal.keys()):
        checkpoint.notes.append(f"not tied, as their numbers differ from the table's: {listed(apart)}")
    return form.model_copy(update={"tied": equal})


def _counts(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, int]]:
    """Numbers of layers and the like in a config and its parts, by key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _counts(value, f"{before}{key}.")
        elif LAYER_COUNTS.fullmatch(key) and isinstance(value, int):
            yield f"{before}{key}", value


def form_of(checkpoint: Checkpoint) -> Form:
    """The form of a checkpoint, from the cache or from ``transformers``.

    Args:
        checkpoint: The checkpoint, of which config, names and shapes are used.

    Raises:
        UserError: the config has far more layers than there are tensors.
    """
    config = checkpoint.config
    if not config:
        return Form(reason="there is no config.json")
    for key, value in _counts(config):
        if value > max(1000, 10 * len(checkpoint.tensors)):
            raise UserError(
                f"{checkpoint.folder / 'config.json'}: {key} is {value}, but only {len(checkpoint.tensors)} tensors"
                " are stored; give the config.json of these weights"
            )
    if "configuration_files" in config:
        raise UserError(
            f"{checkpoint.folder / 'config.json'} names other configs for other versions of transformers in"
            " configuration_files; save the model with this version, or remove the key"
        )
    shapes = {name: [list(info.shape), str(info.dtype)] for name, info in sorted(checkpoint.tensors.items())}
    code = "".join(source.read_text() for source in SOURCES)
    key = json.dumps([version("transformers"), code, config, shapes], sort_keys=True)
    file = user_cache_path("decaymerge") / "forms" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        found = Form.model_validate_json(file.read_bytes())
        if found.class_name or found.reason:
            return found
    except (OSError, ValidationError):
        pass
    form = model_class.ask(config, checkpoint.tensors)
    try:
        with atomic_file(file, ours=True) as temporary:
            temporary.write_text(form.model_dump_json())
    except (UserError, ValueError):
        pass  # a cache that cannot be written costs time, and nothing else
    return form
