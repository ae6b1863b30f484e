"""The law of the layer-wise sum in the width: when it is found, and of which experiments."""

from pathlib import Path

import numpy as np

from decaymerge.claims import check_experiment, check_widths
from decaymerge.claims.width import check_width
from decaymerge.workflow.jobs import ClaimsJob
from test_claims_trained import LINEAR, written


def test_law_in_the_width() -> None:
    rng = np.random.default_rng(1)
    widths = [16, 64, 256]
    shrinking = [rng.standard_normal((2, 20)) / np.sqrt(width) for width in widths]
    constant = [rng.standard_normal((2, 20)) for _ in widths]
    assert check_width("x", 0.1, widths, shrinking, list(range(20))).status == "equality"
    assert check_width("x", 0.1, widths, constant, list(range(20))).status == "not supported"
    few = [values[:, :1] * factor for values, factor in zip(shrinking, (1, 5, 1), strict=True)]
    few = [np.concatenate([values, 30 * values], axis=1) for values in few]
    assert check_width("x", 0.1, widths, few, [0, 1]).status == "assumption unmet"


def test_law_in_the_width_is_of_experiments_that_differ_in_nothing_else(tmp_path: Path) -> None:
    traces = []
    for width in (4, 8, 16):
        folder, network = tmp_path / str(width), LINEAR | {"hidden": [width]}
        job = written(folder, count=2, network=network, method="gf", steps=30)
        _, trace = check_experiment(job, folder)
        traces.append(trace.assign_attrs(settings=job.model_dump_json()))
    assert len(check_widths(traces)) == 1
    other = ClaimsJob.model_validate_json(traces[0].attrs["settings"])
    data = [task.model_copy(update={"samples": 21}) for task in other.data]
    changed = traces[0].assign_attrs(settings=other.model_copy(update={"data": data}).model_dump_json())
    assert check_widths([changed, *traces[1:]]) == []
