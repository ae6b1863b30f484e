"""The command line in this process."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

import torch

from decaymerge.cli import app
from decaymerge.errors import UserError


def decaymerge(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process; exit code and output are those that ``decaymerge.cli.main`` has."""
    command = ["decaymerge", *map(str, arguments)]
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            app(command[1:])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except (UserError, OSError) as error:
            code = 1
            print(f"error: {error}", file=sys.stderr)
        except MemoryError as error:
            code = 1
            print(f"error: not enough memory: {error}", file=sys.stderr)
        finally:
            torch.set_flush_denormal(False)  # as it was before a command turned it on
    return subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())
