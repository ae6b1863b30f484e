"""Claims about trained transformers (Figure 1, Appendix C.1), from one model's scan.

The paper states these claims in words. The thresholds that decide them are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from decaymerge.architectures import stacks_of
from decaymerge.claims.verdict import Kind, Verdict, outcome_of

MAPS = ["QKV", "M1", "M2"]
ORDER_OF_MAGNITUDE = 10.0
"""Ratio of the largest norm to the smallest up to which norms are of the same order."""
NEARLY_CONSTANT = 0.25
"""Standard deviation over mean, across layers, up to which the norm of a role is nearly constant."""
DIFFERS = 1.2
"""Ratio of two norms from which on they differ."""
MISSING = "a value is missing: the architecture is unknown, a layer lacks a role, or a matrix is zero"


def _values(scan: xr.Dataset, variable: str, roles: list[str]) -> xr.DataArray:
    """Values (number, role) of one stack; NaN for roles that the scan lacks."""
    return scan[variable].reindex(role=roles)


def same_order(stack: xr.Dataset) -> tuple[float, str]:
    """Frobenius norms of QKV, M1 and M2 are of the same order of magnitude (Appendix C.1)."""
    norms = _values(stack, "frobenius_norm", MAPS)
    return float(norms.max(skipna=False) / norms.min(skipna=False)), "largest over smallest Frobenius norm"


def constant_norm(stack: xr.Dataset) -> tuple[float, str]:
    """The Frobenius norm of each role is nearly constant over layers (Appendix C.1)."""
    roles = [*MAPS, "O"]
    norms = _values(stack, "frobenius_norm", roles)
    variation = norms.std("number", skipna=False) / norms.mean("number", skipna=False)
    per_role = ", ".join(f"{role} {float(variation.sel(role=role)):.3f}" for role in roles)
    return float(variation.max(skipna=False)), f"standard deviation over mean: {per_role}"


def output_norm_differs(stack: xr.Dataset) -> tuple[float, str]:
    """The Frobenius norm of O differs from those of QKV, M1 and M2 (Appendix C.1)."""
    medians = _values(stack, "frobenius_norm", ["O", *MAPS]).median("number", skipna=False)
    ratios = medians.sel(role=MAPS) / medians.sel(role="O")
    per_role = ", ".join(f"{role}/O {float(ratios.sel(role=role)):.2f}" for role in MAPS)
    factors = np.exp(np.abs(np.log(ratios)))
    return float(xr.DataArray(factors).min(skipna=False)), f"medians over layers: {per_role}"


def low_stable_rank(stack: xr.Dataset) -> tuple[float, str]:
    """Stable ranks are below that of a Gaussian matrix of the same shape, mn/(√m + √n)² (Appendix C.1)."""
    roles = [*MAPS, "O"]
    rank = _values(stack, "stable_rank", roles)
    rows, columns = _values(stack, "rows", roles), _values(stack, "columns", roles)
    gaussian = rows * columns / (np.sqrt(rows) + np.sqrt(columns)) ** 2
    share = rank / np.minimum(rows, columns)
    note = f"median {float(share.median()):.3f}, largest {float(share.max()):.3f}"
    return float(
        (rank / gaussian).max(skipna=False)
    ), f"worst layer and role; stable rank over dimension: {note}"


@dataclass(frozen=True)
class ScanClaim:
    """A claim about each stack of layers of a transformer."""

    statement: str
    measure: Callable[[xr.Dataset], tuple[float, str]]
    """What is compared with the threshold, for one stack, and a note."""
    bound: float
    kind: Kind = "upper"

    def judge(self, claim: str, name: str, scan: xr.Dataset) -> Verdict:
        """The verdict on a scan of the model ``name``: that of its worst stack."""
        measured: list[tuple[float, str]] = []
        stacks = stacks_of(scan)
        if len(stacks) > 1:
            stacks.pop("", None)  # matrices without roles, beside layers
        for stack, part in stacks.items():
            value, note = self.measure(part)
            measured.append((value, note + (f"; stack {stack}" if len(stacks) > 1 else "")))
        known = all(np.isfinite(value) for value, _ in measured)
        value, note = (max if self.kind == "upper" else min)(measured)
        holds = value <= self.bound if self.kind == "upper" else value >= self.bound
        slack = (self.bound / value if value else None) if self.kind == "upper" else value / self.bound
        return Verdict(
            claim=claim,
            statement=self.statement,
            source="Appendix C.1, in words",
            assumptions="trained transformer of a known architecture; the threshold is ours",
            experiment=f"scan/{name}",
            weight_decay=None,
            kind=self.kind,
            outcome=outcome_of("" if known else "a value is missing", holds),
            measured=value if known else None,
            bound=self.bound,
            slack=slack if known else None,
            median_slack=None,
            tolerance=None,
            seeds=[],
            note=note if known else MISSING,
        )


SCAN_CLAIMS = {
    "scan_same_order": ScanClaim(
        "The norms of QKV, M1 and M2 of all layers lie within one order of magnitude",
        same_order,
        ORDER_OF_MAGNITUDE,
    ),
    "scan_constant_norm": ScanClaim(
        "The norm of each role is nearly constant over layers", constant_norm, NEARLY_CONSTANT
    ),
    "scan_output_norm": ScanClaim(
        "The norm of O differs from the norms of QKV, M1 and M2", output_norm_differs, DIFFERS, "lower"
    ),
    "scan_low_stable_rank": ScanClaim(
        "Stable ranks are far below the dimension: below that of a Gaussian matrix of the same shape",
        low_stable_rank,
        1.0,
    ),
}
