"""Claims about trained networks: each holds where it should, and changes its status where it is broken."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from decaymerge import store, tasks
from decaymerge.claims import CLAIMS, check_experiment
from decaymerge.claims.flow import trajectories
from decaymerge.claims.networks import Run
from decaymerge.claims.verdict import Measured, judge
from decaymerge.workflow.jobs import ClaimsJob
from test_tasks import gaussian_job
from test_train import CPU, train, train_job

SEEDS = (0, 1)
DECAY = 0.02
LINEAR = {"activation": "linear", "hidden": [6], "initialisation": "balanced"}
SHALLOW = {"activation": "relu", "hidden": [6], "fixed_outer_layer": True}
RELU = {"activation": "relu", "hidden": [6, 6]}
STATIONARY = {"method": "gd", "step_size": 0.5, "steps": 20_000, "stationarity": 1e-9}
FLOW = {"method": "gf", "step_size": 0.1, "steps": 8_000}
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "predictor": ({"activation": "linear", "hidden": []}, {"method": "gd", "step_size": 0.5, "steps": 500}),
    "linear": (LINEAR, STATIONARY),
    "squared": (
        {"activation": "relu", "power": 2, "hidden": [6]},
        STATIONARY | {"steps": 2_000, "finish": "lbfgs"},
    ),
    "flow": (LINEAR, FLOW),
    "shallow": (SHALLOW, {"method": "gd", "step_size": 0.5, "steps": 500}),
    "relu": (RELU, FLOW | {"steps": 1_000}),
}
DECAYS = {"squared": 3e-3}


@cache
def files(name: str) -> tuple[list[xr.Dataset], list[xr.Dataset]]:
    """Data and networks of two tasks without overlap."""
    network, training = NETWORKS[name]
    data = [tasks.make(gaussian_job(index, seeds=SEEDS, dim=12, samples=20), []) for index in range(2)]
    settings = {"network": network, "dtype": "float64", "checkpoints": 12} | training
    weight_decay = DECAYS.get(name, DECAY)
    jobs = [train_job(task=task, weight_decay=weight_decay, **settings) for task in "ab"]
    return data, [train(job, one, CPU) for job, one in zip(jobs, data, strict=True)]


def run_of(
    name: str,
    weight_decay: float | None = None,
    networks: Callable[[list[xr.Dataset]], list[xr.Dataset]] = list,
    network: dict[str, Any] | None = None,
) -> Run:
    """A run, of which a test may change λ, the networks, or what is said of them."""
    settings, training = NETWORKS[name]
    decay = DECAYS.get(name, DECAY) if weight_decay is None else weight_decay
    job = ClaimsJob.model_validate(
        {
            "experiment": name,
            "tasks": ["a", "b"],
            "data": [gaussian_job(0, dim=12, samples=20).settings] * 2,
            "network": network or settings,
            "training": training | {"weight_decay": [decay], "dtype": "float64", "checkpoints": 12},
            "blocks": ["0-1"],
        }
    )
    data, trained = files(name)
    return Run(job, decay, data, networks(trained))


def check(claim: str, run: Run) -> Check:
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


def second_is_zero(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    zero = networks[1].assign({name: 0 * networks[1][name] for name in ("W1", "W2", "W3")})
    return [networks[0], zero]


HOLD = [
    ("alignment", "linear", "equality"),
    ("alignment", "squared", "equality"),
    ("rank_one", "linear", "equality"),
    ("norm_preservation", "linear", "equality"),
    ("norm_preservation", "squared", "equality"),
    ("low_rank_eq2", "linear", "bound holds"),
    ("low_rank_eq3", "linear", "bound holds"),
    ("linear_interference", "predictor", "bound holds"),
    ("lemma5", "shallow", "bound holds"),
    ("corollary1", "shallow", "bound holds"),
    ("identity", "predictor", "equality"),
    ("identity", "shallow", "equality"),
    ("identity", "linear", "equality"),
    ("theorem4", "flow", "equality"),
    ("theorem1", "flow", "bound holds"),
    ("lemma6", "flow", "bound holds"),
    ("lemma7", "flow", "bound holds"),
    ("lemma7", "relu", "bound holds"),
]


@pytest.mark.parametrize(("claim", "name", "status"), HOLD)
def test_holds(claim: str, name: str, status: str) -> None:
    found = check(claim, run_of(name))
    assert found.status == status, found
    assert found.slack is None or found.slack >= 1 - 1e-6
    assert found.seeds == list(SEEDS) and found.weight_decay == DECAYS.get(name, DECAY)


BROKEN: list[tuple[str, str, dict[str, Any], str]] = [
    ("alignment", "linear", {"weight_decay": 2 * DECAY}, "not supported"),
    ("alignment", "linear", {"networks": at_first}, "assumption unmet"),
    ("rank_one", "linear", {"networks": of_full_rank}, "assumption unmet"),
    ("norm_preservation", "linear", {"weight_decay": 2 * DECAY}, "assumption unmet"),
    ("norm_preservation", "linear", {"networks": rescaled}, "assumption unmet"),
    ("norm_preservation", "squared", {"network": {"activation": "relu", "hidden": [6]}}, "assumption unmet"),
    ("low_rank_eq2", "linear", {"networks": at_first}, "assumption unmet"),
    ("low_rank_eq3", "linear", {"weight_decay": 4 * DECAY}, "assumption unmet"),
    ("linear_interference", "predictor", {"networks": swapped}, "not supported"),
    ("lemma5", "shallow", {"networks": swapped}, "not supported"),
    ("corollary1", "shallow", {"networks": swapped}, "not supported"),
    ("identity", "predictor", {"weight_decay": 2 * DECAY}, "not supported"),
    ("identity", "shallow", {"networks": swapped}, "not supported"),
    ("theorem4", "flow", {"weight_decay": 1.1 * DECAY}, "not supported"),
    ("theorem4", "flow", {"networks": swapped}, "not supported"),
    ("theorem1", "flow", {"networks": swapped}, "not supported"),
    ("lemma7", "flow", {"networks": backwards}, "not supported"),
]


@pytest.mark.parametrize(("claim", "name", "broken", "status"), BROKEN)
def test_what_is_broken_changes_the_status(
    claim: str, name: str, broken: dict[str, Any], status: str
) -> None:
    assert check(claim, run_of(name, **broken)).status == status


def test_lemma6_fails_where_more_is_dissipated_than_was_there() -> None:
    run = run_of("flow")
    for solved in trajectories(run):
        solved.dissipation *= 2
    assert check("lemma6", run).status == "not supported"


@pytest.mark.parametrize("claim", ["lemma8", "theorem2"])
def test_activations_of_two_tasks(claim: str) -> None:
    """Networks trained on two tasks interfere; one beside a network of zeros cannot."""
    assert check(claim, run_of("relu")).status == "not supported"
    alone = run_of("relu", networks=second_is_zero)
    found = CLAIMS[claim].measure(alone)
    assert np.nanmax(found.measured[0, :, -1]) == 0
    assert judge(
        CLAIMS[claim], alone, found._replace(measured=found.measured[:1], bound=found.bound[:1])
    ).status == ("assumption unmet" if found.unmet else "bound holds")


def test_alignment_of_a_network_with_kinks_shows_both_residuals() -> None:
    run = run_of("relu")
    found = CLAIMS["alignment"].measure(run)
    assert check("alignment", run).status == "assumption unmet"
    plain, least = found.measured[:, :, -1, 0], found.measured[:, :, -1, 1]
    assert list(found.parts) == ["plain", "minimum norm"] and (least <= plain + 1e-12).all()


def test_without_decay_stationarity_is_undefined() -> None:
    for claim in ("alignment", "rank_one", "norm_preservation", "low_rank_eq2", "low_rank_eq3"):
        found = check(claim, run_of("linear", weight_decay=0))
        assert found.status == "assumption unmet" and "λ = 0" in found.note
    assert check("linear_interference", run_of("predictor", weight_decay=0)).bound is not None


def written(folder: Path, **settings: Any) -> ClaimsJob:
    """Files of a small experiment, where the workflow would put them."""
    names = "abc"[: settings.pop("count")]
    base = {"network": RELU, "dtype": "float64", "steps": 30, "weight_decay": DECAY}
    job = train_job(**(base | settings))
    for index, task in enumerate(names):
        data = tasks.make(gaussian_job(index, count=len(names), seeds=SEEDS, dim=12, samples=20), [])
        store.write(data, folder / f"tasks/{task}/seeds=0-1.nc", job)
        network = train(job.model_copy(update={"task": task}), data, CPU)
        store.write(network, folder / f"train/{task}/weight_decay={DECAY}/seeds=0-1.nc", job)
    training = job.model_dump(include={"method", "step_size", "steps", "checkpoints", "batch_size", "dtype"})
    return ClaimsJob.model_validate(
        {
            "experiment": "x",
            "tasks": list(names),
            "data": [gaussian_job(0, count=len(names), dim=12, samples=20).settings] * len(names),
            "network": job.network,
            "training": training | {"weight_decay": [DECAY]},
            "blocks": ["0-1"],
        }
    )


def test_three_tasks_have_claims_of_all_and_of_the_first_two(tmp_path: Path) -> None:
    checks, traces = check_experiment(written(tmp_path, count=3), tmp_path)
    assert {check.claim for check in checks} >= {"alignment", "identity", "norm_preservation"}
    assert traces.task.values.tolist() == ["a", "b", "c"]
    assert np.isfinite(traces.interference.sel(task=["a", "b"], side="measured")).all()
    assert np.isnan(traces.interference.sel(task="c")).all()


def test_minibatches_have_no_claims(tmp_path: Path) -> None:
    job = written(tmp_path, count=2, method="sgd", batch_size=10)
    checks, traces = check_experiment(job, tmp_path)
    assert checks == []
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
    checks, _ = check_experiment(written(tmp_path, count=2, network=network), tmp_path)
    assert {check.claim for check in checks} >= {"alignment", "norm_preservation"}
    assert all(np.isfinite(check.measured or 0) for check in checks if check.claim == "rank_one")


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_end_not_supported_and_its_worst_case_decides(name: str) -> None:
    """By ``judge``: one member of four off by a little is enough, whatever the others do."""
    run = run_of("linear")
    measured = np.full((2, 2, 12, 1), 0.5 if CLAIMS[name].kind != "lower" else 2.0)
    bound = np.ones_like(measured)
    holds = judge(CLAIMS[name], run, Measured(measured, bound))
    assert holds.status in ("equality", "bound holds") and holds.slack == 2 and holds.median_slack == 2
    measured[1, 0, -1] = 1.01 if CLAIMS[name].kind != "lower" else 0.99
    fails = judge(CLAIMS[name], run, Measured(measured, bound))
    assert fails.status == "not supported" and fails.median_slack == 2
    assert judge(CLAIMS[name], run, Measured(measured, bound, unmet="x")).status == "assumption unmet"
