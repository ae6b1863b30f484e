"""The command line: one command for each stage. A command imports what it needs when it runs."""

import gc
import os
import sys
from typing import Annotated

import typer

from decaymerge import __version__
from decaymerge.cli import checkpoints, claims, stages, user
from decaymerge.errors import UserError


def _print_version(asked: bool) -> None:
    if asked:
        print(f"decaymerge {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, merge, evaluate, check claims, scan transformers: one command for each stage of the workflow."""


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, callback=_options
)
for part in (stages, claims, checkpoints, user):
    app.add_typer(part.app)


def main() -> None:
    """Entry point: an error that the user can mend is printed in its own words, without a traceback."""
    gc.set_threshold(200_000)  # what is imported has no garbage: looking for it takes a sixth of the start-up
    try:
        app()
    except SystemExit as end:
        if end.code:
            raise
        # All files are closed and in place. The interpreter would take PyTorch apart for another third of a second.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except MemoryError as error:
        sys.exit(f"error: not enough memory: {error}")
