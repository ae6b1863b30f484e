"""The numbers of the pages that come from the default run, held against its results (`make check`)."""

import numpy as np
import pytest

import run_numbers
from conftest import REPOSITORY
from decaymerge import claims, store
from decaymerge.claims.verdict import Verdict

pytestmark = pytest.mark.default_run


def test_every_number_of_the_pages_lies_in_its_interval() -> None:
    """Rounding may move a mean over seeds within its interval, and no outcome of a claim or hypothesis."""
    compared = run_numbers.compare(REPOSITORY / "results", run_numbers.NUMBERS / "default")
    print(f"{len(compared)} numbers compared, {int(compared.inside.sum())} inside")
    assert len(compared) > 500 and compared.inside.all(), compared[~compared.inside].to_string()


def all_verdicts() -> list[Verdict]:
    return claims.read(REPOSITORY / "results/claims.json")


@pytest.mark.parametrize(
    ("claim", "prefix", "tolerance"),
    [
        ("alignment", "linear_", 1e-6),
        ("rank_one", "linear_", 1e-6),
        ("norm_preservation", "linear_", 1e-6),
        ("alignment", "relu_squared", 1e-4),
        ("norm_preservation", "relu_squared", 1e-4),
        ("norm_preservation", "relu_gd", 1e-3),
        ("identity", "", 1e-10),
        ("theorem4", "", 1e-6),
    ],
)
def test_equalities_hold(claim: str, prefix: str, tolerance: float) -> None:
    verdicts = [v for v in all_verdicts() if v.claim == claim and v.experiment.startswith(prefix)]
    assert verdicts and {(verdict.kind, verdict.outcome) for verdict in verdicts} == {("equality", "holds")}
    assert all(verdict.measured is not None and verdict.measured <= tolerance for verdict in verdicts)


def test_interference_is_predicted_before_merging() -> None:
    for name in ("overlap_000", "overlap_025", "overlap_050", "overlap_075", "overlap_100"):
        interference = store.read(REPOSITORY / f"results/{name}/claims.nc").interference
        sides = (interference.sel(side=side) for side in interference.side.values)
        measured, predicted, bound, paper = sides
        assert np.allclose(measured, predicted, rtol=1e-8)
        assert (measured <= bound * (1 + 1e-9)).all() and (bound <= paper * (1 + 1e-9)).all()


def test_page_of_claims_opens_inside_the_report() -> None:
    """As base64 in an address, of which Chromium takes 2 MiB."""
    assert (REPOSITORY / "results/claims.html").stat().st_size * 4 / 3 < 2 * 1024**2
