"""Beyond the paper: sums of more tasks, depth, phases, layers; tiny, through the workflow to the figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.patches import Rectangle

from builders import changed
from builders_runs import drawn, figure_job, summaries_of, write_networks, write_summaries
from conftest import Workflow
from decaymerge.config import Config, parse
from decaymerge.config.experiment import Experiment
from decaymerge.errors import UserError
from decaymerge.figures.many_tasks import against_task_count

FIGURES = {
    "many_tasks": ["three"],
    "depth": ["three", "deep"],
    "gap_by_layer": ["three", "deep"],
    "phase": ["deep"],
}


def experiment(**settings: Any) -> dict[str, Any]:
    return {
        "tasks": {"dataset": "gaussian", "dim": 12, "samples": 20},
        "training": {"step_size": 1.0, "steps": 60, "kept_steps": 8, "weight_decay": [0, 1e-2]},
        "seeds": 2,
        "merge": ["sum"],
        "gap_by_layer": True,
    } | settings


def tiny() -> dict[str, Any]:
    three = experiment(task_count=3, merge_first=[3, 2], network={"hidden": [6, 6]})
    deep = experiment(network={"hidden": [6, 6, 6]})
    return {"experiments": {"three": three, "deep": deep}, "figures": {"experiments": dict(FIGURES)}}


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(tiny())


@pytest.fixture(scope="module")
def results(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks and summaries."""
    folder = tmp_path_factory.mktemp("beyond")
    write_networks(config, folder)
    write_summaries(config, folder)
    return folder


@pytest.mark.slow
@pytest.mark.workflow
def test_the_workflow_makes_every_figure_and_evaluates_again_what_changes(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path, tiny())
    workflow.run()
    names = {path.name for path in (tmp_path / "results/figures").iterdir()}
    assert names == {f"{figure}.{kind}" for figure in FIGURES for kind in ("pdf", "png")}
    assert workflow.planned() == {}
    for target in FIGURES:
        assert set(workflow.planned(target)) <= {target}
    workflow.config["experiments"]["deep"] |= {"gap_by_layer": False}
    workflow.config["figures"]["experiments"]["gap_by_layer"] = ["three"]
    assert workflow.planned("results/deep/summary.nc") == {"evaluate": 1, "gather": 1}


def test_the_configuration_draws_every_figure_and_no_other(config: Config) -> None:
    assert config.pictures == {figure: (figure, names) for figure, names in FIGURES.items()}


def test_summary_has_the_gap_by_layer(results: Path) -> None:
    (summary,) = summaries_of(results, ["three"])
    assert summary.merge_set.values.tolist() == ["a+b", "all"]
    assert summary.loss_increment.dims == (
        *("merge_set", "weight_decay", "seed", "step", "task", "crossing", "layer"),
    )
    assert summary.cross_term.attrs["long_name"]
    gap = summary.loss.sel(model="sum") - summary.loss.sel(model="own")
    total = summary.loss_increment.sum("layer", skipna=False)
    np.testing.assert_allclose(total.sel(crossing="last"), gap, atol=3e-6)
    assert np.isnan(gap.sel(merge_set="a+b", task="c")).all() and np.isfinite(gap.sel(merge_set="all")).all()


@pytest.mark.parametrize("figure", FIGURES)
def test_no_text_is_clipped_and_none_overlaps(figure: str, config: Config, results: Path) -> None:
    names = FIGURES[figure]
    picture = drawn(figure_job(config, figure, names), summaries_of(results, names))
    title = picture.get_suptitle()
    assert "n = 20 samples" in title and "2 seeds" in title and "60 steps" in title
    inches, (width, height) = picture.get_tightbbox(), picture.get_size_inches()
    assert inches.x0 >= 0 and inches.y0 >= 0 and inches.x1 <= width and inches.y1 <= height
    boxes = [ax.get_tightbbox() for ax in picture.axes]
    boxes += [legend.get_window_extent() for legend in picture.legends]
    for i, box in enumerate(boxes):
        assert box is not None and not any(box.overlaps(other) for other in boxes[:i] if other is not None)


def test_sums_against_their_number_of_tasks(results: Path) -> None:
    (summary,) = summaries_of(results, ["three"])
    means = against_task_count(summary.loss).sel(model="sum", weight_decay=1e-2)
    assert means.tasks.values.tolist() == [2, 3]
    last = summary.loss.isel(step=-1).sel(model="sum", weight_decay=1e-2)
    for count, merge_set, members in ((2, "a+b", ["a", "b"]), (3, "all", ["a", "b", "c"])):
        expected = last.sel(merge_set=merge_set, task=members).mean("task")
        np.testing.assert_allclose(means.sel(tasks=count), expected, rtol=1e-6)


