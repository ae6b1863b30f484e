"""Commands for people, about results and configurations: they change nothing."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from decaymerge.cli.arguments import CACHE, Cache
from decaymerge.errors import UserError

app = typer.Typer()


@app.command()
def inspect(path: Annotated[Path, typer.Argument(help="A result: .nc, .png, .pdf or .json.")]) -> None:
    """Print where a result comes from: settings, code, versions, seeds, host; and what it holds."""
    from decaymerge import inspection

    print(inspection.inspect(path))


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="Folder of results, with one folder for each experiment.")],
    members: Annotated[int, typer.Option(min=1, help="Members to make again, drawn at random.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Relative deviation that is accepted, as from another machine.")
    ] = 0.0,
    cache: Cache = CACHE,
) -> None:
    """Make members of finished experiments again, from the settings in their files alone, and compare."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workflow's jobs have: sums of more threads round otherwise
    import torch

    from decaymerge import verify as verification

    torch.set_flush_denormal(True)
    drawn = verification.sample(verification.networks(results), members, seed)
    worst = 0.0
    for number, (network, member) in enumerate(drawn, start=1):
        print(f"member {number} of {len(drawn)}: {network.relative_to(results)}, seed {member}", flush=True)
        for finding in verification.verify(results, network, member, cache):
            worst = max(worst, finding.deviation)
            verdict = "identical" if finding.deviation == 0 else f"deviates by {finding.deviation:.2g}"
            print(f"  {finding.path.relative_to(results)}: {verdict}", flush=True)
    if worst > tolerance:
        raise UserError(
            f"the largest deviation, {worst:.2g}, is above --tolerance {tolerance:g}; other versions or another"
            " kind of host round otherwise: 'decaymerge inspect' says what made a file"
        )
    print(f"{len(drawn)} members verified, largest deviation {worst:.2g}")


@app.command()
def check(path: Annotated[Path, typer.Argument(help="Configuration, YAML.")]) -> None:
    """Check a configuration without running anything."""
    from decaymerge import config
    from decaymerge.config.base import load

    config.parse(load(path))
    print(f"{path} is fine")


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from decaymerge.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
