"""The command line: one command for each stage. A command imports its modules when it runs, to start fast."""

import gc
import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, ClassVar, NoReturn, TextIO

import typer

from decaymerge import __version__
from decaymerge.cli import checkpoints, claims, merge_checkpoints, stages, user
from decaymerge.cli.arguments import Command
from decaymerge.errors import UserError
from decaymerge.provenance import provenance

HELP = {"help_option_names": ["-h", "--help"]}
EXTRAS = dict.fromkeys(("jinja2", "latex2mathml", "matplotlib", "plotly", "seaborn"), "figures")
"""Packages that not every installation has, with the extra that brings them."""


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"decaymerge {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, merge and evaluate networks, check claims, scan transformers: one command for each stage."""
    # Git is asked while the process is small: until a child runs its own program, it counts as large as its parent.
    provenance()


app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, callback=_options, context_settings=HELP
)
STAGES = "Stages, which the workflow calls"
PANELS = (
    (checkpoints, "Checkpoints"),
    (merge_checkpoints, "Checkpoints"),
    (user, "Results and configurations"),
    (stages, STAGES),
    (claims, STAGES),
)
for part, panel in PANELS:
    for command in part.app.registered_commands:
        command.cls, command.rich_help_panel = Command, panel
    app.add_typer(part.app)


class _Escaping:
    """Standard output in which names out of files cannot move the cursor or clear the screen."""

    escapes: ClassVar = {code: repr(chr(code))[1:-1] for code in range(0xA0) if not chr(code).isprintable()}
    escapes |= dict.fromkeys((*range(8234, 8239), *range(8294, 8298)))  # directions of writing
    del escapes[ord("\n")], escapes[ord("\t")]

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text without control characters."""
        return self.stream.write(text.translate(self.escapes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that temporaries are removed."""
    raise SystemExit(128 + number)


def _call() -> int | str:
    """Run the command, and give its exit code, or a line for an error that the user can correct."""
    try:
        try:
            app()
        except SystemExit as end:
            if end.code:
                return end.code
        if sys.stdout is not None:
            with suppress(BrokenPipeError):  # all is done, and who read the output has enough of it
                sys.stdout.flush()  # here, where a full disk is an error
        return 0
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except UserError as error:
        return f"error: {error}"
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return f"error: {error.name} is not installed; say: pip install 'decaymerge[{EXTRAS[error.name]}]'"
    except OSError as error:
        return f"error: {UserError(str(error))}"
    except MemoryError as error:
        return f"error: {UserError(f'not enough memory: {error}')}"


def main() -> None:
    """Run the command line. An error that the user can correct is printed as one line, without a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # with nohup, it is to be ignored
            signal.signal(number, _stop)
    # A notebook's backend, or the user's style, would draw other pictures, or none.
    os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    if sys.stdout is not None:
        sys.stdout = _Escaping(sys.stdout)
    for stream in filter(None, (sys.__stdout__, sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # λ and ‖ on a terminal that has neither
    gc.set_threshold(200_000)  # imports leave no garbage, and searching for it takes a sixth of the start-up
    end = _call()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):
            if isinstance(end, str) and stream is sys.stderr:
                print(end, file=stream)
            stream.flush()
    # All files are closed and in place. The interpreter's own end would take another third of a second to unload
    # PyTorch, and would write once more to an output that has failed.
    os._exit(1 if isinstance(end, str) else end)
