"""How the cross term of the layer-wise sum depends on the width, over experiments that differ only in it."""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Claim, Measured, Verdict, outcome_of
from decaymerge.workflow.jobs import ClaimsJob

EXPONENT = -0.5
"""The exponent of the width that is claimed."""
STANDARD_ERRORS = 2.0
"""Number of standard errors by which the fitted exponent may differ from the claimed one."""
RESOLUTION = 0.25
"""Accuracy to which the exponent must be known: with too few seeds or widths any exponent would fit."""
RANDOM = "from a balanced start the cross term is that of two random vectors, whatever training does"


def cross_term(run: Run) -> Measured:
    """|W'_2 W_1 x| / |W_2 W_1 x|, root mean squares over the own inputs; a single width has no bound (ours)."""
    ratios = []
    for own, other in run.pairs:
        first = own.inputs.unsqueeze(1) @ own.weights[0].mT
        cross_rms, own_rms = (
            (first @ weights[1].mT).squeeze(-1).square().mean(-1).sqrt()
            for weights in (other.weights, own.weights)
        )
        ratios.append((cross_rms / own_rms).numpy())
    measured = np.stack(ratios)[..., None]
    return Measured(measured, np.full_like(measured, np.nan))


def applies(job: ClaimsJob) -> bool:
    """Whether the experiment has two tasks or more, and linear networks of two layers from a balanced start."""
    network = job.network
    return network.initialisation == "balanced" and network.depth == 2 and len(job.task_names) > 1


def judge_widths(traces: Sequence[tuple[ClaimsJob, xr.Dataset]]) -> list[Verdict]:
    """Verdicts on the law, at every λ, for each group of three or more experiments that differ only in their width.

    Args:
        traces: The job and the traces of each experiment to which the claim applies.
    """

    def all_but_width(item: tuple[ClaimsJob, xr.Dataset]) -> str:
        job = item[0]
        network = job.network.model_copy(update={"hidden": []})
        return job.model_copy(update={"experiment": "", "network": network}).model_dump_json()

    verdicts = []
    for _, group in itertools.groupby(sorted(traces, key=all_but_width), key=all_but_width):
        experiments = sorted(group, key=lambda item: item[0].network.hidden)
        if len(experiments) < 3:
            continue
        last = [trace.measured.sel(claim=WIDTH.name).isel(step=-1, part=0) for _, trace in experiments]
        widths = [job.network.hidden[0] for job, _ in experiments]
        name = ", ".join(job.experiment for job, _ in experiments)
        seeds = [int(seed) for seed in last[0].seed.values]
        for weight_decay in experiments[0][1].weight_decay.values:
            values = [
                cross_terms.sel(weight_decay=weight_decay).transpose("task", "seed").values
                for cross_terms in last
            ]
            verdicts.append(check_width(name, float(weight_decay), widths, values, seeds))
    return verdicts


WIDTH = Claim(
    name="layer_sum_width",
    brief="cross term of the layer-wise sum shrinks like 1/√width",
    statement=r"The cross term $W'_2 W_1 x$ of the layer-wise sum, relative to $W_2 W_1 x$, shrinks like"
    r" $1/\sqrt{\mathrm{width}}$ as a root mean square over seeds",
    source="ours",
    assumptions="linear networks of two layers from a balanced start, of several widths, and enough seeds to know"
    " the exponent to 0.25",
    kind="equality",
    when="last step",
    applies=applies,
    measure=cross_term,
    together=judge_widths,
    against="width",
)


def check_width(
    name: str, weight_decay: float, widths: Sequence[int], cross_terms: Sequence[np.ndarray], seeds: list[int]
) -> Verdict:
    """Fit the exponent to root mean squares over seeds, and estimate its error by resampling the seeds.

    Args:
        name: Names of the experiments, for tables.
        weight_decay: λ.
        widths: Width of each experiment.
        cross_terms: Relative cross terms of each experiment at the last step, (task, seed).
        seeds: Seeds of the experiments.
    """
    logs = np.log(widths)
    exponent = _fit(logs, cross_terms)
    rng = np.random.default_rng(0)
    exponents = []
    for _ in range(500):
        resampled = [values[:, rng.integers(0, values.shape[1], values.shape[1])] for values in cross_terms]
        exponents.append(_fit(logs, resampled))
    error = float(np.std(exponents))
    deviation = abs(exponent - EXPONENT)
    allowed = STANDARD_ERRORS * error
    unmet = "" if allowed <= RESOLUTION else "the exponent is not known well enough"
    rms = ", ".join(
        f"{np.sqrt((values**2).mean()):.3f} at {width}"
        for width, values in zip(widths, cross_terms, strict=True)
    )
    return Verdict(
        claim=WIDTH.name,
        statement=WIDTH.statement,
        source=WIDTH.source,
        assumptions=WIDTH.assumptions,
        experiment=name,
        weight_decay=weight_decay,
        kind=WIDTH.kind,
        outcome="not supported" if deviation > allowed else outcome_of(unmet, holds=True),
        measured=deviation,
        bound=allowed,
        slack=allowed / deviation if deviation else None,
        median_slack=None,
        tolerance=allowed,
        trivial=RANDOM,
        seeds=seeds,
        note=f"exponent {exponent:.3f} ± {error:.3f} (standard error, seeds resampled); root mean square {rms}",
    )


def _fit(logs: np.ndarray, cross_terms: Sequence[np.ndarray]) -> float:
    """Slope of the logarithm of the root mean square against the logarithm of the width."""
    rms = [np.sqrt((values**2).mean()) for values in cross_terms]
    return float(np.polyfit(logs, np.log(rms), 1)[0])
