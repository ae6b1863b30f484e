"""What a run shows on a terminal and in a pipe, and what it says at its end."""

import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path
from typing import Any

import pytest

from conftest import Workflow

COLUMNS = 100
pytestmark = pytest.mark.workflow


def config() -> dict[str, Any]:
    """An experiment with a job for each file."""
    experiment = {
        "tasks": {"dataset": "gaussian", "dim": 12, "samples": 10},
        "network": {"hidden": [4]},
        "training": {"step_size": 1.0, "steps": 10, "kept_steps": 4, "weight_decay": [0]},
        "seeds": 2,
    }
    return {"minutes_per_job": 0, "experiments": {"one": experiment}}


def on_terminal(workflow: Workflow, *arguments: str) -> tuple[int, str]:
    """Exit code of a run, and all that it sends to a terminal of 100 columns."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = workflow.start(*arguments, stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    sent = b""
    while True:
        try:
            sent += os.read(main, 65536)
        except OSError:  # nobody has it open any more
            break
    os.close(main)
    return process.wait(), sent.decode()


def log_of(workflow: Workflow) -> str:
    """Snakemake's log of the last run."""
    return max((workflow.folder / ".snakemake/log").iterdir()).read_text()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.slow
def test_pipe_gets_progress_and_a_summary_and_the_log_the_commands(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, config())
    done = workflow.snakemake()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert '{"' not in said and "--settings" not in said  # settings as JSON, of which commands consist
    assert len(re.findall(r"^\d+ of \d+ steps", said, re.MULTILINE)) > 5
    look = re.escape(f"look at {tmp_path}/results/figures/one.png")  # --directory: the user stands elsewhere
    assert re.search(rf"^\d+ files made or kept in \d+ min \d+ s\n{look}$", said, re.MULTILINE)
    assert "decaymerge train --settings" in log_of(workflow)
    assert "\x1b" not in said


@pytest.mark.usefixtures("terminal")
def test_terminal_gets_a_bar_for_each_stage(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, config())
    code, said = on_terminal(workflow)
    assert code == 0, said
    for stage in ("tasks", "train", "others", "total"):
        assert re.search(rf"{stage} +\x1b", said), stage
    assert re.search(r"\d+/\d+ ", re.sub(r"\x1b\[[\d;]*m", "", said))
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is shown again
    assert "Finished jobid" not in said and "--settings" not in said
    assert f"look at {tmp_path}/results/figures/one.png" in said


@pytest.mark.usefixtures("terminal")
def test_failed_jobs_are_said_in_a_line_each_at_the_end(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, config())
    target = "results/one/train/a/weight_decay=0/seeds=0-1.nc"
    workflow.run(target)
    (tmp_path / target).write_bytes(b"damaged")
    code, said = on_terminal(workflow)
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", said)
    assert code == 1
    end = plain[plain.index("Exiting because a job execution failed") :]
    assert re.search(
        r"^\d failed:\n(merge|evaluate)\w*: error: .*train/a/weight_decay=0", end, re.MULTILINE
    ), end
    assert "--settings" not in plain and "Traceback" not in plain


@pytest.mark.usefixtures("terminal")
def test_dry_run_on_a_terminal_lists_jobs(tmp_path: Path) -> None:
    code, said = on_terminal(Workflow(tmp_path, config()), "--dry-run")
    assert code == 0
    assert "Train one/a" in said and "made or kept" not in said and "--settings" not in said
