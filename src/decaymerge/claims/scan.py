"""Claims about trained transformers (Figure 1, Appendix C.1), from one model's scan.

The paper states these claims in words. The thresholds that decide them are ours.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from decaymerge.claims.verdict import Kind, Verdict, outcome_of

MAPS = ["QKV", "M1", "M2"]
ORDER_OF_MAGNITUDE = 10.0
"""Ratio of the largest norm to the smallest up to which norms are of the same order."""
NEARLY_CONSTANT = 0.25
"""Standard deviation over mean, across layers, up to which the norm of a role is nearly constant."""
DIFFERS = 1.2
"""Ratio of two norms from which on they differ."""
MISSING = "a value is missing: the architecture is unknown, a layer lacks a role, or a matrix is zero"


def _verdict(
    claim: str,
    statement: str,
    name: str,
    measured: float,
    bound: float,
    note: str,
    kind: Kind = "upper",
) -> Verdict:
    """The verdict on a scan of the model ``name``; ``measured`` is not finite where a value is missing."""
    known = bool(np.isfinite(measured))
    holds = measured <= bound if kind == "upper" else measured >= bound
    slack = (bound / measured if measured else None) if kind == "upper" else measured / bound
    return Verdict(
        claim=claim,
        statement=statement,
        source="Appendix C.1, in words",
        assumptions="trained transformer of a known architecture; the threshold is ours",
        experiment=f"scan/{name}",
        weight_decay=None,
        kind=kind,
        outcome=outcome_of("" if known else "a value is missing", holds),
        measured=measured if known else None,
        bound=bound,
        slack=slack if known else None,
        median_slack=None,
        tolerance=None,
        seeds=[],
        note=note if known else MISSING,
    )


def _values(scan: xr.Dataset, variable: str, roles: list[str]) -> xr.DataArray:
    """Values (layer, role); NaN for roles that the scan lacks."""
    return scan[variable].reindex(role=roles)


def same_order(name: str, scan: xr.Dataset) -> Verdict:
    """Frobenius norms of QKV, M1 and M2 are of the same order of magnitude (Appendix C.1)."""
    norms = _values(scan, "frobenius_norm", MAPS)
    measured = float(norms.max(skipna=False) / norms.min(skipna=False))
    statement = "The norms of QKV, M1 and M2 of all layers lie within one order of magnitude"
    return _verdict(
        "scan_same_order",
        statement,
        name,
        measured,
        ORDER_OF_MAGNITUDE,
        "largest over smallest Frobenius norm",
    )


def constant_norm(name: str, scan: xr.Dataset) -> Verdict:
    """The Frobenius norm of each role is nearly constant over layers (Appendix C.1)."""
    roles = [*MAPS, "O"]
    norms = _values(scan, "frobenius_norm", roles)
    variation = norms.std("layer", skipna=False) / norms.mean("layer", skipna=False)
    per_role = ", ".join(f"{role} {float(variation.sel(role=role)):.3f}" for role in roles)
    statement = "The norm of each role is nearly constant over layers"
    measured = float(variation.max(skipna=False))
    return _verdict(
        "scan_constant_norm",
        statement,
        name,
        measured,
        NEARLY_CONSTANT,
        f"standard deviation over mean: {per_role}",
    )


def output_norm_differs(name: str, scan: xr.Dataset) -> Verdict:
    """The Frobenius norm of O differs from those of QKV, M1 and M2 (Appendix C.1)."""
    medians = _values(scan, "frobenius_norm", ["O", *MAPS]).median("layer", skipna=False)
    ratios = medians.sel(role=MAPS) / medians.sel(role="O")
    factors = np.exp(np.abs(np.log(ratios)))
    statement = "The norm of O differs from the norms of QKV, M1 and M2"
    per_role = ", ".join(f"{role}/O {float(ratios.sel(role=role)):.2f}" for role in MAPS)
    measured = float(xr.DataArray(factors).min(skipna=False))
    return _verdict(
        "scan_output_norm", statement, name, measured, DIFFERS, f"medians over layers: {per_role}", "lower"
    )


def low_stable_rank(name: str, scan: xr.Dataset) -> Verdict:
    """Stable ranks are below that of a Gaussian matrix of the same shape, mn/(√m + √n)² (Appendix C.1)."""
    roles = [*MAPS, "O"]
    rank = _values(scan, "stable_rank", roles)
    rows, columns = _values(scan, "rows", roles), _values(scan, "columns", roles)
    gaussian = rows * columns / (np.sqrt(rows) + np.sqrt(columns)) ** 2
    share = rank / np.minimum(rows, columns)
    statement = "Stable ranks are far below the dimension: below that of a Gaussian matrix of the same shape"
    note = f"stable rank over dimension: median {float(share.median()):.3f}, largest {float(share.max()):.3f}"
    measured = float((rank / gaussian).max(skipna=False))
    return _verdict("scan_low_stable_rank", statement, name, measured, 1.0, f"worst layer and role; {note}")


SCAN_CLAIMS: dict[str, Callable[[str, xr.Dataset], Verdict]] = {
    "scan_same_order": same_order,
    "scan_constant_norm": constant_norm,
    "scan_output_norm": output_norm_differs,
    "scan_low_stable_rank": low_stable_rank,
}
