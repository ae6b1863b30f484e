"""A claim, its measurement, and its verdict, which is a row of ``claims.json``."""

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
"""Share of a bound by which the measured side may miss it, since solvers and arithmetic are not exact."""


class Verdict(Settings):
    """The outcome of one claim on one experiment at one λ, with its numbers."""

    claim: str
    statement: str
    """Text, with formulas in LaTeX between dollar signs."""
    source: str
    """Lemma, equation or theorem of the paper, or ``ours`` for a statement that is not in the paper."""
    assumptions: str
    experiment: str
    """The experiment, several joined by commas, or ``scan/{model}``."""
    weight_decay: float | None
    """λ; none for a transformer, whose λ is not known."""
    kind: Kind
    """``equality`` (to a tolerance), ``upper`` or ``lower`` (bound)."""
    outcome: Outcome
    measured: float | None
    """The measured side where the slack is smallest."""
    bound: float | None
    """The bound there, or the tolerance of an equality."""
    slack: float | None
    """The smallest of bound / measured, or of measured / bound for a lower bound. The claim holds from 1 on. None
    where the slack is infinite or unknown."""
    median_slack: float | None
    last_measured: float | None = None
    """The measured side at the last step, where the slack is smallest there. Bounds over all steps are often tight
    at the first ones."""
    last_bound: float | None = None
    """The bound there."""
    last_slack: float | None = None
    """The smallest slack at the last step."""
    tolerance: float | None
    """The tolerance of an equality; the relative rounding that a bound allows."""
    trivial: str = ""
    """Why this row could not have contradicted the claim, whatever training did; empty where it could."""
    seeds: list[int]
    note: str
    """Which assumption is unmet, and what else was measured."""
    made_by: str = Field(default_factory=made_by)
    """Code, versions and kind of host of the process that judged."""


class Measured(NamedTuple):
    """Both sides of a claim along training."""

    measured: np.ndarray
    """The measured side, (task, seed, step, part), NaN where nothing is claimed; the relative deviation of an
    equality."""
    bound: np.ndarray
    """The bound, of the same shape; the tolerance of an equality."""
    parts: Sequence[str] = ("",)
    """Names of the parts, such as layers."""
    unmet: str = ""
    """Which assumption does not hold, or an empty text."""
    note: str = ""
    """What else was measured, in words."""
    trivial: str = ""
    """Why the claim could not have been contradicted by this run, or an empty text."""


@dataclass(frozen=True)
class Claim:
    """A statement that can be measured on an experiment's networks.

    ``name``, ``statement``, ``source``, ``assumptions`` and ``kind`` are those of its verdicts.
    """

    name: str
    brief: str
    """The statement in a few words, for the table in the documentation."""
    statement: str
    source: str
    assumptions: str
    kind: Kind
    when: Literal["every kept step", "last step"]
    """The steps that are judged; the first kept step is the start of training and is not."""
    applies: Callable[[ClaimsJob], bool]
    """Whether the claim is about an experiment."""
    measure: Callable[[Run], Measured]
    """Measures both sides at one λ."""
    tried: str = ""
    """What was tried to support the claim, or to meet its assumptions, without success."""
    parts_apart: bool = False
    """Whether the parts are different quantities. If so, all are drawn, otherwise only the one of least slack."""
    together: "Callable[[Sequence[tuple[ClaimsJob, xr.Dataset]]], list[Verdict]] | None" = None
    """Judges several experiments together, from the job and the traces of each, where one alone decides nothing."""
    against: Literal["step", "width"] = "step"
    """The horizontal axis of the claim's picture."""


def judge(claim: Claim, run: Run, sides: Measured) -> Verdict:
    """The verdict on a claim at one λ, from the least slack over tasks, seeds, parts and the claim's steps.

    Args:
        claim: The claim.
        run: The networks that were measured.
        sides: Both sides, as ``claim.measure`` gives them.
    """
    judged = slice(1, None) if claim.when == "every kept step" else slice(-1, None)
    worst, slacks = _worst(claim.kind, sides.measured[:, :, judged], sides.bound[:, :, judged])
    last, _ = _worst(claim.kind, sides.measured[:, :, -1:], sides.bound[:, :, -1:])
    unmet = sides.unmet or ("" if slacks.size else "nothing could be measured")
    return Verdict(
        claim=claim.name,
        statement=claim.statement,
        source=claim.source,
        assumptions=claim.assumptions,
        experiment=run.name,
        weight_decay=run.weight_decay,
        kind=claim.kind,
        outcome=outcome_of(unmet, holds=bool((slacks >= 1 - ROUNDING).all())),
        measured=worst.measured,
        bound=worst.bound,
        slack=worst.slack,
        median_slack=finite(np.median(slacks)) if slacks.size else None,
        last_measured=last.measured,
        last_bound=last.bound,
        last_slack=last.slack,
        tolerance=worst.bound if claim.kind == "equality" and slacks.size else ROUNDING,
        trivial=sides.trivial,
        seeds=run.seeds,
        note="; ".join(part for part in (unmet, sides.note) if part),
    )


class _Sides(NamedTuple):
    """Both sides of a claim at one place, and its slack; none where a number is infinite or unknown."""

    measured: float | None
    bound: float | None
    slack: float | None


def _worst(kind: Kind, measured: np.ndarray, bound: np.ndarray) -> tuple[_Sides, np.ndarray]:
    """Both sides where the slack is least, and all slacks that are known, as one row."""
    slack = slack_of(kind, measured, bound)
    known = ~np.isnan(slack)
    if not known.any():
        return _Sides(None, None, None), slack[known]
    place = np.unravel_index(np.nanargmin(slack), slack.shape)
    return _Sides(*(finite(side[place]) for side in (measured, bound, slack))), slack[known]


def outcome_of(unmet: str, holds: bool) -> Outcome:
    """The outcome of a claim.

    Args:
        unmet: Which assumption does not hold, or an empty text.
        holds: Whether the measured side stays within the bound.
    """
    if unmet:
        return "assumption unmet"
    return "holds" if holds else "not supported"


def slack_of(kind: Kind, measured: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Slack of a claim, of the shape of both sides: 1 or more where the claim holds, NaN where a side is unknown.

    The slack is measured / bound for a lower bound, otherwise bound / measured, or infinity where 0 is measured.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = measured / bound if kind == "lower" else bound / measured
    return np.where((measured == 0) & (bound >= 0) & (kind != "lower"), np.inf, slack)


def finite(value: float) -> float | None:
    """``value``, or none if it is infinite or NaN, which JSON cannot express."""
    return float(value) if math.isfinite(value) else None
