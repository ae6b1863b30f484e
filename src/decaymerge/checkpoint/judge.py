"""Whether a checkpoint is complete, as the class that will load it says.

The answer of ``transformers`` depends on config, names and shapes alone. It is kept in the user's cache, as the
import takes seconds.
"""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import ValidationError

from decaymerge.atomic import atomic_file
from decaymerge.checkpoint import Checkpoint, model_class
from decaymerge.checkpoint.form import Form
from decaymerge.errors import UserError, listed

LAYER_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers?|experts)|depth")
"""Keys of a config that say how many layers or experts there are."""
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
    problems = checkpoint.problems + form.problems
    if problems and not partial:
        raise UserError(
            f"{checkpoint.place} is incomplete: {'; '.join(problems)}. Fetch what is missing, or give --partial to"
            " go on without it"
        )
    if form.tied:
        copies = [f"{name} (tied to {table})" for name, table in form.tied.items()]
        checkpoint.notes.append(f"left out, copies of a tied table: {listed(copies)}")
    for name in [*form.tied, *form.ignored]:
        del checkpoint.tensors[name]
    checkpoint.notes += [f"incomplete: {problem}" for problem in problems]
    return form


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
    for key, value in config.items():
        if (
            LAYER_COUNTS.fullmatch(key)
            and isinstance(value, int)
            and value > max(1000, 10 * len(checkpoint.tensors))
        ):
            raise UserError(
                f"{checkpoint.folder / 'config.json'}: {key} is {value}, but only {len(checkpoint.tensors)} tensors"
                " are stored; give the config.json of these weights"
            )
    shapes = {name: [list(info.shape), str(info.dtype)] for name, info in sorted(checkpoint.tensors.items())}
    code = "".join(source.read_text() for source in SOURCES)
    key = json.dumps([version("transformers"), code, config, shapes], sort_keys=True)
    file = user_cache_path("decaymerge") / "forms" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return Form.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        pass
    form = model_class.ask(config, checkpoint.tensors)
    try:
        with atomic_file(file, ours=True) as temporary:
            temporary.write_text(form.model_dump_json())
    except UserError:
        pass  # a cache that cannot be written costs time, and nothing else
    return form
