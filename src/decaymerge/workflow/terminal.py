"""What a run shows: on a terminal a bar for each stage, and everywhere a summary, or the failed jobs, at its end.

Commands, most of which are settings as JSON, are in Snakemake's log file; with ``-p`` they are shown as well.
"""

import atexit
import logging
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.common import LogEvent

from decaymerge.errors import printable
from decaymerge.workflow.parts import STAGES

SHOWN_BY_BARS = (
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.JOB_ERROR,
    LogEvent.PROGRESS,
)
HIDDEN_BY_BARS = ("Select jobs to execute", "RuleException:", "Cannot restore")
"""Starts of messages about single jobs: a failed one's whole command, and the outputs that it has not made."""
OTHERS = "others"
"""The bar of stages that have one job."""
TABLES = ("hypotheses", "gather_claims")
"""Rules whose logs end with a table that is shown at the end."""
FIRST_LOOKS = ("figures/figure3.png", ".png", "claims.html")
"""Ends of the files to look at first: the page of claims, and a figure, the best known one if it was drawn."""


def stage_of(rule: str) -> str:
    """The stage of a rule: the rules for parts of a stage are one stage."""
    first = rule.split("_")[0]
    return first if first in STAGES else rule


class Watch(logging.Handler):
    """Watches the jobs of a run, of which it says at the end what they made, or which of them failed.

    Args:
        stream: Snakemake's own output to the terminal. None if another logger writes there.
        with_bars: Whether to show bars, where the stream is a terminal.
    """

    def __init__(self, stream: ColorizingTextHandler | None, *, with_bars: bool) -> None:
        super().__init__()
        self.stream, self.start = stream, time.monotonic()
        self.running: dict[int, tuple[str, list[str], list[str]]] = {}  # rule, outputs and logs of jobs
        self.made: list[str] = []
        self.tables: list[str] = []
        self.failed: dict[int, str] = {}
        self.bars: dict[str, tuple[TaskID, ...]] = {}  # by stage: its own, and that of all
        self.progress: Progress | None = None
        if with_bars and stream is not None and stream.can_color_tty():
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
            left = TimeRemainingColumn(compact=True)
            console = Console(file=stream.stream)
            self.progress = Progress(
                *columns, left, console=console, speed_estimate_period=3600, transient=True
            )

    def shown(self, record: logging.LogRecord) -> bool:
        """Whether Snakemake itself prints a message."""
        event = getattr(record, "event", None)
        if event == LogEvent.SHELLCMD:
            return bool({"-p", "--printshellcmds"} & set(sys.argv))
        return not self.bars or (
            event not in SHOWN_BY_BARS and not str(record.msg).startswith(HIDDEN_BY_BARS)
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message of Snakemake."""
        event, values = getattr(record, "event", None), record.__dict__
        if event == LogEvent.RUN_INFO and not self.bars and self.progress is not None:
            self._draw_bars(values["stats"])
        elif event == LogEvent.JOB_INFO:
            self.running[values["jobid"]] = values["rule_name"], values["output"], values["log"]
        elif event == LogEvent.JOB_ERROR:
            self.failed[values["jobid"]] = failure(values["rule_name"], values["log"])
            if self.progress is not None:
                self.progress.console.print(self.failed[values["jobid"]], style="red", markup=False)
        elif event == LogEvent.JOB_FINISHED and values["job_id"] in self.running:
            rule, outputs, logs = self.running.pop(values["job_id"])
            self.failed.pop(values["job_id"], None)  # it succeeded when it was tried again
            self.made += outputs
            self.tables += [text_of(log).split("\n\n")[-1] for log in logs if rule in TABLES]
            if self.progress is not None:
                for bar in self.bars.get(stage_of(rule), ()):  # none where a checkpoint has added the rule
                    self.progress.advance(bar)

    def _draw_bars(self, jobs: dict[str, int]) -> None:
        assert self.progress is not None and self.stream is not None
        stages: Counter[str] = Counter()
        for rule, number in jobs.items():
            if rule != "total":
                stages[stage_of(rule)] += number
        rows = {stage: number for stage, number in stages.items() if number > 1}
        rows |= {OTHERS: len(stages) - len(rows), "total": jobs["total"]}
        bars = {row: self.progress.add_task(row, total=number) for row, number in rows.items() if number}
        self.bars = {stage: (bars[stage if stage in bars else OTHERS], bars["total"]) for stage in stages}
        name = "stdout" if self.stream.stream is sys.stdout else "stderr"
        self.progress.start()
        atexit.register(self.progress.stop)  # it has hidden the cursor
        self.stream.stream = getattr(sys, name)  # now one that writes above the bars

    def end(self, *, successful: bool) -> str:
        """Remove the bars, and say what was made and where to look, or which jobs failed and why."""
        if self.progress is not None and self.stream is not None:
            self.progress.stop()
            self.bars = {}
            self.stream.stream = self.progress.console.file  # Snakemake's own, which breaks no path
        if not successful:
            return "\n".join([f"{len(self.failed)} failed:", *self.failed.values()])
        minutes, seconds = divmod(round(time.monotonic() - self.start), 60)
        done = f"{len(self.made)} files made or kept in {minutes} min {seconds} s"
        best, *others = ([file for file in sorted(self.made) if file.endswith(end)] for end in FIRST_LOOKS)
        pictures, pages = others
        looks = [*(best or pictures)[:1], *pages]
        if any(argument.split("=")[0] in ("-d", "--directory") for argument in sys.argv):
            looks = [str(Path(path).absolute()) for path in looks]  # the user stands elsewhere
        return "\n".join([*filter(None, self.tables), done, *(f"look at {path}" for path in looks)])


def text_of(log: str) -> str:
    """Text of a log; empty if it is not here, as where files are in a storage."""
    path = Path(log.removesuffix(" (send to storage)"))
    return path.read_text(errors="replace").strip() if path.is_file() else ""


def failure(rule: str, logs: list[str]) -> str:
    """The last line of a failed job's log, and the log."""
    for log in logs:
        if lines := text_of(log).splitlines():
            return f"{rule}: {printable(lines[-1])} ({log})"
    return f"{rule}: killed, or failed without a word ({', '.join(logs)})"


def watch(logger: logging.Logger, *, with_bars: bool) -> Watch:
    """Watch a run through Snakemake's logger; on a terminal, ``with_bars``."""
    streams = [handler for handler in logger.handlers if isinstance(handler, ColorizingTextHandler)]
    watched = Watch(streams[0] if streams else None, with_bars=with_bars)
    for stream in streams:
        stream.addFilter(watched.shown)
    logger.addHandler(watched)
    return watched
