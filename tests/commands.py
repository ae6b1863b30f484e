"""Commands without the time of their starts: the package's in this process, Snakemake's in forks of another one."""

import atexit
import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

IMPORTED = (
    "snakemake.cli",
    "snakemake.assets",
    "snakemake.profiles",
    "snakemake.report.html_reporter",
    "snakemake.storage",
    "snakemake_executor_plugin_cluster_generic",
    "yte",
    "decaymerge.config",
    "decaymerge.fetch.model",
    "decaymerge.workflow.estimates",
    "decaymerge.workflow.labels",
    "decaymerge.workflow.preflight",
)
"""Modules that every start of Snakemake on this workflow imports."""


def decaymerge(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the package in this process, as its entry point does."""
    import torch

    from decaymerge import cli

    command = ["decaymerge", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    code: object = 0
    thresholds = gc.get_threshold()
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ),
        # this process goes on
        mock.patch.object(cli, "os", SimpleNamespace(_exit=sys.exit, environ=os.environ, devnull=os.devnull)),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            gc.set_threshold(*thresholds)
            torch.set_flush_denormal(False)
    if isinstance(code, str):  # the interpreter prints it and ends with 1
        stderr.write(f"{code}\n")
        code = 1
    return subprocess.CompletedProcess(command, int(str(code or 0)), stdout.getvalue(), stderr.getvalue())


def command_names() -> list[str]:
    """Every command of the package, as it is typed."""
    from decaymerge.cli import app

    apps = [part.typer_instance for part in app.registered_groups]
    registered = [command for part in apps if part is not None for command in part.registered_commands]
    names = [command.callback.__name__ for command in registered if command.callback is not None]
    return [name.replace("_", "-") for name in names]


class SnakemakeServer:
    """A process that has imported Snakemake and the package of a checkout; each call is a fork of it.

    A call is a whole run of Snakemake. Its jobs are processes of their own, which import the same package.
    """

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
        atexit.register(self.stop)

    def environment(self) -> dict[str, str]:
        """The environment at this moment, in which Python imports the checkout's package."""
        return {**os.environ, "PYTHONPATH": str(self.checkout / "src")}

    def __call__(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run ``snakemake`` with these arguments in a folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            outputs = [Path(place) / "stdout", Path(place) / "stderr"]
            request = {
                "arguments": list(arguments),
                "folder": str(folder),
                "environment": self.environment(),
                "outputs": list(map(str, outputs)),
            }
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            stdout, stderr = (path.read_text() for path in outputs)
        return subprocess.CompletedProcess(["snakemake", *arguments], code, stdout, stderr)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def _serve() -> None:
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_snakemake(**json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _snakemake(
    arguments: list[str], folder: str, environment: Mapping[str, str], outputs: Sequence[str]
) -> int:
    """Exit code of Snakemake in this process, whose standard streams become files."""
    from snakemake import cli

    for number, name in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["snakemake", *arguments]
    code: object = 0
    try:
        cli.main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(str(code or 0))


if __name__ == "__main__":
    _serve()
