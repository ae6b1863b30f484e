"""Claims about trained networks: each holds where it should, and changes its status where it is broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import data_and_networks, gaussian_job
from builders_runs import write_networks
from decaymerge import config, store
from decaymerge.claims import CLAIMS, check_experiment
from decaymerge.claims.flow import trajectories
from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Measured, Verdict, judge
from decaymerge.workflow.jobs import ClaimsJob

SEEDS = (0, 1)
SAMPLES: dict[str, Any] = {"dim": 12, "samples": 20}
DECAY = 0.02
LINEAR = {"activation": "linear", "hidden": [6], "initialisation": "balanced"}
GAUSSIAN = {"activation": "linear", "hidden": [6, 6]}
SHALLOW = {"activation": "relu", "hidden": [6], "fixed_outer_layer": True}
RELU = {"activation": "relu", "hidden": [6, 6]}
STATIONARY = {"optimiser": "gd", "step_size": 0.5, "steps": 20_000, "stationarity": 1e-9}
FLOW = {"optimiser": "gf", "step_size": 0.1, "steps": 8_000}
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "predictor": (
        {"activation": "linear", "hidden": []},
        {"optimiser": "gd", "step_size": 0.5, "steps": 500},
    ),
    "linear": (LINEAR, STATIONARY),
    "squared": (
        {"activation": "relu", "power": 2, "hidden": [6]},
        STATIONARY | {"steps": 2_000, "finish": "lbfgs"},
    ),
    "flow": (LINEAR, FLOW),
    "shallow": (SHALLOW, {"optimiser": "gd", "step_size": 0.5, "steps": 500}),
    "relu": (RELU, FLOW | {"steps": 4_000}),
    "gaussian": (GAUSSIAN, STATIONARY),
    "gaussian_flow": (GAUSSIAN, FLOW | {"steps": 1_000}),
}
DECAYS = {"squared": 3e-3}


def run_of(
    name: str,
    weight_decay: float | None = None,
    networks: Callable[[list[xr.Dataset]], list[xr.Dataset]] = list,
    network: dict[str, Any] | None = None,
) -> Run:
    """A run, of which a test may change λ, the networks, or what is said of them."""
    settings, training = NETWORKS[name]
    own_decay = DECAYS.get(name, DECAY)
    decay = own_decay if weight_decay is None else weight_decay
    training = training | {"dtype": "float64", "kept_steps": 12}
    job = ClaimsJob.model_validate(
        {
            "experiment": name,
            "task_names": ["a", "b"],
            "data": [gaussian_job(0, **SAMPLES).data] * 2,
            "network": network or settings,
            "training": training | {"weight_decay": [decay]},
            "blocks": ["0-1"],
        }
    )
    data, trained = data_and_networks(2, SEEDS, SAMPLES, network=settings, weight_decay=own_decay, **training)
    return Run(job, decay, data, networks(trained))


def verdict_on(claim: str, run: Run) -> Verdict:
    return judge(CLAIMS[claim], run, CLAIMS[claim].measure(run))


def swapped(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    return networks[::-1]


def backwards(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    """The same states in the reverse order of time."""
    return [
        network.assign(
            {
                name: (value.dims, value.values[:, ::-1].copy())
                for name, value in network.items()
                if "step" in value.dims
            }
        )
        for network in networks
    ]


def at_first(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    """An unconverged run: it stopped after a few steps."""
    return [network.isel(step=slice(0, 5)).assign(stationary=network.stationary * 0) for network in networks]


def of_full_rank(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    noise = np.random.default_rng(0)
    return [
        network.assign(W1=network.W1 + 0.1 * noise.standard_normal(network.W1.shape)) for network in networks
    ]


def rescaled(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    """The same function with unequal norms of its layers."""
    return [network.assign(W1=2 * network.W1, W2=network.W2 / 2) for network in networks]


def at_rest(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    """Networks that stay where they start."""
    return [
        network.isel(step=[0] * network.sizes["step"]).assign_coords(step=network.step)
        for network in networks
    ]


HOLD = [
    ("alignment", "linear"),
    ("alignment", "squared"),
    ("lemma1_descent", "linear"),
    ("lemma1_descent", "predictor"),
    ("rank_one", "linear"),
    ("rank_one", "gaussian"),
    ("norm_preservation", "linear"),
    ("norm_preservation", "squared"),
    ("low_rank_eq2", "linear"),
    ("low_rank_eq2", "relu"),
    ("low_rank_eq3", "linear"),
    ("low_rank_eq3", "relu"),
    ("balance", "gaussian_flow"),
    ("balance", "relu"),
    ("linear_interference", "predictor"),
    ("lemma5", "shallow"),
    ("corollary1", "shallow"),
    ("identity", "predictor"),
    ("identity", "shallow"),
    ("identity", "linear"),
    ("theorem4", "flow"),
    ("theorem1", "flow"),
    ("theorem1_orthogonal", "flow"),
    ("lemma6", "flow"),
    ("lemma7", "flow"),
    ("lemma7", "relu"),
]


@pytest.mark.parametrize(("claim", "name"), HOLD)
def test_holds(claim: str, name: str) -> None:
    verdict = verdict_on(claim, run_of(name))
    assert verdict.outcome == "holds" and verdict.kind == CLAIMS[claim].kind, verdict
    assert verdict.slack is None or verdict.slack >= 1 - 1e-6
    assert verdict.seeds == list(SEEDS) and verdict.weight_decay == DECAYS.get(name, DECAY)


BROKEN: list[tuple[str, str, dict[str, Any], str]] = [
    ("alignment", "linear", {"weight_decay": 2 * DECAY}, "not supported"),
    ("alignment", "linear", {"networks": at_first}, "assumption unmet"),
    ("lemma1_descent", "linear", {"networks": backwards}, "not supported"),
    ("lemma1_descent", "linear", {"networks": at_rest}, "not supported"),
    ("rank_one", "linear", {"networks": of_full_rank}, "assumption unmet"),
    ("norm_preservation", "linear", {"weight_decay": 2 * DECAY}, "assumption unmet"),
    ("norm_preservation", "linear", {"networks": rescaled}, "assumption unmet"),
    ("norm_preservation", "squared", {"network": {"activation": "relu", "hidden": [6]}}, "assumption unmet"),
    ("low_rank_eq2", "linear", {"networks": at_first}, "assumption unmet"),
    ("low_rank_eq3", "linear", {"weight_decay": 4 * DECAY}, "assumption unmet"),
    ("norm_preservation", "relu", {"weight_decay": 2 * DECAY}, "not supported"),
    ("low_rank_eq2", "relu", {"weight_decay": 4 * DECAY}, "not supported"),
    ("low_rank_eq3", "relu", {"weight_decay": 4 * DECAY}, "not supported"),
    ("balance", "gaussian_flow", {"weight_decay": 1.01 * DECAY}, "not supported"),
    ("balance", "gaussian_flow", {"networks": at_rest}, "not supported"),
    ("balance", "relu", {"weight_decay": 1.1 * DECAY}, "not supported"),
    ("balance", "flow", {}, "assumption unmet"),
    ("balance", "gaussian", {}, "assumption unmet"),
    ("linear_interference", "predictor", {"networks": swapped}, "not supported"),
    ("linear_interference", "predictor", {"weight_decay": 3}, "assumption unmet"),
    ("lemma5", "shallow", {"weight_decay": 3}, "assumption unmet"),
    ("lemma5", "shallow", {"networks": swapped}, "not supported"),
    ("corollary1", "shallow", {"networks": swapped}, "not supported"),
    ("identity", "predictor", {"weight_decay": 2 * DECAY}, "not supported"),
    ("identity", "shallow", {"networks": swapped}, "not supported"),
    ("theorem4", "flow", {"weight_decay": 1.1 * DECAY}, "not supported"),
    ("theorem4", "flow", {"networks": swapped}, "not supported"),
    ("theorem1", "flow", {"networks": swapped}, "not supported"),
    ("theorem1_orthogonal", "flow", {"networks": swapped}, "not supported"),
    ("theorem1_orthogonal", "flow", {"weight_decay": 1.001 * DECAY}, "not supported"),
    ("lemma6", "flow", {"networks": backwards}, "not supported"),
    ("lemma6", "flow", {"networks": at_rest}, "not supported"),
    ("lemma7", "flow", {"networks": backwards}, "not supported"),
]


@pytest.mark.parametrize(("claim", "name", "broken", "outcome"), BROKEN)
def test_what_is_broken_changes_the_outcome(
    claim: str, name: str, broken: dict[str, Any], outcome: str
) -> None:
    assert verdict_on(claim, run_of(name, **broken)).outcome == outcome


def test_lemma6_fails_where_more_is_dissipated_than_was_there() -> None:
    run = run_of("flow")
    for solved in trajectories(run):
        solved.dissipation *= 2
    assert verdict_on("lemma6", run).outcome == "not supported"


def test_alignment_of_a_network_with_kinks_shows_both_residuals() -> None:
    run = run_of("relu")
    sides = CLAIMS["alignment"].measure(run)
    assert verdict_on("alignment", run).outcome == "assumption unmet"
    plain, least = sides.measured[:, :, -1, 0], sides.measured[:, :, -1, 1]
    assert list(sides.parts) == ["plain", "minimum norm"] and (least <= plain + 1e-12).all()


def test_without_decay_stationarity_is_undefined() -> None:
    for claim in ("alignment", "rank_one", "norm_preservation", "low_rank_eq2", "low_rank_eq3"):
        verdict = verdict_on(claim, run_of("linear", weight_decay=0))
        assert verdict.outcome == "assumption unmet" and "λ = 0" in verdict.note
    assert verdict_on("linear_interference", run_of("predictor", weight_decay=0)).bound is not None


def written(results: Path, count: int, network: dict[str, Any] = RELU, **training: Any) -> ClaimsJob:
    """Files of a small experiment."""
    base = {"step_size": 0.5, "steps": 30, "kept_steps": 6, "dtype": "float64", "weight_decay": [DECAY]}
    experiment = {"tasks": {"dataset": "gaussian", **SAMPLES}, "task_count": count, "network": network}
    experiment |= {"training": base | training, "seeds": 2}
    settings = config.parse({"experiments": {"x": experiment}})
    write_networks(settings, results)
    return ClaimsJob.of(settings, "x")


def test_three_tasks_have_claims_of_all_and_of_the_first_two(tmp_path: Path) -> None:
    verdicts, traces = check_experiment(written(tmp_path, 3), tmp_path)
    assert {verdict.claim for verdict in verdicts} >= {"alignment", "identity", "norm_preservation"}
    assert traces.task.values.tolist() == ["a", "b", "c"]
    assert np.isfinite(traces.interference.sel(task=["a", "b"], side="measured")).all()
    assert np.isnan(traces.interference.sel(task="c")).all()


def test_minibatches_have_no_claims(tmp_path: Path) -> None:
    job = written(tmp_path, 2, optimiser="sgd", batch_size=10)
    verdicts, traces = check_experiment(job, tmp_path)
    assert verdicts == []
    store.write(traces, tmp_path / "claims.nc", job)
    assert store.read(tmp_path / "claims.nc", "claim").sizes["claim"] == 0


@pytest.mark.parametrize(
    "network",
    [
        {"activation": "relu", "hidden": []},
        {"activation": "linear", "hidden": [1]},
        {"activation": "linear", "hidden": [3, 1, 2]},
    ],
)
def test_the_smallest_networks_have_claims(network: dict[str, Any], tmp_path: Path) -> None:
    verdicts, _ = check_experiment(written(tmp_path, 2, network), tmp_path)
    assert {verdict.claim for verdict in verdicts} >= {"alignment", "norm_preservation"}
    assert all(np.isfinite(verdict.measured or 0) for verdict in verdicts if verdict.claim == "rank_one")


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_end_not_supported_and_its_worst_case_decides(name: str) -> None:
    """By ``judge``: one member of four off by a little is enough, whatever the others do."""
    run = run_of("linear")
    measured = np.full((2, 2, 12, 1), 0.5 if CLAIMS[name].kind != "lower" else 2.0)
    bound = np.ones_like(measured)
    holds = judge(CLAIMS[name], run, Measured(measured, bound))
    assert holds.outcome == "holds" and holds.slack == 2 and holds.median_slack == 2
    measured[1, 0, -1] = 1.01 if CLAIMS[name].kind != "lower" else 0.99
    fails = judge(CLAIMS[name], run, Measured(measured, bound))
    assert fails.outcome == "not supported" and fails.median_slack == 2
    assert judge(CLAIMS[name], run, Measured(measured, bound, unmet="x")).outcome == "assumption unmet"
