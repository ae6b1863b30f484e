"""The tables of the pages are those of ``docs/numbers``, and a number that leaves its interval is noticed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

import markdown_tables
import minilm_tables
import page_tables
import run_numbers
from decaymerge import store
from decaymerge.hypotheses import HYPOTHESES
from decaymerge.statistics import interval


@pytest.mark.parametrize("page", page_tables.PAGES, ids=lambda page: page.name)
def test_tables_are_written_from_the_numbers(page: Path) -> None:
    text = page.read_text()
    assert page_tables.written(text) == text, "python docs/hooks/page_tables.py"


def test_intervals_have_two_digits() -> None:
    row = pd.Series({"mean": 0.123456, "low": 0.1, "high": 0.147})
    assert markdown_tables.with_interval(row) == "0.123 ± 0.023"
    assert markdown_tables.with_interval(row, factor=100) == "12.3 ± 2.3"
    assert markdown_tables.with_interval(pd.Series({"mean": 0.0, "low": 0.0, "high": 0.0})) == "0"


def write_run(results: Path, mean: float, outcome: str) -> None:
    """A run with one number, one verdict, and data of 100 samples of one task."""
    place = results / "x/tasks/a/seeds=0-9.nc"
    place.parent.mkdir(parents=True, exist_ok=True)
    xr.Dataset({"labels": (("seed", "sample"), np.ones((10, 100)))}).to_netcdf(place)
    row = {"quantity": "loss", "merge_set": "a+b", "weight_decay": 1e-3, "model": "own", "task": "mean"}
    numbers = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 10, "collapsed": 0}
    numbers |= {"change": 0.1, "change_low": 0.0, "change_high": 0.2, "change_n": 10}
    store.write_table(pd.DataFrame([row | numbers]), results / "x/table.csv")
    effect = {"hypothesis": "h", "experiment": "x", "samples": "test", "mean": mean, "low": 0.0, "high": 9.0}
    store.write_table(
        pd.DataFrame([effect | {"n": 10, "p": 0.1, "outcome": outcome}]), results / "hypotheses.csv"
    )


def test_a_number_that_leaves_its_interval_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path / "results", 1.0, "holds")
    run_numbers.collect(tmp_path / "results", tmp_path / "kept")
    for mean, outcome, outside in [(1.05, "holds", False), (1.2, "holds", True), (1.05, "undecided", True)]:
        write_run(tmp_path / "results", mean, outcome)
        compared = run_numbers.compare(tmp_path / "results", tmp_path / "kept")
        assert (not compared.inside.all()) == outside, compared
    (tmp_path / "results/hypotheses.csv").unlink()
    assert not run_numbers.compare(
        tmp_path / "results", tmp_path / "kept"
    ).inside.all()  # a number is missing


def test_an_error_of_zero_has_an_upper_limit(tmp_path: Path) -> None:
    write_run(tmp_path / "results", 1.0, "holds")
    table = store.read_table(tmp_path / "results/x/table.csv")
    store.write_table(table.assign(quantity="error", mean=0, low=0, high=0), tmp_path / "results/x/table.csv")
    run_numbers.collect(tmp_path / "results", tmp_path / "kept")
    row = store.read_table(tmp_path / "kept/x.csv").iloc[0]
    assert (row.low, row.high) == (0, 3 / (100 * 10))
    assert markdown_tables.with_interval(row, factor=100) == "0 (< 0.3)"


def rows_of(name: str, run: str = "default") -> pd.DataFrame:
    return store.read_table(run_numbers.NUMBERS / run / f"{name}.csv")


def test_what_the_results_page_says_of_the_hypotheses() -> None:
    verdicts = rows_of("hypotheses")
    synthetic = verdicts[verdicts.experiment != "fashion_mnist"]
    assert set(synthetic.outcome) == {"holds"} and set(synthetic.hypothesis) == set(HYPOTHESES)
    images = verdicts[verdicts.experiment == "fashion_mnist"].set_index("hypothesis").outcome
    assert images["decay_lowers_the_rank"] == "holds"
    assert set(images["decay_closes_the_gap"]) == {"undecided"}


def linear_labels(quantity: str, weight_decay: float, run: str = "default") -> pd.Series:
    table = rows_of("labels_linear", run)
    return table[(table.quantity == quantity) & (table.weight_decay == weight_decay)].iloc[0]


def test_what_the_results_page_says_of_other_seeds() -> None:
    compared = run_numbers.against(run_numbers.NUMBERS / "seeds", run_numbers.NUMBERS / "default")
    means = compared[compared.sampled == True]  # noqa: E712 - NaN where a number is missing on one side
    assert means.inside.mean() == pytest.approx(0.86, abs=0.005)
    runs = [
        rows_of("hypotheses", run).set_index(["hypothesis", "experiment", "samples"]).outcome
        for run in ("default", "seeds")
    ]
    changed = {key: (runs[0][key], runs[1][key]) for key in runs[0].index if runs[0][key] != runs[1][key]}
    closes, solves = "decay_closes_the_gap", "sums_solve_independent_tasks"
    assert changed == {
        (closes, "fashion_mnist", "training"): ("undecided", "holds"),
        (closes, "fashion_mnist", "test"): ("undecided", "holds"),
        (solves, "weight_decay", "test"): ("holds", "undecided"),
    }
    default, seeds = (rows_of("claims", run) for run in ("default", "seeds"))
    ours_since = {"least_squares_projects", "sum_approaches_least_squares", "least_squares_reproduces"}
    default = default[(default.experiment != "few_samples") & ~default.claim.isin(ours_since)]
    outcomes = [claims.groupby(["claim", "outcome"]).size() for claims in (default, seeds)]
    assert outcomes[0].equals(outcomes[1])


def test_what_the_results_page_says_of_figure_2() -> None:
    for name in ("labels_linear", "labels_quadratic"):
        table = rows_of(name)
        ratio = table[table.quantity == "inverse_norm_ratio"].set_index("weight_decay")
        assert (ratio.loc[[1e-4, 1e-3, 3e-3]].change_low > 0).all(), "the ratio grows up to λ = 3e-3"
    fall = linear_labels("inverse_norm_ratio", 1e-2)
    assert fall.change_high < 0 and (fall.rises, fall.change_n, fall.collapsed) == (0, 10, 0)
    layers = [linear_labels(f"stable_rank_{layer}", 1e-2) for layer in (1, 2)]
    assert [layer.rises for layer in layers] == [0, 10], "the ratio rises in layer 1 and falls in layer 2"
    last = linear_labels("inverse_norm_ratio", 3e-2)
    assert last.collapsed > 5 and last["mean"] > 0.99


def test_what_the_results_page_says_of_errors_at_the_largest_weight_decay() -> None:
    assert linear_labels("error", 3e-2)["mean"] == pytest.approx(0.093, abs=5e-4)
    assert linear_labels("error", 3e-2, "paper")["mean"] == pytest.approx(0.49, abs=5e-3)


def test_what_the_results_page_says_of_the_papers_scale() -> None:
    for name, last_rise in {"labels_linear": 3e-4, "labels_quadratic": 1e-3}.items():
        table = rows_of(name, "paper")
        ratio = table[table.quantity == "inverse_norm_ratio"].set_index("weight_decay")
        rises = ratio.loc[[decay for decay in ratio.index if 0 < decay <= last_rise]]
        falls = ratio.loc[[decay for decay in ratio.index if last_rise < decay < 3e-2 and ratio.n[decay] > 2]]
        assert (rises.change_low > 0).all() and (falls.change_high < 0).all() and len(falls)
    verdicts = rows_of("hypotheses", "paper").set_index(["hypothesis", "experiment"]).outcome
    assert set(verdicts["decay_closes_the_gap", "fashion_mnist"]) == {"holds"}
    assert set(verdicts["sums_solve_independent_tasks", "fashion_mnist"]) == {"undecided"}
    assert set(verdicts.drop(index=("sums_solve_independent_tasks", "fashion_mnist"))) == {"holds"}
    default = rows_of("hypotheses").set_index(["hypothesis", "experiment"]).outcome
    changed = [key for key in default.index.unique() if set(default[key]) != set(verdicts[key])]
    assert changed == [("decay_closes_the_gap", "fashion_mnist")], "what the README says of the paper's scale"
    images = rows_of("fashion_mnist", "paper")
    of_sum = images[images.model == "sum"].set_index(["quantity", "weight_decay"])["mean"]
    assert of_sum["loss"].idxmin() == 1e-3 and of_sum["test_loss"].idxmin() == 1e-2
    sweep = rows_of("weight_decay", "paper")
    errors = sweep[(sweep.quantity == "error") & (sweep.model == "sum")].set_index("weight_decay")["mean"]
    assert (errors[[3e-4, 1e-3, 3e-3, 1e-2]] < 1e-3).all()
    gaps = [
        table[(table.quantity == "gap") & (table.model == "sum") & (table.weight_decay == 0)]["mean"].item()
        for table in (rows_of("weight_decay"), sweep)
    ]
    assert gaps[1] > gaps[0]


def test_what_the_results_page_says_of_the_sensitivity() -> None:
    verdicts = rows_of("hypotheses", "sensitivity")
    assert set(verdicts.outcome[verdicts.samples == "training"]) == {"holds"}
    unsure = verdicts[verdicts.outcome != "holds"]
    assert set(unsure.experiment) == {"step_size_2", "width_50"} and set(unsure.outcome) == {"undecided"}
    assert set(unsure.hypothesis) == {"sums_solve_independent_tasks"} and set(unsure.samples) == {"test"}
    closed = verdicts[(verdicts.hypothesis == "decay_closes_the_gap") & (verdicts.samples == "training")]
    effects = closed.set_index("experiment")["mean"]
    assert effects.idxmin() == "scale_05" and effects.idxmax() == "scale_2"
    assert effects[["scale_05", "scale_2"]].tolist() == pytest.approx([0.02, 1.2], rel=0.05)
    for name in ("labels_linear", "labels_step_size", "labels_epochs", "labels_full_batch"):
        table = rows_of(name, "sensitivity")
        ratio = table[(table.quantity == "inverse_norm_ratio") & (table.weight_decay == 1e-2)].iloc[0]
        assert ratio.change_high < 0 and ratio.rises == 0, "the ratio falls with each kind of training"


def test_what_the_results_page_says_of_the_claims() -> None:
    verdicts = rows_of("claims")
    assert set(verdicts.claim[verdicts.outcome == "not supported"]) == {"lemma8", "theorem2"}
    assert set(verdicts.claim[verdicts.outcome == "assumption unmet"]) == {"alignment", "balance"}
    scans = verdicts[verdicts.experiment.str.startswith("scan/")]
    assert len(scans) == 8 and set(scans.outcome) == {"holds"}


def sums_of(experiment: str, quantity: str = "error", weight_decay: float = 1e-3) -> pd.DataFrame:
    """A quantity of the sum in the run beyond the paper, by merge set."""
    table = rows_of(experiment, "beyond")
    rows = table[
        (table.quantity == quantity) & (table.model == "sum") & np.isclose(table.weight_decay, weight_decay)
    ]
    return rows.set_index("merge_set")


def test_what_the_page_beyond_says_of_the_number_of_tasks() -> None:
    widths = {width: sums_of(f"width{width}") for width in (64, 128, 256)}
    works = {(width, name) for width, rows in widths.items() for name in rows.index if rows.high[name] < 0.01}
    fails = {(width, name) for width, rows in widths.items() for name in rows.index if rows.low[name] > 0.01}
    assert works == {(64, "a+b"), (128, "a+b"), (256, "a+b"), (256, "first_4")}
    assert {(width, "all") for width in widths} < fails
    assert not fails & {(64, "first_4"), (128, "first_4"), (256, "first_8")}
    for width, rows in widths.items():
        more = sums_of(f"width{width}", weight_decay=3e-3)
        assert ((more["mean"] < rows.high) & (more["mean"] > rows.low) | (rows.high < 0.01)).all()
        without = sums_of(f"width{width}", weight_decay=0)["mean"]
        assert 0.005 < without["a+b"] < 0.02 and without["first_4"] > 0.11
    assert widths[256].high["first_8"] < widths[64].low["first_8"]
    narrow, wide = (sums_of(f"width{width}", weight_decay=0).loc["first_8"] for width in (64, 256))
    assert wide.high < narrow.low and wide["mean"] > narrow["mean"] / 2


def test_what_the_page_beyond_says_of_the_layers() -> None:
    for experiment in ("width64", "width128", "width256", "linear64", *(f"depth{k}" for k in range(3, 7))):
        table = rows_of(experiment, "beyond")
        last = table.quantity[table.quantity.str.startswith("loss_increment_first")].str[-1].max()
        for decay in (0.0, 1e-3, 3e-3):
            gap = sums_of(experiment, "gap", decay)["mean"]
            for order, expected in (("first", "1" if decay == 0 else "2"), ("last", last)):
                parts = pd.DataFrame(
                    {
                        k: sums_of(experiment, f"loss_increment_{order}_{k}", decay)["mean"]
                        for k in map(str, range(1, int(last) + 1))
                    }
                )
                clear = gap[gap > 0.002].index
                if decay > 0 or (order == "first" and experiment == "width64"):
                    assert (parts.loc[clear].idxmax(axis=1) == expected).all(), (experiment, decay, order)
    for width in (64, 128, 256):
        ratio = sums_of(f"width{width}", "cross_term_2")["mean"]
        assert ratio["all"] / ratio["a+b"] > 9
        assert sums_of(f"width{width}", "cross_term_3").high["all"] < 0.7
    terms = [sums_of(f"width{width}", "cross_term_2")["mean"] for width in (64, 256)]
    assert ((terms[1] / terms[0]).between(0.9, 1)).all()
    assert sums_of("width256", "cross_term_3").high["all"] < sums_of("width64", "cross_term_3").low["all"]


def test_what_the_page_beyond_says_of_depth_and_time() -> None:
    for k in (2, 3):
        assert all(sums_of(f"depth{k}", weight_decay=decay).high.item() < 0.01 for decay in (1e-3, 3e-3))
    times = rows_of("working_time", "beyond").set_index("weight_decay")
    near = times[times.index < 0.015]
    assert (near.low < 1.3).all() and (near.high > 0.7).all() and near["mean"].between(0.75, 1.3).all()
    assert times.index.min() == pytest.approx(1e-4) and times.high.max() > 100
    phases = rows_of("phases", "beyond")
    gaps = phases[(phases.quantity == "gap") & (phases.model == "sum")].set_index("weight_decay")
    assert (gaps.low[gaps.index > 1e-4] < 0).all() and (gaps.low[gaps.index < 1e-4] > 0).all()
    assert 0.05 not in gaps.index, "all networks have collapsed"


def merged(experiment: str, quantity: str, model: str, weight_decay: float) -> pd.Series:
    table = rows_of(experiment, "inputs")
    chosen = (table.quantity == quantity) & (table.model == model)
    return table[chosen & np.isclose(table.weight_decay, weight_decay)].iloc[0]


def test_what_the_page_of_inputs_says_of_decay_and_inputs() -> None:
    projected, total = (merged("two_tasks", "loss", model, 0) for model in ("projected_sum", "sum"))
    with_decay = merged("two_tasks", "loss", "sum", 1e-3)
    assert projected.high < total.low and with_decay.low < projected["mean"] < with_decay.high
    for experiment in ("two_tasks", "eight_tasks"):
        one, other = (merged(experiment, "loss", model, 3e-3)["mean"] for model in ("projected_sum", "sum"))
        assert one == pytest.approx(other, rel=0.01)
    assert merged("eight_tasks", "error", "least_squares", 1e-3).high < 0.013
    assert merged("eight_tasks", "error", "sum", 1e-3).low > 0.1
    for decay in (1e-4, 3e-4, 1e-3, 3e-3):
        assert merged("eight_tasks", "test_loss", "least_squares", decay).change_high < 0
    for experiment in ("two_tasks", "eight_tasks"):
        for decay in (0, 1e-4, 3e-4, 1e-3, 3e-3):
            own = merged(experiment, "loss", "least_squares", decay)["mean"]
            assert merged(experiment, "loss", "least_squares=merged,1e-06,0", decay)["mean"] < own


def test_what_the_page_of_inputs_says_of_the_number_of_tasks() -> None:
    table = rows_of("capacity", "inputs").set_index(["number", "weight_decay", "experiment"])["mean"]
    measured, total = (table[f"measured, {model}"] for model in ("least_squares", "sum"))
    by_ridge, by_mean = table["predicted, 1e-06"], table["predicted, 1"]
    assert by_ridge.max() < 3 and measured.min() > 6 and measured.max() > 25
    assert (by_mean.rank() == measured.rank()).all()
    ratio = measured / by_mean
    assert ratio.between(0.9, 2.5).all() and ratio.xs("fit_width256", level="experiment").min() > 1.5
    widths = pd.Series([int(str(key[1]).removeprefix("fit_width")) for key in measured.index], measured.index)
    assert (widths / measured).between(7.5, 12).all() and total.between(1.9, 6).all()
    assert (measured[1e-3] > measured[0]).all()


def paired(setting: str, first: str, second: str, task: str = "mean") -> tuple[float, float]:
    """Mean over seeds of a difference of accuracies of MiniLM's merges, and half of its interval."""
    table = minilm_tables.accuracies(run_numbers.NUMBERS / "minilm", setting).sel(task=task)
    result = interval(table.sel(model=first) - table.sel(model=second))
    return float(result["mean"]), float(result.high - result.low) / 2


