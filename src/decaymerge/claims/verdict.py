"""A claim, what was measured for it, and the verdict: a row of ``claims.json``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from pydantic import Field

from decaymerge.claims.networks import Run
from decaymerge.config.base import Settings
from decaymerge.provenance import made_by
from decaymerge.workflow.jobs import ClaimsJob

Outcome = Literal["holds", "not supported", "assumption unmet"]
Kind = Literal["equality", "upper", "lower"]
ROUNDING = 1e-6
"""A bound counts as held where it is missed by no more than this share of it: solvers and rounding."""


class Verdict(Settings):
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
    kind: Kind
    """An equality to a tolerance, or an upper or lower bound."""
    outcome: Outcome
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
    parts_apart: bool = False
    """Whether its parts are different quantities, which are all drawn; otherwise the part with least slack is."""
    together: "Callable[[Sequence[tuple[ClaimsJob, xr.Dataset]]], list[Verdict]] | None" = None
    """Judges it over experiments, from the settings and traces of each, where a single one decides nothing."""
    against: Literal["step", "width"] = "step"
    """The horizontal axis of its picture."""


def judge(claim: Claim, run: Run, sides: Measured) -> Verdict:
    """Outcome, worst and median slack over tasks, seeds and, where it is claimed at each, steps."""
    steps = slice(1, None) if claim.when == "every kept step" else slice(-1, None)
    measured, bound = sides.measured[:, :, steps], sides.bound[:, :, steps]
    slack = slack_of(claim.kind, measured, bound)
    known = ~np.isnan(slack)
    unmet = sides.unmet or ("" if known.any() else "nothing could be measured")
    worst = np.unravel_index(np.nanargmin(slack), slack.shape) if known.any() else None
    holds = worst is not None and slack[worst] >= 1 - ROUNDING
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        assumptions=claim.assumptions,
        experiment=run.name,
        weight_decay=run.weight_decay,
        kind=claim.kind,
        outcome=outcome_of(unmet, holds),
        measured=finite(measured[worst]) if worst else None,
        bound=finite(bound[worst]) if worst else None,
        slack=finite(slack[worst]) if worst else None,
        median_slack=finite(np.median(slack[known])) if known.any() else None,
        tolerance=finite(bound[worst]) if worst and claim.kind == "equality" else ROUNDING,
        seeds=run.seeds,
        note="; ".join(part for part in (unmet, sides.note) if part),
    )


def outcome_of(unmet: str, holds: bool) -> Outcome:
    """The outcome of a claim, given which assumption is not met, if any, and whether it holds."""
    if unmet:
        return "assumption unmet"
    return "holds" if holds else "not supported"


def slack_of(kind: Kind, measured: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Above 1 where the claim holds; infinite where an upper bound is met by 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = measured / bound if kind == "lower" else bound / measured
    return np.where((measured == 0) & (bound >= 0) & (kind != "lower"), np.inf, slack)


def finite(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return float(value) if math.isfinite(value) else None
