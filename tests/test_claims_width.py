"""The law of the layer-wise sum in the width: where it holds, and which experiments decide it."""

from pathlib import Path

import numpy as np
import xarray as xr

from builders_runs import write_networks
from decaymerge import config
from decaymerge.claims import check_experiment, judge_together
from decaymerge.claims.width import check_width
from decaymerge.workflow.jobs import ClaimsJob
from decaymerge.workflow.origins import Origins


def test_law_in_the_width() -> None:
    rng = np.random.default_rng(1)
    widths = [16, 32, 64, 128, 256]
    constant = [rng.standard_normal((2, 2, 20)) for _ in widths]
    shrinking = [
        np.stack([start, last / np.sqrt(width)])
        for (start, last), width in zip(constant, widths, strict=True)
    ]
    verdict = check_width("x", 0.1, widths, shrinking, list(range(20)))
    assert verdict.outcome == "holds" and verdict.trivial == "" and "before training" in verdict.note
    assert check_width("x", 0.1, widths, constant, list(range(20))).outcome == "not supported"
    few = [np.concatenate([values[..., :1], 30 * values[..., :1]], -1) for values in shrinking]
    assert check_width("x", 0.1, widths, few, [0, 1]).outcome == "assumption unmet"


def traces_of_widths(results: Path) -> list[xr.Dataset]:
    """Traces of five experiments that differ in their width."""
    training = {"optimiser": "gf", "step_size": 0.5, "steps": 30, "kept_steps": 6}
    training |= {"dtype": "float64", "weight_decay": [0.02]}
    experiments = {
        f"x{width}": {
            "tasks": {"dataset": "gaussian", "dim": 12, "samples": 20},
            "network": {"activation": "linear", "hidden": [width]},
            "training": training,
            "seeds": 2,
        }
        for width in (4, 6, 8, 12, 16)
    }
    settings = config.parse({"experiments": experiments})
    write_networks(settings, results)
    traces = []
    for experiment in experiments:
        job = ClaimsJob.of(settings, experiment)
        _, trace = check_experiment(job, results)
        in_a_run = Origins(settings).job(ClaimsJob, experiment=experiment)  # which knows its inputs
        traces.append(trace.assign_attrs(settings=in_a_run.model_dump_json()))
    return traces


def test_law_in_the_width_is_of_experiments_that_differ_in_nothing_else(tmp_path: Path) -> None:
    traces = traces_of_widths(tmp_path)
    (verdict,) = judge_together(traces)
    assert verdict.claim == "layer_sum_width" and verdict.experiment == "x4, x6, x8, x12, x16"
    job = ClaimsJob.parse(traces[0].attrs["settings"])
    data = [task.model_copy(update={"samples": 21}) for task in job.data]
    other = traces[0].assign_attrs(settings=job.model_copy(update={"data": data}).model_dump_json())
    assert judge_together([other, *traces[1:]]) == []