def test_what_the_page_of_transformers_says_of_inputs() -> None:
    for setting in ("two", "adamw", "four"):
        mean, half = paired(setting, "corrected sum, 20", "least squares, 200")
        assert abs(mean) < half < 0.01, setting  # as good with 20 as least squares with 200
    for (setting, other), expected in {
        ("four", "sum"): (0.072, 0.022),
        ("four", "average"): (0.038, 0.012),
    }.items():
        assert np.allclose(paired(setting, "corrected sum, 200", other), expected, atol=6e-4)
    for setting, expected in {"two": (0.024, 0.011), "four": (0.034, 0.009)}.items():
        found = paired(setting, "corrected sum, 20", "least squares, 20")
        assert np.allclose(found, expected, atol=6e-4) and found[0] > found[1]
    assert np.allclose(paired("adamw", "sum", "least squares, 200", "polarity"), (0.0096, 0.0023), atol=6e-5)
    for setting in ("two", "adamw"):
        mean, half = paired(setting, "corrected sum, 200", "sum", "polarity")
        assert abs(mean) < half


def test_what_the_page_of_transformers_says_of_own_accuracies() -> None:
    two, four = (
        minilm_tables.accuracies(run_numbers.NUMBERS / "minilm", setting) for setting in ("two", "four")
    )
    means = {
        model: four.sel(model=model, task="mean").mean() for model in ("own", "sum", "corrected sum, 200")
    }
    assert np.allclose(list(means.values()), [0.800, 0.648, 0.721], atol=6e-4)
    kept = [two.sel(model=model, task="mean").mean() for model in ("own", "corrected sum, 200")]
    assert np.allclose(kept, [0.827, 0.814], atol=6e-4)
    shared = ["polarity", "gender"]
    assert (two.sel(model="own", task=shared) == four.sel(model="own", task=shared)).all()
    assert float(two.sel(model="own", task="polarity").min()) == 0.795
    for setting in ("two", "adamw"):
        table = minilm_tables.accuracies(run_numbers.NUMBERS / "minilm", setting)
        for model in ("least squares, 200", "corrected sum, 200"):
            for task in shared:
                assert (table.sel(model=model) / table.sel(model="own")).sel(task=task).mean() > 0.95
    share = {
        model: interval((two.sel(model=model) / two.sel(model="own")).sel(task=shared))
        for model in ("least squares, 200", "corrected sum, 200")
    }
    for model, expected in {
        "least squares, 200": (0.984, 0.972),
        "corrected sum, 200": (0.999, 0.967),
    }.items():
        assert np.allclose(share[model]["mean"], expected, atol=6e-4)


