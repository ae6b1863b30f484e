"""Beyond the paper: sums of more tasks, depth, phases, layers; tiny, through the workflow to the figures."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.patches import Rectangle

from conftest import Workflow, changed
from decaymerge import store
from decaymerge.config import check
from decaymerge.config.experiment import Experiment, merge_sets
from decaymerge.errors import UserError
from decaymerge.figures import FIGURES
from decaymerge.figures.many_tasks import against_task_count
from decaymerge.workflow.jobs import figure_job

mpl.use("Agg")

SWEEPS = {
    "many_tasks": ["three"],
    "depth": ["three", "deep"],
    "layers": ["three", "deep"],
    "phase": ["deep"],
}


def experiment(**settings: Any) -> dict[str, Any]:
    return {
        "tasks": {"dataset": "gaussian", "dim": 12, "samples": 20},
        "training": {"step_size": 1.0, "steps": 60, "checkpoints": 8, "weight_decay": [0, 1e-2]},
        "seeds": 2,
        "merge": ["sum"],
        "gap_by_layer": True,
    } | settings


def tiny() -> dict[str, Any]:
    three = experiment(task_count=3, merge_first=[3, 2], network={"hidden": [6, 6]})
    deep = experiment(network={"hidden": [6, 6, 6]})
    return {"experiments": {"three": three, "deep": deep}, "figures": dict(SWEEPS)}


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("beyond"), tiny())
    workflow.run()
    return workflow


def test_the_run_makes_every_figure(beyond: Workflow) -> None:
    drawn = {path.name for path in (beyond.folder / "results/figures").iterdir()}
    assert drawn == {f"{figure}.{kind}" for figure in SWEEPS for kind in ("pdf", "png")}
    assert beyond.planned() == {}
    for target in SWEEPS:
        assert set(beyond.planned(target)) <= {target}


def test_summary_has_the_gap_by_layer(beyond: Workflow) -> None:
    summary = store.read(beyond.folder / "results/three/summary.nc")
    assert summary.pair.values.tolist() == ["a+b", "all"]
    assert summary.loss_increment.dims == (
        *("pair", "weight_decay", "seed", "step", "task", "crossing", "layer"),
    )
    assert summary.cross_term.attrs["long_name"]
    gap = summary.loss.sel(model="sum") - summary.loss.sel(model="own")
    total = summary.loss_increment.sum("layer", skipna=False)
    np.testing.assert_allclose(total.sel(crossing="last"), gap, atol=3e-6)
    assert np.isnan(gap.sel(pair="a+b", task="c")).all() and np.isfinite(gap.sel(pair="all")).all()


def test_asking_for_layers_evaluates_only(beyond: Workflow) -> None:
    beyond.config["experiments"]["deep"] |= {"gap_by_layer": False}
    beyond.config["figures"]["layers"] = ["three"]
    planned = beyond.planned("results/deep/summary.nc")
    beyond.config = tiny()
    assert planned == {"evaluate": 2, "gather": 1}


@pytest.mark.parametrize("figure", SWEEPS)
def test_no_text_is_clipped_and_none_overlaps(beyond: Workflow, figure: str) -> None:
    names = SWEEPS[figure]
    summaries = [store.read(beyond.folder / f"results/{name}/summary.nc") for name in names]
    drawn = FIGURES[figure](figure_job(check(tiny()), names), summaries)
    drawn.canvas.draw()
    title = drawn.get_suptitle()
    assert "n = 20 samples" in title and "2 seeds" in title and "60 steps" in title
    inches, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()
    assert inches.x0 >= 0 and inches.y0 >= 0 and inches.x1 <= width and inches.y1 <= height
    boxes = [ax.get_tightbbox() for ax in drawn.axes]
    boxes += [legend.get_window_extent() for legend in drawn.legends]
    for i, box in enumerate(boxes):
        assert box is not None and not any(box.overlaps(other) for other in boxes[:i] if other is not None)


def test_sums_against_their_number_of_tasks(beyond: Workflow) -> None:
    summary = store.read(beyond.folder / "results/three/summary.nc")
    found = against_task_count(summary.loss).sel(model="sum", weight_decay=1e-2)
    assert found.tasks.values.tolist() == [2, 3]
    last = summary.loss.isel(step=-1).sel(model="sum", weight_decay=1e-2)
    for count, pair, members in ((2, "a+b", ["a", "b"]), (3, "all", ["a", "b", "c"])):
        expected = last.sel(pair=pair, task=members).mean("task")
        np.testing.assert_allclose(found.sel(tasks=count), expected, rtol=1e-6)


def test_sums_of_as_many_tasks_are_one_point(beyond: Workflow) -> None:
    loss = store.read(beyond.folder / "results/three/summary.nc").loss
    doubled = xr.concat([loss.sel(pair=["a+b"]), loss.sel(pair=["a+b"]) + 1, loss.sel(pair=["all"])], "pair")
    found = against_task_count(doubled)
    assert found.tasks.values.tolist() == [2, 3]
    np.testing.assert_allclose(found.sel(tasks=2), against_task_count(loss).sel(tasks=2) + 0.5, rtol=1e-5)


@pytest.mark.parametrize("figure", ["depth", "many_tasks", "layers", "phase"])
def test_figures_of_many_weight_decays_and_of_one(beyond: Workflow, figure: str) -> None:
    """More λ than markers, colours or letters; one λ and few steps."""
    config = tiny()
    for one in config["experiments"].values():
        one["training"]["weight_decay"] = [0.01 * i for i in range(12)]
    summary = store.read(beyond.folder / "results/deep/summary.nc").isel(weight_decay=[0])
    summary = summary.assign(error=summary.error.where(summary.step < summary.step.max(), 0.0))
    many = xr.concat([summary.assign_coords(weight_decay=[0.01 * i]) for i in range(12)], "weight_decay")
    names = ["deep"]
    FIGURES[figure](figure_job(check(config), names), [many]).canvas.draw()
    FIGURES[figure](figure_job(check(tiny()), names), [summary]).canvas.draw()


def test_layers_add_up_in_the_figure(beyond: Workflow) -> None:
    """The bars of one sum add up to its gap."""
    summary = store.read(beyond.folder / "results/deep/summary.nc")
    drawn = FIGURES["layers"](figure_job(check(tiny()), ["deep"]), [summary])
    gap = summary.loss.sel(model="sum") - summary.loss.sel(model="own")
    expected = gap.isel(step=-1, pair=0).mean(("seed", "task"))
    for ax, value in zip(drawn.axes[:4], [*expected.values] * 2, strict=True):
        bars = [patch.get_height() for patch in ax.patches if isinstance(patch, Rectangle)]
        assert len(bars) == 4 and sum(bars) == pytest.approx(float(value), abs=3e-6)


def test_merge_first() -> None:
    def pairs(**settings: Any) -> dict[str, list[str]]:
        return merge_sets(Experiment.model_validate(tiny()["experiments"]["three"] | settings))

    assert pairs() == {"a+b": ["a", "b"], "all": ["a", "b", "c"]}
    assert pairs(merge_first=[3]) == {"all": ["a", "b", "c"]}
    assert pairs(task_count=2, merge_first=[2]) == {"a+b": ["a", "b"]}
    four = {"task_count": 4, "merge_first": [4, 3]}
    assert pairs(**four) == {"first_3": ["a", "b", "c"], "all": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("experiments/three/merge_first", [1], "three.merge_first[0] = 1: Input should be greater than"),
        ("experiments/three/merge_first", [], "three.merge_first = []: List should have at least 1"),
        ("experiments/three/merge_first", [2, 4], "merge_first: [2, 4] goes beyond the 3 tasks"),
        ("experiments/three/merge_first", [2, 2], "merge_first: [2, 2] names a number twice"),
        ("experiments/deep/merge", ["average"], "gap_by_layer: true is about the sum of networks"),
        ("experiments/deep/gap_by_layer", False, "figures.layers: deep must have gap_by_layer: true"),
        ("experiments/deep/network/hidden", [6, 5], "figures.depth: three, deep must have different depths"),
        ("experiments/deep/training/weight_decay", [0], "must have the same training.weight_decay"),
        ("experiments/depth", tiny()["experiments"]["deep"], "'depth' is taken by a result or figure"),
        ("figures/many_tasks", ["three", "three"], "figures.many_tasks: three stands twice"),
        (
            "experiments/figure1_x",
            tiny()["experiments"]["deep"],
            "'figure1_x' is taken by a result or figure",
        ),
        (
            "figures/phase",
            ["shallow"],
            "figures.phase[0] = 'shallow' is no experiment; there are: three, deep",
        ),
    ],
)
def test_refuses(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        check(changed(tiny(), path, value))
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


def test_figures_need_a_sum() -> None:
    config = tiny()
    config["experiments"]["deep"] |= {"merge": ["average"], "gap_by_layer": False}
    config["figures"] = {"phase": ["deep"]}
    with pytest.raises(
        UserError, match=r"figures\.phase: deep must have two tasks or more and merge: \[sum\]"
    ):
        check(config)
