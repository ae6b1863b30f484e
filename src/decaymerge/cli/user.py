"""Commands for people, about results and configurations. They change no file; `new` makes some."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from decaymerge.cli.arguments import CACHE, Cache
from decaymerge.errors import UserError

app = typer.Typer()


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="A result: .nc, .csv, .png, .pdf or .json.")]) -> None:
    """Print the origin of a result (settings, code, versions, seeds, host), and its content."""
    from decaymerge import inspection

    print(inspection.inspect(path))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="Folder of results, with one folder for each experiment.")],
    members: Annotated[int, typer.Option(min=1, help="Number of members to compute again.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the random choice of members.")] = 0,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Accepted relative deviation; other machines round differently."),
    ] = 0.0,
    cache: Cache = CACHE,
) -> None:
    """Compute random members of finished experiments again, from the settings in their files, and compare.

    A member is the network of one seed.
    """
    # The workflow's jobs have one thread: with more, sums are rounded differently.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from decaymerge import verify as verification

    torch.set_flush_denormal(True)
    sample = verification.sample(verification.networks(results), members, seed)
    largest = 0.0
    for number, (network, member) in enumerate(sample, start=1):
        print(f"member {number} of {len(sample)}: {network.relative_to(results)}, seed {member}", flush=True)
        for finding in verification.verify(results, network, member, cache):
            largest = max(largest, finding.deviation)
            verdict = "identical" if finding.deviation == 0 else f"deviates by {finding.deviation:.2g}"
            print(f"  {finding.path.relative_to(results)}: {verdict}", flush=True)
    if largest > tolerance:
        raise UserError(
            f"the largest deviation, {largest:.2g}, is above --tolerance {tolerance:g}; other versions or another"
            " kind of host round differently: 'decaymerge inspect' prints the versions and the host of a file"
        )
    print(f"{len(sample)} members verified, largest deviation {largest:.2g}")


@app.command()
def check(path: Annotated[Path, typer.Argument(help="Configuration, YAML.")]) -> None:
    """Check a configuration without running anything; print one line for each wrong setting."""
    from decaymerge import config
    from decaymerge.config import paths
    from decaymerge.config.base import load

    config.parse(paths.resolved(load(path), [path]))
    print(f"{path} is fine")


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration, which editors use."""
    from decaymerge.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
def new(folder: Annotated[Path, typer.Argument(help="Folder for the workflow.")]) -> None:
    """Write a Snakefile, a configuration and profiles into a folder, in which Snakemake then runs."""
    from decaymerge.workflow import pipeline

    for path in pipeline.new(folder):
        print(path)
    print(f"Now: cd {shlex.quote(str(folder))} && snakemake")