def test_what_the_page_of_transformers_says_of_the_prediction_and_of_other_programs() -> None:
    for setting in ("two", "adamw", "four"):
        for one in minilm_tables.results(run_numbers.NUMBERS / "minilm", setting):
            for prediction in one["prediction"].values():
                assert prediction["output change"]["spearman"] > 0.95
                assert abs(prediction["output change"]["median ratio"] - 1) < 0.1
    others = [
        json.loads(line) for line in (run_numbers.NUMBERS / "minilm/others.jsonl").read_text().splitlines()
    ]
    assert len(others) == 5 and all(one["sum and mergekit"] == 0 for one in others)


def test_what_the_page_of_transformers_says_of_adapters() -> None:
    rows = pd.read_json(run_numbers.NUMBERS / "minilm/adapters.json")
    assert len(rows) == 2 * 60
    means = rows.groupby(["rank", "weight_decay", "seed"]).mean(numeric_only=True).to_xarray()
    assert means.sizes == {"rank": 6, "weight_decay": 2, "seed": 5}
    medians = means.mean("seed")
    found = [float(medians["stable rank"].sel(rank=32, weight_decay=decay)) for decay in (0, 10)]
    found += [
        float(medians.interference.sel(rank=rank, weight_decay=decay)) for rank, decay in ((1, 0), (32, 10))
    ]
    assert np.allclose(found, [2.1, 1.3, 0.62, 0.11], atol=[0.05, 0.05, 0.005, 0.005])
    assert abs(spearmanr(rows.interference, rows.change).statistic + 0.05) < 0.005
    over_ranks = means.mean("rank")
    decay = over_ranks.sel(weight_decay=10) - over_ranks.sel(weight_decay=0)
    gain, loss = over_ranks.least_squares - over_ranks["sum"], over_ranks.own - over_ranks.least_squares
    corrected = over_ranks.corrected_sum - over_ranks.least_squares
    for values, expected in (
        (decay.own, (-0.004, 0.009)),
        (decay["sum"], (0.0, 0.016)),
        (gain.sel(weight_decay=0), (0.025, 0.015)),
        (gain.sel(weight_decay=10), (0.025, 0.024)),
        (loss.sel(weight_decay=0), (0.024, 0.004)),
        (loss.sel(weight_decay=10), (0.020, 0.006)),
        (corrected.sel(weight_decay=0), (0.001, 0.003)),
        (corrected.sel(weight_decay=10), (0.001, 0.002)),
    ):
        result = interval(values)
        half = float(result.high - result.low) / 2
        assert np.allclose((float(result["mean"]), half), expected, atol=6e-4), (
            expected,
            float(result["mean"]),
            half,
        )
