"""Stage ``claims``: compare what the paper says with what is measured.

A claim measures two sides along training, and a ``Verdict`` records how they compare. A claim is never forced to
pass: its outcome is ``holds``, ``not supported`` or ``assumption unmet``.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import TypeAdapter

from decaymerge import store
from decaymerge.atomic import atomic_file
from decaymerge.claims.flow import FLOW_CLAIMS
from decaymerge.claims.interference import INTERFERENCE_CLAIMS, SIDES, interference
from decaymerge.claims.merged_activations import ACTIVATION_CLAIMS
from decaymerge.claims.networks import Run, read_runs
from decaymerge.claims.scan import SCAN_CLAIMS
from decaymerge.claims.stationary import STATIONARY_CLAIMS
from decaymerge.claims.verdict import Claim, Measured, Verdict, judge
from decaymerge.claims.width import WIDTH
from decaymerge.errors import UserError
from decaymerge.progress import progress_bar
from decaymerge.workflow.jobs import ClaimsJob

__all__ = [
    "CLAIMS",
    "SCAN_CLAIMS",
    "Verdict",
    "check_experiment",
    "check_scan",
    "judge_together",
    "read",
    "table",
    "write",
]

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (*STATIONARY_CLAIMS, *INTERFERENCE_CLAIMS, *FLOW_CLAIMS, WIDTH, *ACTIVATION_CLAIMS)
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
    return [claim(name, scan) for claim in SCAN_CLAIMS.values()]


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
        return TypeAdapter(list[Verdict]).validate_json(path.read_text())
    except (OSError, ValueError) as error:
        reason, quoted = str(error).split("\n")[0], shlex.quote(str(path))
        raise UserError(
            f"{path} cannot be read ({reason}); remake it with: rm -f {quoted} && snakemake {quoted}"
        ) from None


def table(verdicts: Sequence[Verdict]) -> str:
    """A header and one line for each verdict, for the terminal."""
    lines = [
        f"{'claim':22}{'experiment':26}{'λ':>8}  {'outcome':18}{'measured':>10}{'bound':>10}{'slack':>10}"
    ]
    for verdict in verdicts:
        decay = "" if verdict.weight_decay is None else f"{verdict.weight_decay:g}"
        numbers = "".join(
            "-".rjust(10) if value is None else f"{value:10.3g}"
            for value in (verdict.measured, verdict.bound, verdict.slack)
        )
        name = verdict.experiment if len(verdict.experiment) <= 25 else verdict.experiment[:22] + "..."
        lines.append(f"{verdict.claim:22}{name:26}{decay:>8}  {verdict.outcome:18}{numbers}")
    return "\n".join(lines)
