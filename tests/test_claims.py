"""Claims about scans: each holds where it should, and fails where what it claims is broken."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decaymerge import claims
from decaymerge.claims.scan import SCAN_CLAIMS
from decaymerge.errors import UserError
from decaymerge.scan import BASIC_ROLES


def good_scan() -> xr.Dataset:
    norms = {"Q": 10, "K": 10, "V": 10, "O": 10, "QKV": 17, "M1": 20, "M2": 20}
    layer = xr.DataArray(np.linspace(0.95, 1.05, 4), dims="layer", coords={"layer": range(4)})
    norm_of_role = xr.DataArray(
        [float(norms[role]) for role in BASIC_ROLES], dims="role", coords={"role": list(BASIC_ROLES)}
    )
    rows = xr.DataArray([64, 64, 64, 64, 192, 256, 64], dims="role", coords={"role": list(BASIC_ROLES)})
    columns = xr.DataArray([64, 64, 64, 64, 64, 64, 256], dims="role", coords={"role": list(BASIC_ROLES)})
    ones = xr.ones_like(layer)
    scan = xr.Dataset(
        {"frobenius_norm": layer * norm_of_role, "stable_rank": 5 * layer * xr.ones_like(norm_of_role)}
        | {"rows": ones * rows, "columns": ones * columns}
    )
    return scan.assign_coords(stack=("layer", ["encoder"] * 4), number=("layer", range(4)))


def outcome(claim: str, scan: xr.Dataset) -> str:
    return SCAN_CLAIMS[claim].judge(claim, "m", scan).outcome


@pytest.mark.parametrize("claim", SCAN_CLAIMS)
def test_holds(claim: str) -> None:
    verdict = SCAN_CLAIMS[claim].judge(claim, "m", good_scan())
    assert verdict.outcome == "holds" and verdict.slack is not None and verdict.slack > 1
    assert verdict.claim == claim and verdict.experiment == "scan/m" and verdict.note
    assert verdict.kind == ("lower" if claim == "scan_output_norm" else "upper")


def scan_with(variable: str, role: str, factor: float, layer: int | None = None) -> xr.Dataset:
    """A good scan with one role multiplied, in one layer or in all."""
    scan = good_scan()
    entries = (scan.role == role) & (
        xr.ones_like(scan.layer, dtype=bool) if layer is None else scan.layer == layer
    )
    return scan.assign({variable: scan[variable].where(~entries, factor * scan[variable])})


def test_each_can_fail() -> None:
    assert outcome("scan_same_order", scan_with("frobenius_norm", "M1", 12)) == "not supported"
    assert outcome("scan_constant_norm", scan_with("frobenius_norm", "M2", 3, layer=2)) == "not supported"
    assert outcome("scan_output_norm", scan_with("frobenius_norm", "O", 2)) == "not supported"
    assert outcome("scan_low_stable_rank", scan_with("stable_rank", "M1", 8, layer=1)) == "not supported"


@pytest.mark.parametrize("claim", SCAN_CLAIMS)
def test_missing_roles_leave_the_assumption_unmet(claim: str) -> None:
    verdict = SCAN_CLAIMS[claim].judge(claim, "m", good_scan().sel(role=["Q", "K"]))
    assert verdict.outcome == "assumption unmet" and verdict.measured is None


def test_file_round_trips_and_damage_is_told(tmp_path: Path) -> None:
    verdicts = claims.check_scan("m", good_scan())
    claims.write(verdicts, tmp_path / "claims.json")
    assert claims.read(tmp_path / "claims.json") == verdicts
    keys = ["claim", "statement", "source", "assumptions", "experiment", "weight_decay", "kind", "outcome"]
    keys += ["measured", "bound", "slack", "median_slack", "last_measured", "last_bound", "last_slack"]
    keys += ["tolerance", "trivial", "seeds", "note", "made_by"]
    assert list(json.loads((tmp_path / "claims.json").read_text())[0]) == keys
    (tmp_path / "claims.json").write_text("[{")
    with pytest.raises(UserError, match="remake it with: rm -f"):
        claims.read(tmp_path / "claims.json")


def test_rows_that_could_not_have_failed_are_counted_apart() -> None:
    verdicts = claims.check_scan("m", good_scan())[:2]
    trivial = verdicts[0].model_copy(update={"trivial": "by construction", "outcome": "assumption unmet"})
    counts = claims.count([verdicts[0], trivial, trivial])
    assert counts == (3, 1, {"assumption unmet": 2, "holds": 1}) and str(counts) == "1 of 3"
    lines = claims.table([*verdicts, trivial]).splitlines()
    assert [" * " in line for line in lines[1:4]] == [False, False, True]
    assert " ".join(lines[-2].split()) == "scan_same_order 1 of 2 assumption unmet 1, holds 1"
    assert "*" not in claims.table(verdicts)


def test_one_layer_and_a_constant_norm() -> None:
    verdict = SCAN_CLAIMS["scan_constant_norm"].judge("x", "m", good_scan().isel(layer=[0]))
    assert verdict.outcome == "holds" and verdict.measured == 0 and verdict.slack is None


@pytest.mark.parametrize("content", ["null", "3", "{}"])
def test_json_that_is_no_list_of_verdicts(content: str, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(content)
    with pytest.raises(UserError, match="cannot be read"):
        claims.read(tmp_path / "claims.json")
