"""The counterexample to Theorem 2: its formulas, the flow that reaches it, and claims that fail if it is broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import CPU, network_of, train_job
from builders_runs import write_networks
from decaymerge import config, tasks, train
from decaymerge.claims import CLAIMS, counterexample
from decaymerge.claims.counterexample import (
    deviations,
    predicted_deviations,
    stationary_network,
    stationary_weight,
)
from decaymerge.claims.networks import Run, read_runs
from decaymerge.claims.verdict import Verdict, judge
from decaymerge.errors import UserError
from decaymerge.network import initialise
from decaymerge.workflow.jobs import ClaimsJob, TasksJob

UNITS = {2: [1], 3: [1, 1], 4: [1, 1, 1]}
FLOW = {"optimiser": "gf", "step_size": 0.05, "steps": 4000, "solver_tolerance": 1e-8, "dtype": "float64"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Run]]:
    """Trained networks of two and three layers, at two λ."""
    folder = tmp_path_factory.mktemp("counterexample")
    experiments = {
        f"depth{depth}": {
            "tasks": {"dataset": "axes"},
            "network": {"hidden": UNITS[depth], "initialisation": "positive"},
            "training": {**FLOW, "weight_decay": [0.1, 0.2]},
            "seeds": 2,
        }
        for depth in (2, 3)
    }
    settings = config.parse({"experiments": experiments})
    write_networks(settings, folder)
    return {depth: list(read_runs(ClaimsJob.of(settings, f"depth{depth}"), folder)) for depth in (2, 3)}


def verdict_on(claim: str, run: Run) -> Verdict:
    assert CLAIMS[claim].applies(run.job)
    return judge(CLAIMS[claim], run, CLAIMS[claim].measure(run))


@pytest.mark.parametrize("depth", [2, 3])
def test_it_holds_and_contradicts_the_theorem(depth: int, runs: dict[int, list[Run]]) -> None:
    for run in runs[depth]:
        sides = CLAIMS["theorem2_counterexample"].measure(run)
        exact, reached = sides.measured[:, :, -1, :2], sides.measured[:, :, -1, 2:]
        assert exact.max() <= 1e-12 and reached.max() <= 1e-6
        assert verdict_on("theorem2_counterexample", run).outcome == "holds"
        if depth > 2:
            assert verdict_on("theorem2", run).outcome == "not supported"
            lemma8 = verdict_on("lemma8", run)
            assert lemma8.outcome == "not supported" and lemma8.measured == pytest.approx(1)


def test_it_fails_where_the_flow_did_not_arrive_or_the_formula_is_another(
    runs: dict[int, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[3][0]
    for task in run.tasks:
        task.weights[2] = task.weights[2] * 1.001
    assert verdict_on("theorem2_counterexample", run).outcome == "not supported"
    run = runs[3][1]
    monkeypatch.setattr(
        counterexample, "predicted_deviations", lambda own, other, depth: np.full(depth, other / own)
    )
    assert verdict_on("theorem2_counterexample", run).outcome == "not supported"
    monkeypatch.undo()
    monkeypatch.setattr(counterexample, "stationary_weight", lambda depth, weight_decay: 1.1)
    assert verdict_on("theorem2_counterexample", run).outcome == "not supported"


def test_above_collapse_the_assumption_is_unmet(runs: dict[int, list[Run]]) -> None:
    run = runs[2][1]
    run.weight_decay = 0.6
    assert verdict_on("theorem2_counterexample", run).outcome == "assumption unmet"


def test_the_weights_are_those_of_the_formula() -> None:
    assert stationary_weight(2, 0.1) == pytest.approx(np.log(9) ** 0.5, rel=1e-14)
    assert stationary_weight(3, 0.1) == pytest.approx(1.364, abs=5e-4)
    assert stationary_weight(2, 0.4999) is not None and stationary_weight(2, 0.5) is None
    assert stationary_weight(3, 0.2998) is not None and stationary_weight(3, 0.2999) is None
    for depth in UNITS:
        for weight_decay in (1e-6, 1e-3, 0.25):
            s = stationary_weight(depth, weight_decay)
            assert s is not None
            assert weight_decay * (1 + np.exp(s**depth)) == pytest.approx(s ** (depth - 2), rel=1e-12)


def loss_of(depth: int, weight_decay: float, axis: int, flat: torch.Tensor) -> torch.Tensor:
    """L_λ of one unit a layer, as the formula says it; W_1 is the first two entries."""
    output = flat[axis].relu()
    for weight in flat[2:]:
        output = (weight * output).relu()
    return torch.nn.functional.softplus(-output) + weight_decay / 2 * flat.square().sum()


@pytest.mark.parametrize("depth", UNITS)
@pytest.mark.parametrize("weight_decay", [0.01, 0.1, 0.25])
def test_they_are_a_strict_minimum_by_autograd(depth: int, weight_decay: float) -> None:
    """The gradient vanishes and the Hessian is positive: the larger root is the one that a flow comes to."""
    s = stationary_weight(depth, weight_decay)
    assert s is not None
    for axis in (0, 1):
        flat = torch.cat([layer.flatten() for layer in stationary_network(s, depth, axis)])

        def loss(point: torch.Tensor, axis: int = axis) -> torch.Tensor:
            return loss_of(depth, weight_decay, axis, point)

        assert float(torch.func.grad(loss)(flat).abs().max()) < 1e-12
        assert float(torch.linalg.eigvalsh(torch.func.hessian(loss)(flat)).min()) > 0


@pytest.mark.parametrize("depth", UNITS)
def test_one_of_two_merged_outputs_is_off_by_its_own_size_or_more(depth: int) -> None:
    network = network_of("relu", 1.0, UNITS[depth])
    roots = [stationary_weight(depth, decay) for decay in np.geomspace(1e-4, 0.27, 12)]
    weights = [root for root in roots if root is not None]
    for s in weights:
        for other in weights:
            seen = [
                deviations(
                    network,
                    stationary_network(own, depth, axis),
                    stationary_network(partner, depth, 1 - axis),
                    torch.eye(2, dtype=torch.float64)[axis : axis + 1],
                )
                for own, partner, axis in ((s, other, 0), (other, s, 1))
            ]
            np.testing.assert_allclose(seen[0], predicted_deviations(s, other, depth), rtol=1e-12, atol=1e-12)
            assert max(float(values[-1]) for values in seen) >= 2 ** (depth - 1) - 1 - 1e-12
    assert predicted_deviations(1.0, 1.0, 3).tolist() == [0, 1, 3]


@pytest.mark.parametrize("weight_decay", [0.05, 0.25])
def test_positive_starts_are_in_the_basin(weight_decay: float) -> None:
    """Thirty starts of each depth flow to the larger root."""
    seeds = list(range(30))
    for depth in (2, 3):
        data = tasks.make(axes_job(seeds), [])
        network = {"hidden": UNITS[depth], "initialisation": "positive"}
        steps = {"steps": int(30 / weight_decay / 0.05), "solver_tolerance": 1e-5}
        job = train_job(network=network, weight_decay=weight_decay, **FLOW | steps)
        trained = train.train(job, data, CPU).isel(step=-1)
        s = stationary_weight(depth, weight_decay)
        assert s is not None
        for k in range(2, depth + 1):
            np.testing.assert_allclose(trained[f"W{k}"].values.ravel(), s, rtol=1e-3)


def axes_job(seeds: list[int], **settings: Any) -> TasksJob:
    base = {"experiment": "x", "task": "b", "seeds": seeds, "index": 1, "task_count": 3}
    return TasksJob.model_validate(base | {"data": {"dataset": "axes"}} | settings)


def test_axes_are_unit_vectors_with_the_label_one(tmp_path: Path) -> None:
    data = tasks.make(axes_job([0, 1]), [])
    assert data.inputs.values.tolist() == [[[0, 1, 0]]] * 2 and data.labels.values.tolist() == [[1]] * 2
    with pytest.raises(UserError, match="needs no files"):
        tasks.make(axes_job([0]), [tmp_path / "x.nc"])


def test_positive_weights_have_norm_two() -> None:
    network = network_of("relu", 1.0, [7, 5], initialisation="positive")
    for weight in initialise(network, 4, np.random.default_rng(0)):
        assert (weight > 0).all() and np.linalg.norm(weight) == pytest.approx(2)
