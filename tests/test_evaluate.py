"""Evaluation: against plain numpy, and of files that do not belong together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import CPU, RELU, data_and_networks
from decaymerge.errors import UserError
from decaymerge.evaluate import evaluate
from decaymerge.merge import merge
from decaymerge.workflow.jobs import EvaluateJob, MergeJob

LAYERS = (1, 2, 3)


def evaluate_job(names: list[str], **settings: Any) -> EvaluateJob:
    base = {"merge_set": "+".join(names), "task_names": names, "weight_decay": 1e-3, "network": RELU}
    return EvaluateJob.model_validate(base | {"loss": "logistic", "margin": 1.0} | settings)


@pytest.fixture(scope="module")
def data() -> list[xr.Dataset]:
    return data_and_networks(3)[0]


@pytest.fixture(scope="module")
def networks() -> list[xr.Dataset]:
    return data_and_networks(3)[1]


def reference_evaluation(
    data: Sequence[xr.Dataset], networks: Sequence[xr.Dataset], merged: xr.Dataset
) -> xr.Dataset:
    """Losses, errors, norms and ranks in numpy, at one seed, step, model and task at a time."""
    models = ["own", *merged.model.values.tolist()]
    dims = ("seed", "step", "model", "task")
    shape = (merged.sizes["seed"], merged.sizes["step"], len(models), len(data))
    names = ("loss", "error", "test_loss", "test_error", "margin_error", "largest_output")
    losses = {name: np.full(shape, np.nan) for name in names}
    norms = {
        name: np.empty((*shape, len(LAYERS)))
        for name in ("frobenius_norm", "spectral_norm", "norm_ratio", "stable_rank")
    }
    for place in np.ndindex(shape):
        seed, step, model, task = place
        source = networks[task] if model == 0 else merged.isel(model=model - 1)
        w1, w2, w3 = (source[f"W{k}"].values[seed, step].astype(float) for k in LAYERS)
        for prefix in ("test_", "") if "test_inputs" in data[task] else ("",):
            x, y = (data[task][f"{prefix}{name}"].values[seed] for name in ("inputs", "labels"))
            z = y * (np.maximum(np.maximum(x @ w1.T, 0) @ w2.T, 0) @ w3.T)[:, 0]
            losses[f"{prefix}loss"][place] = np.log1p(np.exp(-z)).mean()
            losses[f"{prefix}error"][place] = (z <= 0).mean()
        losses["margin_error"][place] = (z < 1).mean()
        losses["largest_output"][place] = np.abs(z).max()
        for layer, weight in enumerate((w1, w2, w3)):
            values = np.linalg.svd(weight, compute_uv=False)
            norms["frobenius_norm"][place][layer] = np.sqrt((values**2).sum())
            norms["spectral_norm"][place][layer] = values[0]
            norms["norm_ratio"][place][layer] = np.sqrt((values**2).sum()) / values[0]
            norms["stable_rank"][place][layer] = (values**2).sum() / values[0] ** 2
    return xr.Dataset(
        {name: (dims, values) for name, values in losses.items()}
        | {name: ((*dims, "layer"), values) for name, values in norms.items()},
        {
            "seed": merged.seed,
            "step": merged.step,
            "model": models,
            "task": ["a", "b"],
            "layer": list(LAYERS),
        },
    )


def test_evaluation_against_plain_numpy(data: list[xr.Dataset], networks: list[xr.Dataset]) -> None:
    merged = merge(MergeJob.model_validate({"methods": ["sum", "average"], "network": RELU}), networks[:2])
    evaluation = evaluate(evaluate_job(["a", "b"]), data[:2], networks[:2], merged, CPU)
    reference = reference_evaluation(data[:2], networks[:2], merged)
    xr.testing.assert_allclose(evaluation.drop_attrs(), reference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evaluation.loss.sel(model="own", task="a"), networks[0].loss, rtol=1e-5)
    assert (evaluation.test_loss != evaluation.loss).all()
    assert "held-out" in evaluation.test_loss.long_name and "held-out" in evaluation.test_error.long_name


def test_task_without_test_data_next_to_one_with_them(
    data: list[xr.Dataset], networks: list[xr.Dataset]
) -> None:
    merged = merge(MergeJob.model_validate({"methods": ["sum"], "network": RELU}), networks[:2])
    mixed = [data[0], data[1].drop_vars(["test_inputs", "test_labels"])]
    evaluation = evaluate(evaluate_job(["a", "b"]), mixed, networks[:2], merged, CPU)
    xr.testing.assert_allclose(
        evaluation.drop_attrs(), reference_evaluation(mixed, networks[:2], merged), rtol=1e-5, atol=1e-6
    )
    for name in ("test_loss", "test_error"):
        assert (
            evaluation[name].sel(task="a").notnull().all() and evaluation[name].sel(task="b").isnull().all()
        )
    all_given = evaluate(evaluate_job(["a", "b"]), data[:2], networks[:2], merged, CPU)
    others = [name for name in evaluation if not str(name).startswith("test_")]
    xr.testing.assert_identical(evaluation[others], all_given[others])


def test_networks_err_on_test_data_whose_labels_they_cannot_know() -> None:
    """Networks that fit random labels have a test error of 50%; those that fit a linear rule generalise."""
    errors = {}
    for labels in ("random", "linear"):
        data, networks = data_and_networks(
            1, data={"labels": labels, "samples": 30, "test_samples": 1000}, steps=2000, weight_decay=1e-4
        )
        errors[labels] = evaluate(evaluate_job(["a"]), data, networks, None, CPU).isel(step=-1)
    assert errors["random"].error.max() == 0 and errors["linear"].error.max() == 0
    np.testing.assert_allclose(errors["random"].test_error, 0.5, atol=0.05)
    assert errors["linear"].test_error.max() < 0.35


def test_evaluation_of_networks_that_do_not_belong_together(
    data: list[xr.Dataset], networks: list[xr.Dataset]
) -> None:
    job = evaluate_job(["a", "b"])
    last = networks[1].step.size - 1
    other = networks[1].assign_coords(step=[*networks[1].step.values[:last], 300])
    with pytest.raises(UserError, match=r"the networks of a\+b were kept at different steps: "):
        evaluate(job, data[:2], [networks[0], other], None, CPU)
    with pytest.raises(UserError, match=r"the files of a\+b hold different seeds: "):
        evaluate(job, [data[0], data[1].isel(seed=[0])], networks[:2], None, CPU)
    with pytest.raises(UserError, match="1 files of data and 2 of networks were given for the tasks a, b"):
        evaluate(job, data[:1], networks[:2], None, CPU)
    deeper = evaluate_job(["a", "b"], network=RELU | {"hidden": [10, 8, 8]})
    with pytest.raises(UserError, match=r"have \[3, 3\] layers, but the settings ask for 4"):
        evaluate(deeper, data[:2], networks[:2], None, CPU)
    with pytest.raises(UserError, match=r"gap_by_layer: true needs the sum of a\+b"):
        evaluate(evaluate_job(["a", "b"], gap_by_layer=True), data[:2], networks[:2], None, CPU)


def test_single_task_has_own_alone(data: list[xr.Dataset], networks: list[xr.Dataset]) -> None:
    assert evaluate(evaluate_job(["a"]), data[:1], networks[:1], None, CPU).model.values.tolist() == ["own"]
