"""The outcome of one claim, a row of ``claims.json``."""

from typing import Literal

from decaymerge.settings import Settings

Status = Literal["equality", "bound holds", "not supported", "assumption unmet"]


class Check(Settings):
    """What was claimed, measured and found."""

    claim: str
    statement: str
    experiment: str
    """Experiment, or ``scan/{model}``."""
    status: Status
    measured: float | None
    bound: float | None
    slack: float | None
    """bound / measured for an upper bound, measured / bound for a lower one: above 1 it holds."""
    tolerance: float | None
    seeds: list[int]
    note: str
