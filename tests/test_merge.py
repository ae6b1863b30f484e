"""Merging and evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from decaymerge import tasks
from decaymerge.config.experiment import Network
from decaymerge.errors import UserError
from decaymerge.evaluate import evaluate
from decaymerge.merge import merge
from decaymerge.workflow.jobs import EvaluateJob, MergeJob
from test_tasks import gaussian_job
from test_train import train, train_job, trained

CPU = torch.device("cpu")
SCALED = {"method": "scaled", "coefficient": 0.7}


def merged(networks: list[xr.Dataset], methods: list[Any]) -> xr.Dataset:
    return merge(MergeJob.model_validate({"methods": methods, "trained": 3}), networks)


def evaluate_job(names: list[str]) -> EvaluateJob:
    network = Network(hidden=[10, 8])
    pair = "+".join(names)
    return EvaluateJob(
        pair=pair, tasks=names, weight_decay=1e-3, network=network, loss="logistic", margin=1.0
    )


@pytest.fixture(scope="module")
def data() -> list[xr.Dataset]:
    return [tasks.make(gaussian_job(index, count=3, dim=12), []) for index in range(3)]


@pytest.fixture(scope="module")
def networks(data: list[xr.Dataset]) -> list[xr.Dataset]:
    return [train(train_job(task=name), task, CPU) for name, task in zip("abc", data, strict=True)]


def test_methods(networks: list[xr.Dataset]) -> None:
    found = merged(networks[:2], ["sum", "average", SCALED])
    assert found.model.values.tolist() == ["sum", "average", "scaled=0.7"]
    assert found.W2.dims == ("model", "seed", "step", "out_2", "in_2")
    total = networks[0].W2 + networks[1].W2
    for model, factor in (("sum", 1), ("average", 0.5), ("scaled=0.7", 0.7)):
        np.testing.assert_allclose(found.W2.sel(model=model), factor * total, rtol=1e-6)
    assert found.W1.dtype == np.float32


def test_sum_of_all_and_of_one(networks: list[xr.Dataset]) -> None:
    np.testing.assert_allclose(
        merged(networks, ["sum"]).W1[0], networks[0].W1 + networks[1].W1 + networks[2].W1, rtol=1e-6
    )
    np.testing.assert_array_equal(merged(networks[:1], ["sum", "average"]).W1[1], networks[0].W1)


def test_networks_of_other_seeds_are_refused(networks: list[xr.Dataset]) -> None:
    with pytest.raises(UserError, match="do not merge"):
        merged([networks[0], trained(seeds=(1, 2))], ["sum"])
    with pytest.raises(UserError, match="do not merge"):
        merged([networks[0], trained(network={"activation": "relu", "hidden": [10, 9]})], ["sum"])


def test_evaluation_against_plain_numpy(data: list[xr.Dataset], networks: list[xr.Dataset]) -> None:
    job = evaluate_job(["a", "b"])
    both = merged(networks[:2], ["sum", "average"])
    found = evaluate(job, data[:2], networks[:2], both, CPU)
    assert found.loss.dims == ("seed", "step", "model", "task")
    assert found.stable_rank.dims == ("seed", "step", "model", "task", "layer")
    assert found.model.values.tolist() == ["own", "sum", "average"] and found.layer.values.tolist() == [
        1,
        2,
        3,
    ]
    for t, task in enumerate("ab"):
        for model in ("own", "sum", "average"):
            source = networks[t] if model == "own" else both.sel(model=model)
            for seed in (0, 1):
                at = {"seed": seed, "step": 200}
                w1, w2, w3 = (source[f"W{k}"].sel(at).values.astype(float) for k in (1, 2, 3))
                x, y = data[t].inputs.sel(seed=seed).values, data[t].labels.sel(seed=seed).values
                z = y * (np.maximum(np.maximum(x @ w1.T, 0) @ w2.T, 0) @ w3.T)[:, 0]
                point = found.sel(at | {"model": model, "task": task})
                assert float(point.loss) == pytest.approx(np.log1p(np.exp(-z)).mean(), rel=1e-5)
                assert float(point.error) == pytest.approx((z <= 0).mean(), abs=1e-6)
                assert float(point.margin_error) == pytest.approx((z < 1).mean(), abs=1e-6)
                for k, weight in enumerate((w1, w2, w3), start=1):
                    values = np.linalg.svd(weight, compute_uv=False)
                    layer = point.sel(layer=k)
                    assert float(layer.spectral_norm) == pytest.approx(values[0], rel=1e-6)
                    assert float(layer.frobenius_norm) == pytest.approx(np.sqrt((values**2).sum()), rel=1e-6)
                    assert float(layer.stable_rank) == pytest.approx(
                        (values**2).sum() / values[0] ** 2, rel=1e-5
                    )
                    assert float(layer.norm_ratio) == pytest.approx(float(layer.stable_rank) ** 0.5, rel=1e-9)
    np.testing.assert_allclose(found.loss.sel(model="own", task="a"), networks[0].loss, rtol=1e-5)


def test_evaluation_of_networks_that_do_not_belong_together(
    data: list[xr.Dataset], networks: list[xr.Dataset]
) -> None:
    job = evaluate_job(["a", "b"])
    last = networks[1].step.size - 1
    other = networks[1].assign_coords(step=[*networks[1].step.values[:last], 300])
    with pytest.raises(UserError, match=r"the networks of a\+b were kept at different steps: "):
        evaluate(job, data[:2], [networks[0], other], None, CPU)
    deeper = job.model_copy(update={"network": Network(hidden=[10, 8, 8])})
    with pytest.raises(UserError, match="are not of the 4 layers"):
        evaluate(deeper, data[:2], networks[:2], None, CPU)
    with pytest.raises(UserError, match=r"gap_by_layer: true needs the sum of a\+b"):
        evaluate(job.model_copy(update={"gap_by_layer": True}), data[:2], networks[:2], None, CPU)


def test_single_task_has_own_alone(data: list[xr.Dataset], networks: list[xr.Dataset]) -> None:
    assert evaluate(evaluate_job(["a"]), data[:1], networks[:1], None, CPU).model.values.tolist() == ["own"]
