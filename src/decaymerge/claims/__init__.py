"""Stage ``claims``: compare what the paper says with what is measured.

A claim measures two sides along training, and a ``Verdict`` records how they compare. A claim is never forced to
pass: its outcome is ``holds``, ``not supported`` or ``assumption unmet``.
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from pydantic import TypeAdapter

from decaymerge import store
from decaymerge.atomic import atomic_file
from decaymerge.claims.alignment import ALIGNMENT_CLAIMS
from decaymerge.claims.balance import BALANCE
from decaymerge.claims.counterexample import COUNTEREXAMPLE
from decaymerge.claims.flow import FLOW_CLAIMS
from decaymerge.claims.interference import INTERFERENCE_CLAIMS, SIDES, interference
from decaymerge.claims.least_squares import LEAST_SQUARES_CLAIMS
from decaymerge.claims.merged_activations import ACTIVATION_CLAIMS
from decaymerge.claims.networks import Run, read_runs
from decaymerge.claims.scan import SCAN_CLAIMS
from decaymerge.claims.stationary import STATIONARY_CLAIMS
from decaymerge.claims.verdict import Claim, Measured, Verdict, judge
from decaymerge.claims.width import WIDTH
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar
from decaymerge.reading import text_of
from decaymerge.workflow.jobs import ClaimsJob

__all__ = [
    "CLAIMS",
    "SCAN_CLAIMS",
    "Verdict",
    "check_experiment",
    "check_scan",
    "count",
    "judge_together",
    "read",
    "table",
    "write",
]

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        *ALIGNMENT_CLAIMS,
        *STATIONARY_CLAIMS,
        BALANCE,
        *INTERFERENCE_CLAIMS,
        *FLOW_CLAIMS,
        WIDTH,
        *ACTIVATION_CLAIMS,
        COUNTEREXAMPLE,
        *LEAST_SQUARES_CLAIMS,
    )
}
"""Claims about trained networks by name, in the paper's order. To add one, add a ``Claim`` to one of the lists."""
LONG_NAMES = {
    "measured": "measured side of a claim",
    "bound": "bound on the measured side, or the tolerance of an equality",
    "interference": "mean norm of the first layer's output on the other task's inputs",
}


def check_experiment(job: ClaimsJob, results: Path) -> tuple[list[Verdict], xr.Dataset]:
    """Check every claim that applies to an experiment, at each λ.

    Args:
        job: The experiment.
        results: Folder of results, with the experiment's data and networks.

    Returns:
        The verdicts, and both sides of each claim along training: ``measured`` and ``bound (claim, weight_decay,
        task, seed, step, part)``. Where the first layer's coefficients were kept for two tasks or more, also
        ``interference (weight_decay, task, seed, side)`` of the first two.

    Raises:
        UserError: a file of the experiment is missing or damaged.
    """
    claims = [claim for claim in CLAIMS.values() if claim.applies(job)]
    sweep = sorted(job.training.weight_decay)
    verdicts: dict[str, list[Verdict]] = {claim.name: [] for claim in claims}
    traces: dict[str, list[xr.Dataset]] = {claim.name: [] for claim in claims}
    interferences = []
    with progress_bar(f"claims about {job.experiment}", len(claims) * len(sweep), "claim") as bar:
        for run in read_runs(job, results):
            for claim in claims:
                sides = claim.measure(run)
                traces[claim.name].append(_trace(run, sides))
                if claim.together is None:
                    verdicts[claim.name].append(judge(claim, run, sides))
                bar.update()
            if len(run.tasks) > 1 and run.tasks[0].coefficients is not None:
                interferences.append(interference(run))
    dataset = _all_traces(traces, sweep)
    if len(interferences) == len(sweep):
        dataset["interference"] = xr.DataArray(
            np.stack(interferences),
            {"weight_decay": sweep, "task": job.task_names[:2], "seed": run.seeds, "side": SIDES},
        )
    store.describe(dataset, {name: text for name, text in LONG_NAMES.items() if name in dataset})
    return [verdict for per_claim in verdicts.values() for verdict in per_claim], dataset


def _trace(run: Run, sides: Measured) -> xr.Dataset:
    """Both sides of one claim at one λ, (task, seed, step, part)."""
    dims = ("task", "seed", "step", "part")
    return xr.Dataset(
        {"measured": (dims, sides.measured), "bound": (dims, sides.bound)},
        coords={
            "task": run.job.task_names[: len(sides.measured)],  # some claims are about the first two tasks
            "seed": run.seeds,
            "step": run.kept,
            "part": list(sides.parts),
        },
    )


