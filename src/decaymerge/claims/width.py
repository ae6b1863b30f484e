"""How the cross term of the layer-wise sum depends on the width, over experiments that differ only in it."""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from decaymerge.claims.networks import Run
from decaymerge.claims.stationary import is_full_batch
from decaymerge.claims.verdict import Claim, Measured, Verdict, outcome_of
from decaymerge.workflow.jobs import ClaimsJob

EXPONENT = -0.5
"""The exponent of the width that is claimed."""
STANDARD_ERRORS = 2.0
"""Number of standard errors by which the fitted exponent may differ from the claimed one."""
RESOLUTION = 0.2
"""Largest value of these two standard errors at which agreement says something; few seeds fit any exponent."""
WIDTHS = 5
"""Least number of widths that decide."""


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
    """Whether the experiment has two tasks or more, and linear networks of two layers that learn their directions.

    From a balanced start they do not: the hidden direction never moves, the cross term is (s'/s) |⟨u_0, u'_0⟩| with
    the sizes s of the networks, and its exponent is that of two random unit vectors, without any training.
    """
    network = job.network
    return (
        is_full_batch(job)
        and network.activation == "linear"
        and network.initialisation == "gaussian"
        and network.depth == 2
        and len(job.task_names) > 1
    )


def judge_widths(traces: Sequence[tuple[ClaimsJob, xr.Dataset]]) -> list[Verdict]:
    """Verdicts on the law, at every λ, for each group of five or more experiments that differ only in their width.

    Args:
        traces: The job and the traces of each experiment to which the claim applies.
    """

    def all_but_width(item: tuple[ClaimsJob, xr.Dataset]) -> str:
        job = item[0]
        network = job.network.model_copy(update={"hidden": []})
        return job.model_copy(
            update={"experiment": "", "network": network, "made_from": []}
        ).model_dump_json()

    verdicts = []
    for _, group in itertools.groupby(sorted(traces, key=all_but_width), key=all_but_width):
        experiments = sorted(group, key=lambda item: item[0].network.hidden)
        if len(experiments) < WIDTHS:
            continue
        traces_of_claim = [trace.measured.sel(claim=WIDTH.name).isel(part=0) for _, trace in experiments]
        widths = [job.network.hidden[0] for job, _ in experiments]
        name = ", ".join(job.experiment for job, _ in experiments)
        seeds = [int(seed) for seed in traces_of_claim[0].seed.values]
        for weight_decay in experiments[0][1].weight_decay.values:
            values = [
                cross_terms.sel(weight_decay=weight_decay).transpose("step", "task", "seed").values[[0, -1]]
                for cross_terms in traces_of_claim
            ]
            verdicts.append(check_width(name, float(weight_decay), widths, values, seeds))
    return verdicts


WIDTH = Claim(
    name="layer_sum_width",
    brief="cross term of the layer-wise sum shrinks like 1/√width",
    statement=r"The cross term $W'_2 W_1 x$ of the layer-wise sum, relative to $W_2 W_1 x$, shrinks like"
    r" $1/\sqrt{\mathrm{width}}$ as a root mean square over seeds",
    source="ours",
    assumptions="linear networks of two layers from a Gaussian start, of five widths or more, and enough seeds to"
    " know the exponent to 0.1",
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
        cross_terms: Relative cross terms of each experiment before training and at the last step, (2, task, seed).
        seeds: Seeds of the experiments.
    """
    logs = np.log(widths)
    before, _ = exponent_of(logs, [values[0] for values in cross_terms])
    last = [values[1] for values in cross_terms]
    exponent, error = exponent_of(logs, last)
    deviation = abs(exponent - EXPONENT)
    allowed = STANDARD_ERRORS * error
    unmet = "" if allowed <= RESOLUTION else "the exponent is not known well enough"
    rms = ", ".join(
        f"{np.sqrt((values**2).mean()):.3f} at {width}" for width, values in zip(widths, last, strict=True)
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
        seeds=seeds,
        note=f"exponent {exponent:.3f} ± {error:.3f} (standard error, seeds resampled), {before:.3f} before"
        f" training; root mean square {rms}",
    )


def exponent_of(logs: np.ndarray, cross_terms: Sequence[np.ndarray]) -> tuple[float, float]:
    """Exponent of the root mean square in the width, and its standard error, from seeds that are drawn again.

    Args:
        logs: Logarithm of each width.
        cross_terms: Relative cross terms of each width, (task, seed).
    """
    rng = np.random.default_rng(0)
    exponents = [
        _fit(logs, [values[:, rng.integers(0, values.shape[1], values.shape[1])] for values in cross_terms])
        for _ in range(500)
    ]
    return _fit(logs, cross_terms), float(np.std(exponents))


def _fit(logs: np.ndarray, cross_terms: Sequence[np.ndarray]) -> float:
    """Slope of the logarithm of the root mean square against the logarithm of the width."""
    rms = [np.sqrt((values**2).mean()) for values in cross_terms]
    return float(np.polyfit(logs, np.log(rms), 1)[0])
