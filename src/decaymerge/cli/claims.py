"""Commands about claims, each one job of the workflow: check them, gather them, and write their page."""

from pathlib import Path
from typing import Annotated

import typer

from decaymerge.cli.arguments import JobSettings, Output, Results
from decaymerge.errors import UserError

app = typer.Typer()

Traces = Annotated[
    list[Path] | None,
    typer.Option(help="Both sides of each claim along training, NetCDF; once for each experiment."),
]
Verdicts = Annotated[
    list[Path], typer.Argument(help="Verdicts on the claims of experiments and scans, JSON.")
]


@app.command()
def check_claims(
    results: Results,
    output: Output,
    settings: JobSettings,
    traces_output: Annotated[
        Path, typer.Option("--traces", help="NetCDF file for both sides of each claim along training.")
    ],
) -> None:
    """Check the claims about the networks of one experiment."""
    from decaymerge import claims, store
    from decaymerge.workflow.jobs import ClaimsJob

    job = ClaimsJob.parse(settings)
    verdicts, sides = claims.check_experiment(job, results)
    store.write(sides, traces_output, job)
    claims.write(verdicts, output)
    print(claims.table(verdicts))


@app.command()
def check_scan(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    scan: Annotated[Path, typer.Argument(help="Scan of the model.")],
    output: Output,
) -> None:
    """Check the claims about one scanned transformer."""
    from decaymerge import claims, store

    verdicts = claims.check_scan(name, store.read(scan, "frobenius_norm", "stable_rank", "rows", "columns"))
    claims.write(verdicts, output)
    print(claims.table(verdicts))


@app.command()
def gather_claims(output: Output, verdicts: Verdicts, traces: Traces = None) -> None:
    """Gather verdicts, add those that several experiments decide together, and print them all."""
    from decaymerge import claims, store

    joint_verdicts = claims.judge_together([store.read(path, "claim") for path in traces or []])
    all_verdicts = [verdict for path in verdicts for verdict in claims.read(path)] + joint_verdicts
    claims.write(all_verdicts, output)
    print(claims.table(all_verdicts))


@app.command()
def claims_page(
    verdicts: Annotated[Path, typer.Argument(help="Verdicts on all claims, JSON.")],
    output: Annotated[Path, typer.Argument(help="Page to write; pictures go to figures/claims next to it.")],
    settings: JobSettings,
    traces: Traces = None,
    threads: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
) -> None:
    """Write the page of all claims, and draw a picture of each."""
    from decaymerge import claims, store
    from decaymerge.figures.claims_page import write_claims_page
    from decaymerge.workflow.jobs import FigureJob

    job = FigureJob.parse(settings)
    if len(job.names) != len(traces or []):
        raise UserError(
            f"{len(traces or [])} traces were given for {len(job.names)} experiments; give --traces once for each"
        )
    sides = {name: store.read(path, "claim") for name, path in zip(job.names, traces or [], strict=True)}
    store.refuse_others(job.made_from, traces or [])
    write_claims_page(job, claims.read(verdicts), sides, output, threads)