def _all_traces(traces: Mapping[str, Sequence[xr.Dataset]], sweep: Sequence[float]) -> xr.Dataset:
    """Traces of all claims and λ in one dataset; NaN where a claim lacks a task or a part."""
    names = xr.Variable("claim", np.array(list(traces), dtype=str))
    decay = xr.Variable("weight_decay", sweep)
    per_claim = [xr.concat(runs, decay) for runs in traces.values()]
    return xr.concat(per_claim, names, join="outer") if per_claim else xr.Dataset(coords={"claim": names})


def judge_together(traces: Sequence[xr.Dataset]) -> list[Verdict]:
    """Verdicts on the claims that several experiments decide together.

    Args:
        traces: The dataset of ``check_experiment`` for each experiment, with its job as attribute ``settings``.
    """
    experiments = [(ClaimsJob.model_validate_json(trace.attrs["settings"]), trace) for trace in traces]
    return [
        verdict
        for claim in CLAIMS.values()
        if claim.together is not None
        for verdict in claim.together([(job, trace) for job, trace in experiments if claim.applies(job)])
    ]


def check_scan(name: str, scan: xr.Dataset) -> list[Verdict]:
    """Verdicts on all claims about transformers, from the scan of the model ``name``."""
    return [claim.judge(key, name, scan) for key, claim in SCAN_CLAIMS.items()]


def write(verdicts: Sequence[Verdict], output: Path) -> None:
    """Write verdicts to ``output`` as JSON, a list of objects.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_file(output) as temporary:
        rows = [verdict.model_dump() for verdict in verdicts]
        temporary.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def read(path: Path) -> list[Verdict]:
    """Verdicts from a file that ``write`` has written.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return TypeAdapter(list[Verdict]).validate_json(text_of(path))
    except (OSError, ValueError) as error:
        reason, quoted = str(error).split("\n")[0], shlex.quote(str(path))
        raise UserError(
            f"{path} cannot be read ({reason}); remake it with: rm -f {quoted} && snakemake {quoted}"
        ) from None


class Counts(NamedTuple):
    """How often a claim was measured, and how its rows ended."""

    rows: int
    refutable: int
    """Rows that could have contradicted the claim."""
    outcomes: dict[str, int]

    def __str__(self) -> str:
        return f"{self.refutable} of {self.rows}"


def count(verdicts: Sequence[Verdict]) -> Counts:
    """Counts of one claim's verdicts, its outcomes in alphabetical order."""
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    refutable = sum(not verdict.trivial for verdict in verdicts)
    return Counts(len(verdicts), refutable, dict(sorted(outcomes.items())))


def table(verdicts: Sequence[Verdict]) -> str:
    """A header and one line for each verdict, for the terminal, and below them one line for each claim."""
    sides = ("measured", "bound", "slack", "last slack")
    lines = [
        f"{'claim':24}{'experiment':26}{'λ':>8}  {'outcome':18}" + "".join(f"{side:>11}" for side in sides)
    ]
    for verdict in verdicts:
        decay = "" if verdict.weight_decay is None else f"{verdict.weight_decay:g}"
        numbers = "".join(
            "-".rjust(11) if value is None else f"{value:11.3g}"
            for value in (verdict.measured, verdict.bound, verdict.slack, verdict.last_slack)
        )
        name = verdict.experiment if len(verdict.experiment) <= 25 else verdict.experiment[:22] + "..."
        outcome = verdict.outcome + (" *" if verdict.trivial else "")
        lines.append(f"{verdict.claim:24}{name:26}{decay:>8}  {outcome:18}{numbers}")
    if any(verdict.trivial for verdict in verdicts):
        lines.append("* could not have come out otherwise: see trivial in claims.json")
    lines += ["", f"{'claim':24}{'could fail':>12}  outcomes"]
    for claim in dict.fromkeys(verdict.claim for verdict in verdicts):
        counts = count([verdict for verdict in verdicts if verdict.claim == claim])
        outcomes = ", ".join(f"{outcome} {number}" for outcome, number in counts.outcomes.items())
        lines.append(f"{claim:24}{counts!s:>12}  {outcomes}")
    return "\n".join(lines)
