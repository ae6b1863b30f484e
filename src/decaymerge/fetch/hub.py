"""Checkpoints from the Hugging Face hub: the files that a folder would be read for, each with its checksum."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from decaymerge import model_files as rule
from decaymerge.config.scan import ScanModel
from decaymerge.errors import UserError, listed, reason
from decaymerge.model_files import read_json, sha256
from decaymerge.progress import progress_bar

SILENCE_SECONDS = 20
"""Time after which a call is given up, unless it has brought ``LEAST_BYTES`` since."""
LEAST_BYTES = 20_000
CHUNK_BYTES = 1 << 14
"""Bytes after which the hub's client writes to the disk, where they are seen. It waits for 10 MB, which take half a
minute on a slow line."""
ATTEMPTS = 2
"""Number of attempts for each call to the hub."""


def from_hub(model: ScanModel, scratch: Path) -> dict[str, str]:
    """Checksums, by name, of the files that are downloaded from the hub into ``scratch/checkpoint``.

    They are those that ``transformers`` would read, and what belongs to the model beside them. They are verified
    against the hub's checksums.

    Raises:
        UserError: the hub does not answer, the repository has no weights, or a checksum differs.
    """
    # Plain HTTP writes into the folder that is watched for silence. The variable must be set before the import.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi, constants

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES

    source = model.sources[0]
    name, _, revision = source.removeprefix("hub:").partition("@")
    ask = partial(HfApi().model_info, name, revision=revision or None, files_metadata=True)
    info = _hub_answer(ask, source, "the list of files", scratch)
    files = {file.rfilename: file for file in info.siblings}
    target = scratch / "checkpoint"
    get = partial(_get, source, name, info.sha, files, target, scratch)
    digests: dict[str, str] = {}
    beside = [path for path in files if rule.belongs(path) or rule.has_weights_of_its_own(path)]
    top = {path for path in files if "/" not in path}
    digests |= get(beside)
    config = read_json(target / "config.json")
    choice = rule.choose(top | {str(config.get("transformers_weights"))} & files.keys(), config)
    if choice is None or not choice.files:
        raise UserError(
            f"{source} has no weights that transformers reads, only {listed(sorted(files), 6)}; give a repository"
            " with weights of transformers"
        )
    digests |= get(choice.files)
    if choice.files[0].endswith(".index.json"):
        weight_map = read_json(target / choice.files[0]).get("weight_map")
        shards = {str(file) for file in weight_map.values()} if isinstance(weight_map, dict) else set()
        digests |= get(sorted(shards & files.keys()))
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return digests


def _get(
    source: str,
    name: str,
    commit: str,
    files: Mapping[str, Any],
    target: Path,
    scratch: Path,
    names: Sequence[str],
) -> dict[str, str]:
    """Checksums of files that are downloaded from the hub into ``target``, by name.

    Raises:
        UserError: the hub does not answer, or a checksum differs from the hub's.
    """
    from huggingface_hub import hf_hub_download

    digests = {}
    bar = progress_bar(name, len(names), "file")
    for file in names:
        _hub_answer(
            partial(hf_hub_download, name, file, revision=commit, local_dir=target), source, file, scratch
        )
        expected = files[file].lfs.sha256 if files[file].lfs else None
        digests[file] = sha256(target / file)
        bar.update()
        if expected and digests[file] != expected:
            raise UserError(
                f"{source}: {file} has sha256 {digests[file]}, but the hub says {expected}; fetch it again"
            )
    return digests


def _hub_answer(call: Callable[[], Any], source: str, content: str, scratch: Path) -> Any:
    """Result of a call to the hub. A call that fails is tried twice, and given up when no bytes arrive any more.

    The hub's client itself waits and retries for minutes. It therefore runs in a thread that ends with the process,
    while this thread watches whether bytes arrive in ``scratch``.

    Args:
        call: The call, without arguments.
        source: Source of the checkpoint, for the message.
        content: What the call asks for, for the message.
        scratch: Folder into which the call downloads.

    Raises:
        UserError: the call failed; the message gives the reason, and the folder to use instead.
    """
    from huggingface_hub.errors import HfHubHTTPError

    text = ""
    for _ in range(ATTEMPTS):
        outcome: dict[str, Any] = {}
        thread = threading.Thread(target=_run, args=(call, outcome), daemon=True)
        with _last_warning(thread) as warnings:
            thread.start()
            size, since = 0, time.monotonic()
            while thread.is_alive() and time.monotonic() - since < SILENCE_SECONDS:
                thread.join(0.2)
                now = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
                if now >= size + LEAST_BYTES:
                    size, since = now, time.monotonic()
        if "result" in outcome:
            return outcome["result"]
        slow = TimeoutError(f"less than {LEAST_BYTES // 1000} kB in {SILENCE_SECONDS} s{warnings.text}")
        error = outcome.get("error", slow)
        text = reason(error)
        if isinstance(error, HfHubHTTPError | TimeoutError):
            break  # the hub has refused, or is silent
    raise UserError(
        f"{source}: cannot get {content} from the hub ({text}). Put config.json and the weights into a folder and"
        " give it as source: path:FOLDER"
    )


class _LastWarning(logging.Handler):
    """Keeps the last warning of the hub's client in a thread, which says why it waits and tries again."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.text = thread, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.thread != self.thread.ident:  # a call that was given up goes on
            return
        self.text = f"; {' '.join(record.getMessage().split())}"


@contextmanager
def _last_warning(thread: threading.Thread) -> Iterator[_LastWarning]:
    handler, logger = _LastWarning(thread), logging.getLogger("huggingface_hub")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def _run(call: Callable[[], Any], outcome: dict[str, Any]) -> None:
    try:
        outcome["result"] = call()
    except Exception as error:  # any exception of the client's HTTP library; it becomes a UserError
        outcome["error"] = error