def test_sums_of_as_many_tasks_are_one_point(results: Path) -> None:
    (summary,) = summaries_of(results, ["three"])
    two, three = (summary.loss.sel(merge_set=[merge_set]) for merge_set in ("a+b", "all"))
    means = against_task_count(xr.concat([two, two + 1, three], "merge_set"))
    assert means.tasks.values.tolist() == [2, 3]
    expected = against_task_count(summary.loss).sel(tasks=2) + 0.5
    np.testing.assert_allclose(means.sel(tasks=2), expected, rtol=1e-5)


def with_errors_that_vanish(summary: xr.Dataset) -> xr.Dataset:
    """One λ, and errors that are zero at the end."""
    last = summary.step == summary.step.max()
    return summary.isel(weight_decay=[0]).assign(error=summary.error.where(~last, 0.0))


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_one_weight_decay(figure: str, config: Config, results: Path) -> None:
    (summary,) = summaries_of(results, ["deep"])
    drawn(figure_job(config, figure, ["deep"]), [with_errors_that_vanish(summary)])


@pytest.mark.parametrize(
    "figure",
    [
        "depth",
        "phase",
        pytest.param("many_tasks", marks=pytest.mark.slow),
        pytest.param("gap_by_layer", marks=pytest.mark.slow),
    ],
)
def test_figures_of_more_weight_decays_than_markers_colours_or_letters(figure: str, results: Path) -> None:
    sweep = [0.01 * i for i in range(12)]
    swept = tiny()
    for settings in swept["experiments"].values():
        settings["training"]["weight_decay"] = sweep
    summary = with_errors_that_vanish(*summaries_of(results, ["deep"]))
    many = xr.concat([summary.assign_coords(weight_decay=[decay]) for decay in sweep], "weight_decay")
    drawn(figure_job(parse(swept), figure, ["deep"]), [many])


def test_layers_add_up_in_the_figure(config: Config, results: Path) -> None:
    """The bars of one sum add up to its gap."""
    (summary,) = summaries_of(results, ["deep"])
    picture = drawn(figure_job(config, "gap_by_layer", ["deep"]), [summary])
    gap = summary.loss.sel(model="sum") - summary.loss.sel(model="own")
    expected = gap.isel(step=-1, merge_set=0).mean(("seed", "task"))
    for ax, value in zip(picture.axes[:4], [*expected.values] * 2, strict=True):
        bars = [patch.get_height() for patch in ax.patches if isinstance(patch, Rectangle)]
        assert len(bars) == 4 and sum(bars) == pytest.approx(float(value), abs=3e-6)


def test_merge_first() -> None:
    def merge_sets(**settings: Any) -> dict[str, list[str]]:
        return Experiment.model_validate(tiny()["experiments"]["three"] | settings).merge_sets

    assert merge_sets() == {"a+b": ["a", "b"], "all": ["a", "b", "c"]}
    assert merge_sets(merge_first=[3]) == {"all": ["a", "b", "c"]}
    assert merge_sets(task_count=2, merge_first=[2]) == {"a+b": ["a", "b"]}
    four = {"task_count": 4, "merge_first": [4, 3]}
    assert merge_sets(**four) == {"first_3": ["a", "b", "c"], "all": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("experiments/three/merge_first", [1], "three.merge_first[0] = 1: Input should be greater than"),
        ("experiments/three/merge_first", [], "three.merge_first = []: List should have at least 1"),
        ("experiments/three/merge_first", [2, 4], "merge_first: [2, 4] goes beyond the 3 tasks"),
        ("experiments/three/merge_first", [2, 2], "merge_first: [2, 2] names a number twice"),
        ("experiments/deep/merge", ["average"], "gap_by_layer: true is about the sum of networks"),
        (
            "experiments/deep/gap_by_layer",
            False,
            "figures.experiments.gap_by_layer: deep must have gap_by_layer: true",
        ),
        (
            "experiments/deep/network/hidden",
            [6, 5],
            "figures.experiments.depth: three, deep must have different depths",
        ),
        ("experiments/deep/training/weight_decay", [0], "must have the same training.weight_decay"),
        ("experiments/depth", tiny()["experiments"]["deep"], "'depth' is taken by a result or figure"),
        ("figures/experiments/many_tasks", ["three", "three"], "many_tasks: three is named twice"),
        (
            "experiments/figure1_x",
            tiny()["experiments"]["deep"],
            "'figure1_x' is taken by a result or figure",
        ),
        (
            "figures/experiments/phase",
            ["shallow"],
            "figures.experiments.phase[0] = 'shallow' is not an experiment; there are: three, deep",
        ),
    ],
)
def test_refuses(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(changed(tiny(), path, value))
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


def test_figures_need_a_sum() -> None:
    config = tiny()
    config["experiments"]["deep"] |= {"merge": ["average"], "gap_by_layer": False}
    config["figures"] = {"experiments": {"phase": ["deep"]}}
    with pytest.raises(
        UserError, match=r"figures\.experiments\.phase: deep must have two tasks or more and merge: \[sum\]"
    ):
        parse(config)
