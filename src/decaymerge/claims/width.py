"""The law of the layer-wise sum in the width, over experiments that differ in nothing else."""

from collections.abc import Sequence

import numpy as np

from decaymerge.claims.check import Check, Claim, Measured
from decaymerge.claims.run import Run
from decaymerge.jobs import ClaimsJob

EXPONENT = -0.5
STANDARD_ERRORS = 2.0
RESOLUTION = 0.25
"""An exponent that is known less well than to this could be one of no law: too few seeds or widths."""


def cross_term(run: Run) -> Measured:
    """|W'_2 W_1 x| over |W_2 W_1 x|, root mean squares over the own inputs; one width has no bound."""
    ratios = []
    for own, other in run.pairs:
        first = own.inputs.unsqueeze(1) @ own.weights[0].mT
        crossed, alone = (
            (first @ weights[1].mT).squeeze(-1).square().mean(-1).sqrt()
            for weights in (other.weights, own.weights)
        )
        ratios.append((crossed / alone).numpy())
    measured = np.stack(ratios)[..., None]
    return Measured(measured, np.full_like(measured, np.nan))


def applies(job: ClaimsJob) -> bool:
    """Deep linear networks of two layers from a balanced start."""
    network = job.network
    return network.initialisation == "balanced" and network.depth == 2 and len(job.tasks) > 1


WIDTH = Claim(
    name="layer_sum_width",
    statement=r"The cross term $W'_2 W_1 x$ of the layer-wise sum, relative to $W_2 W_1 x$, shrinks like"
    r" $1/\sqrt{\mathrm{width}}$ as a root mean square over seeds",
    source="ours",
    assumptions="linear networks of two layers from a balanced start, of several widths, and seeds enough to know"
    " the exponent to 0.25",
    kind="equality",
    when="last step",
    applies=applies,
    measure=cross_term,
)


def check_width(
    name: str, weight_decay: float, widths: Sequence[int], cross_terms: Sequence[np.ndarray], seeds: list[int]
) -> Check:
    """The exponent fitted to root mean squares over seeds, with its error from resampled seeds.

    Args:
        name: What the experiments are, for the table.
        weight_decay: λ.
        widths: One for each experiment.
        cross_terms: At the last step, (task, seed), for each experiment.
        seeds: Of the experiments.
    """
    logs = np.log(widths)
    exponent = _fit(logs, cross_terms)
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(500):
        drawn = [values[:, rng.integers(0, values.shape[1], values.shape[1])] for values in cross_terms]
        resampled.append(_fit(logs, drawn))
    error = float(np.std(resampled))
    off = abs(exponent - EXPONENT)
    allowed = STANDARD_ERRORS * error
    resolved = "equality" if allowed <= RESOLUTION else "assumption unmet"
    status = resolved if off <= allowed else "not supported"
    rms = ", ".join(
        f"{np.sqrt((values**2).mean()):.3f} at {width}"
        for width, values in zip(widths, cross_terms, strict=True)
    )
    return Check(
        claim=WIDTH.name,
        statement=WIDTH.statement,
        source=WIDTH.source,
        assumptions=WIDTH.assumptions,
        experiment=name,
        weight_decay=weight_decay,
        status=status,
        measured=off,
        bound=allowed,
        slack=allowed / off if off else None,
        median_slack=None,
        tolerance=allowed,
        seeds=seeds,
        note=f"exponent {exponent:.3f} ± {error:.3f} (standard error, seeds resampled); root mean square {rms}",
    )


def _fit(logs: np.ndarray, cross_terms: Sequence[np.ndarray]) -> float:
    rms = [np.sqrt((values**2).mean()) for values in cross_terms]
    return float(np.polyfit(logs, np.log(rms), 1)[0])
