"""A claim, what was measured for it, and the outcome: a row of ``claims.json``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from decaymerge.claims.run import Run
from decaymerge.jobs import ClaimsJob
from decaymerge.provenance import made_by
from decaymerge.settings import Settings

Status = Literal["equality", "bound holds", "not supported", "assumption unmet"]
Kind = Literal["equality", "upper", "lower"]
ROUNDING = 1e-6
"""A bound counts as held where it is missed by no more than this share of it: solvers and rounding."""


class Check(Settings):
    """What was claimed, measured and found."""

    claim: str
    statement: str
    """Words with formulas in LaTeX between dollar signs."""
    source: str
    """Lemma, equation or theorem of the paper; ``ours`` for what the paper does not say."""
    assumptions: str
    experiment: str
    """Experiment, or ``scan/{model}``."""
    weight_decay: float | None
    """λ; none where the check is not of one λ."""
    status: Status
    measured: float | None
    """Where the slack is smallest, as is ``bound``."""
    bound: float | None
    slack: float | None
    """Worst of bound / measured for an upper bound and an equality, of measured / bound for a lower bound: above 1
    it holds. None where it is infinite."""
    median_slack: float | None
    tolerance: float | None
    seeds: list[int]
    note: str
    made_by: str = Field(default_factory=made_by)
    """Code, versions and kind of host."""


class Measured(NamedTuple):
    """A claim's two sides along training.

    ``measured`` and ``bound`` have the shape (task, seed, step, part) and NaN where nothing is claimed. For an
    equality, ``measured`` is the relative deviation and ``bound`` its tolerance. ``unmet`` says which assumption
    does not hold, or nothing.
    """

    measured: np.ndarray
    bound: np.ndarray
    parts: Sequence[str] = ("",)
    unmet: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement that can be measured on an experiment's networks."""

    name: str
    statement: str
    source: str
    assumptions: str
    kind: Kind
    when: Literal["every kept step", "last step"]
    applies: Callable[[ClaimsJob], bool]
    measure: Callable[[Run], Measured]
    tried: str = ""
    """What was tried where it is not supported or its assumption is not met."""


def judge(claim: Claim, run: Run, found: Measured) -> Check:
    """Status, worst and median slack over tasks, seeds and, where it is claimed at each, steps."""
    steps = slice(1, None) if claim.when == "every kept step" else slice(-1, None)
    measured, bound = found.measured[:, :, steps], found.bound[:, :, steps]
    slack = slack_of(claim.kind, measured, bound)
    known = ~np.isnan(slack)
    unmet = found.unmet or ("" if known.any() else "nothing could be measured")
    worst = np.unravel_index(np.nanargmin(slack), slack.shape) if known.any() else None
    holds = worst is not None and slack[worst] >= 1 - ROUNDING
    status: Status = "equality" if claim.kind == "equality" else "bound holds"
    return Check(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        assumptions=claim.assumptions,
        experiment=run.name,
        weight_decay=run.weight_decay,
        status="assumption unmet" if unmet else status if holds else "not supported",
        measured=finite(measured[worst]) if worst else None,
        bound=finite(bound[worst]) if worst else None,
        slack=finite(slack[worst]) if worst else None,
        median_slack=finite(np.median(slack[known])) if known.any() else None,
        tolerance=finite(bound[worst]) if worst and claim.kind == "equality" else ROUNDING,
        seeds=run.seeds,
        note="; ".join(part for part in (unmet, found.note) if part),
    )


def slack_of(kind: Kind, measured: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Above 1 where the claim holds; infinite where an upper bound is met by 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = measured / bound if kind == "lower" else bound / measured
    return np.where((measured == 0) & (bound >= 0) & (kind != "lower"), np.inf, slack)


def finite(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return float(value) if math.isfinite(value) else None
