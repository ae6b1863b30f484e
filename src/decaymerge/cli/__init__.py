"""The command line: one command for each stage. What a command needs is imported when it runs."""

import gc
import os
import sys

import typer

from decaymerge.cli import checkpoints, results, stages
from decaymerge.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for part in (checkpoints, stages, results):
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
