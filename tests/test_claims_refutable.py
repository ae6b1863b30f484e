"""Rows that could not have contradicted their claim, the last step in verdicts, and runs that are unfinished."""

import numpy as np
import pytest
import torch

from decaymerge.claims import CLAIMS
from decaymerge.claims.alignment import FALLING_STEPS, alignment, lemma1_descent, sharpnesses
from decaymerge.claims.curvature import largest_eigenvalue, sharpness
from decaymerge.claims.verdict import Measured, judge
from test_claims_trained import GAUSSIAN, at_first, of_full_rank, run_of, verdict_on

TRIVIAL = [
    ("alignment", "relu", "not smooth"),
    ("rank_one", "linear", "start with rank one"),
    ("norm_preservation", "linear", "by algebra"),
    ("norm_preservation", "squared", "by algebra"),
    ("low_rank_eq2", "linear", "the left side is 1"),
    ("low_rank_eq3", "linear", "by algebra"),
    ("balance", "gaussian", "η²"),
]
REFUTABLE = [
    ("alignment", "linear"),
    ("lemma1_descent", "linear"),
    ("rank_one", "gaussian"),
    ("norm_preservation", "relu"),
    ("low_rank_eq2", "relu"),
    ("low_rank_eq3", "relu"),
    ("balance", "gaussian_flow"),
    ("linear_interference", "predictor"),
    ("lemma5", "shallow"),
    ("identity", "linear"),
    ("theorem4", "flow"),
    ("theorem1_orthogonal", "flow"),
    ("lemma6", "flow"),
    ("lemma7", "flow"),
    ("theorem2", "relu"),
]


@pytest.mark.parametrize(("claim", "name", "reason"), TRIVIAL)
def test_rows_that_hold_by_construction_say_why(claim: str, name: str, reason: str) -> None:
    assert reason in verdict_on(claim, run_of(name)).trivial


@pytest.mark.parametrize(("claim", "name"), REFUTABLE)
def test_other_rows_could_have_failed(claim: str, name: str) -> None:
    assert verdict_on(claim, run_of(name)).trivial == ""


def test_rank_one_is_decided_by_the_matrices_and_not_by_the_name_of_their_start() -> None:
    assert verdict_on("rank_one", run_of("linear", networks=of_full_rank)).trivial == ""
    assert verdict_on("rank_one", run_of("linear", network=GAUSSIAN | {"hidden": [6]})).trivial


def test_without_decay_no_row_could_have_failed() -> None:
    for claim in ("alignment", "low_rank_eq3"):
        assert "λ = 0" in verdict_on(claim, run_of("linear", weight_decay=0)).trivial


def test_the_last_step_is_reported_next_to_the_worst() -> None:
    run = run_of("linear")
    bound = np.ones((2, 2, 12, 1))
    measured = np.linspace(0.9, 0.1, 12)[:, None] * bound
    measured[0, 0, 0] = 5  # the start of training is not judged
    verdict = judge(CLAIMS["lemma7"], run, Measured(measured, bound))
    assert verdict.measured == pytest.approx(measured[1, 1, 1, 0]) and verdict.slack == pytest.approx(
        1.210, rel=1e-3
    )
    assert verdict.last_measured == pytest.approx(0.1) and verdict.last_bound == 1
    assert verdict.last_slack == pytest.approx(10)
    measured[1, 0, -1] = 0.5
    verdict = judge(CLAIMS["lemma7"], run, Measured(measured, bound))
    assert verdict.last_measured == 0.5 and verdict.last_slack == 2
    unknown = judge(CLAIMS["lemma7"], run, Measured(measured * np.nan, bound))
    assert unknown.last_slack is None and unknown.outcome == "assumption unmet"


def test_a_run_that_misses_is_unfinished_only_while_its_residual_falls() -> None:
    run = run_of("linear", networks=at_first)
    task = run.tasks[0]
    residual = np.full(task.residual.shape, 0.5)
    outcomes = []
    for last in ([0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 1e-9]):
        assert len(last) == FALLING_STEPS + 1
        residual[:, -4:] = last
        for other in run.tasks:
            other.__dict__["residual"] = residual
        outcomes.append(judge(CLAIMS["alignment"], run, alignment(run)).outcome)
    assert outcomes == ["assumption unmet", "not supported", "not supported", "holds"]
    residual[:, -4:] = [0.4, 0.3, 0.2, 0.1]
    run.tasks[1].__dict__["residual"] = np.full(residual.shape, 0.2)  # one task that stalls is enough
    assert judge(CLAIMS["alignment"], run, alignment(run)).outcome == "not supported"


def test_step_sizes_above_two_over_the_sharpness_leave_the_assumption_unmet() -> None:
    run = run_of("linear")
    largest = max(float(values.max()) for values in sharpnesses(run))
    run.job = run.job.model_copy(
        update={"training": run.job.training.model_copy(update={"step_size": 2.1 / largest})}
    )
    assert "is not below 2" in lemma1_descent(run).unmet


def test_sharpness_of_networks_with_fewer_weights_than_steps_of_lanczos() -> None:
    # One hidden unit and three inputs: the Hessian has four rows, and its Krylov space is exhausted.
    run = run_of("linear")
    task = run.tasks[0]
    task.job = task.job.model_copy(update={"network": task.job.network.model_copy(update={"hidden": [1]})})
    task.weights, task.inputs = (
        [task.weights[0][:, :, :1, :3], task.weights[1][:, :, :, :1]],
        task.inputs[..., :3],
    )
    values = sharpness(task)
    first, second = (weight[0, -1].flatten() for weight in task.weights)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        margins = task.labels[0] * flat[3] * (task.inputs[0] @ flat[:3])
        return torch.nn.functional.softplus(-margins).mean() + task.weight_decay / 2 * flat.square().sum()

    hessian = torch.func.hessian(loss)(torch.cat([first, second]))
    assert values[0, -1] == pytest.approx(float(torch.linalg.eigvalsh(hessian).abs().max()), rel=1e-12)


def test_sharpness_where_the_hessian_is_zero() -> None:
    """As that of a collapsed deep network without weight decay: the first vector exhausts the space."""
    start = [torch.randn(2, 3, 4, 5, dtype=torch.float64)]
    assert torch.equal(largest_eigenvalue(lambda vector: [0 * vector[0]], start), torch.zeros(2, 3).double())


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian() -> None:
    run = run_of("linear")
    task, (values, _) = run.tasks[0], sharpnesses(run)
    for step in (0, 5, -1):
        shapes = [weight[0, step].shape for weight in task.weights]

        def loss(flat: torch.Tensor, shapes: list[torch.Size] = shapes) -> torch.Tensor:
            first, second = (
                part.view(shape)
                for part, shape in zip(flat.split([shape.numel() for shape in shapes]), shapes, strict=True)
            )
            margins = task.labels[0] * (task.inputs[0] @ first.mT @ second.mT).squeeze(-1)
            decay = task.weight_decay / 2 * flat.square().sum()
            return torch.nn.functional.softplus(-margins).mean() + decay

        flat = torch.cat([weight[0, step].flatten() for weight in task.weights])
        hessian = torch.func.hessian(loss)(flat)
        largest = float(torch.linalg.eigvalsh(hessian).abs().max())
        assert values[0, step] == pytest.approx(largest, rel=1e-6)
