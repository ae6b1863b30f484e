"""Stage ``claims``: what the paper says, held against what was measured.

A claim measures two sides along training, and a ``Check`` is the verdict. It is never forced to pass: its status is
``bound holds``, ``equality``, ``not supported`` or ``assumption unmet``.
"""

import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import TypeAdapter

from decaymerge import store
from decaymerge.claims.check import Check, Claim, Measured, judge
from decaymerge.claims.flow import FLOW_CLAIMS
from decaymerge.claims.interference import INTERFERENCE_CLAIMS, SIDES, interference
from decaymerge.claims.merged_activations import ACTIVATION_CLAIMS
from decaymerge.claims.run import Run, read_runs
from decaymerge.claims.scan import SCAN_CLAIMS
from decaymerge.claims.stationary import STATIONARY_CLAIMS
from decaymerge.claims.width import WIDTH, check_width
from decaymerge.errors import UserError
from decaymerge.jobs import ClaimsJob
from decaymerge.progress import progress_bar
from decaymerge.whole import whole

__all__ = [
    "CLAIMS",
    "SCAN_CLAIMS",
    "Check",
    "check_experiment",
    "check_scan",
    "check_widths",
    "read",
    "table",
    "write",
]

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (*STATIONARY_CLAIMS, *INTERFERENCE_CLAIMS, *FLOW_CLAIMS, WIDTH, *ACTIVATION_CLAIMS)
}
"""Claims about trained networks, in the paper's order; adding one is a function and an entry."""


def check_experiment(job: ClaimsJob, folder: Path) -> tuple[list[Check], xr.Dataset]:
    """Checks of every claim that applies at every λ, and both sides of each along training.

    Returns:
        The checks, and ``measured`` and ``bound (claim, weight_decay, task, seed, step, part)``.
    """
    chosen = [claim for claim in CLAIMS.values() if claim.applies(job)]
    sweep = sorted(job.training.weight_decay)
    checks: dict[str, list[Check]] = {claim.name: [] for claim in chosen}
    traces: dict[str, list[xr.Dataset]] = {claim.name: [] for claim in chosen}
    interferences = []
    with progress_bar(f"claims about {job.experiment}", len(chosen) * len(sweep), "claim") as bar:
        for run in read_runs(job, folder):
            for claim in chosen:
                found = claim.measure(run)
                traces[claim.name].append(_trace(run, found))
                if claim is not WIDTH:  # one width decides nothing
                    checks[claim.name].append(judge(claim, run, found))
                bar.update()
            if len(run.tasks) > 1 and run.tasks[0].coefficients is not None:
                interferences.append(interference(run))
    decay = xr.Variable("weight_decay", sweep)
    names = xr.Variable("claim", np.array(list(traces), dtype=str))
    of_claim = [xr.concat(runs, decay) for runs in traces.values()]
    made = xr.concat(of_claim, names, join="outer") if of_claim else xr.Dataset(coords={"claim": names})
    long_names = {"measured": "what is measured of a claim", "bound": "what the claim bounds it by"}
    if len(interferences) == len(sweep):
        made["interference"] = xr.DataArray(
            np.stack(interferences),
            {"weight_decay": sweep, "task": job.tasks[:2], "seed": run.seeds, "side": SIDES},
        )
        long_names["interference"] = "mean norm of the first layer on the other task's inputs"
    store.describe(made, {name: text for name, text in long_names.items() if name in made})
    return [check for of in checks.values() for check in of], made


def _trace(run: Run, found: Measured) -> xr.Dataset:
    dims = ("task", "seed", "step", "part")
    return xr.Dataset(
        {"measured": (dims, found.measured), "bound": (dims, found.bound)},
        coords={
            "task": run.job.tasks[: len(found.measured)],  # a claim of pairs has the first two
            "seed": run.seeds,
            "step": run.kept,
            "part": list(found.parts),
        },
    )


def check_widths(traces: Sequence[xr.Dataset]) -> list[Check]:
    """The law in the width, for every group of experiments that differ in their width alone, at every λ."""

    def group(item: tuple[ClaimsJob, xr.Dataset]) -> str:
        job = item[0]
        network = job.network.model_copy(update={"hidden": []})
        return job.model_copy(update={"experiment": "", "network": network}).model_dump_json()

    jobs = [(ClaimsJob.model_validate_json(trace.attrs["settings"]), trace) for trace in traces]
    wide = sorted((item for item in jobs if WIDTH.applies(item[0])), key=group)
    checks = []
    for _, members in itertools.groupby(wide, key=group):
        found = sorted(members, key=lambda item: item[0].network.hidden)
        if len(found) < 3:
            continue
        last = [trace.measured.sel(claim=WIDTH.name).isel(step=-1, part=0) for _, trace in found]
        widths = [job.network.hidden[0] for job, _ in found]
        name = ", ".join(job.experiment for job, _ in found)
        for weight_decay in found[0][1].weight_decay.values:
            values = [one.sel(weight_decay=weight_decay).transpose("task", "seed").values for one in last]
            seeds = [int(seed) for seed in last[0].seed.values]
            checks.append(check_width(name, float(weight_decay), widths, values, seeds))
    return checks


def check_scan(name: str, scan: xr.Dataset) -> list[Check]:
    """All claims about one model's scan."""
    return [claim(name, scan) for claim in SCAN_CLAIMS.values()]


def write(checks: Sequence[Check], output: Path) -> None:
    """A list of checks as JSON, moved into place whole."""
    with whole(output) as temporary:
        temporary.write_text(
            json.dumps([check.model_dump() for check in checks], indent=2, ensure_ascii=False) + "\n"
        )


def read(path: Path) -> list[Check]:
    """Checks from JSON.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return TypeAdapter(list[Check]).validate_json(path.read_text())
    except (OSError, ValueError) as error:
        reason, quoted = str(error).split("\n")[0], shlex.quote(str(path))
        raise UserError(
            f"{path} cannot be read ({reason}); remake it with: rm -f {quoted} && snakemake {quoted}"
        ) from None


def table(checks: Sequence[Check]) -> str:
    """One line a check, for the terminal."""
    lines = [f"{'claim':22}{'of':26}{'λ':>8}  {'status':18}{'measured':>10}{'bound':>10}{'slack':>10}"]
    for check in checks:
        decay = "" if check.weight_decay is None else f"{check.weight_decay:g}"
        numbers = "".join(
            "-".rjust(10) if value is None else f"{value:10.3g}"
            for value in (check.measured, check.bound, check.slack)
        )
        name = check.experiment if len(check.experiment) <= 25 else check.experiment[:22] + "..."
        lines.append(f"{check.claim:22}{name:26}{decay:>8}  {check.status:18}{numbers}")
    return "\n".join(lines)
