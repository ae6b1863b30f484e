"""Figures: nothing clipped, vector PDF, any experiment can be drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from builders import smoke_config
from builders_runs import drawn, figure_job, summaries_of, write_networks, write_summaries
from decaymerge.config import Config, parse
from decaymerge.figures import draw
from decaymerge.figures.panels import gap, lines
from decaymerge.figures.style import panels
from decaymerge.workflow.jobs import FigureJob

PANELS = ["independent", "same_inputs", "weight_decay"]


def config_of(names: list[str], **changes: Any) -> Config:
    """Some experiments of the smoke configuration."""
    experiments = smoke_config()["experiments"]
    return parse({"experiments": {name: experiments[name] | changes for name in names}})


def experiment_job() -> FigureJob:
    return figure_job(config_of(PANELS), "experiment", ["weight_decay"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks and summaries of the experiments of Figure 3."""
    folder = tmp_path_factory.mktemp("figures")
    write_networks(config_of(PANELS), folder)
    write_summaries(config_of(PANELS), folder)
    return folder


@pytest.mark.parametrize(("figure", "names"), [("figure3", PANELS), ("experiment", ["weight_decay"])])
def test_no_text_is_clipped_and_none_overlaps(figure: str, names: list[str], results: Path) -> None:
    picture = drawn(figure_job(config_of(PANELS), figure, names), summaries_of(results, names))
    title = picture.get_suptitle()
    assert "10% to 90% quantile over seeds" in title and "n = 40 samples" in title
    inches, (width, height) = picture.get_tightbbox(), picture.get_size_inches()
    assert inches.x0 >= 0 and inches.y0 >= 0 and inches.x1 <= width and inches.y1 <= height
    legend = picture.legends[0].get_window_extent()
    for ax in picture.axes:
        tight = ax.get_tightbbox()
        assert tight is not None and not legend.overlaps(tight)
        assert ax.get_xlabel() and ax.get_ylabel()


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_long_title_is_as_wide_as_the_figure(number: int) -> None:
    long = (
        "lines with bands: measured, median and range; thin dashed: tolerance; only the last step is judged"
    )
    picture, _ = panels(
        number, f"norm_preservation (Lemma 3; the factors for ReLU^p are ours)\n{long}", columns=4
    )
    picture.draw_without_rendering()
    inches = picture.get_tightbbox()
    assert inches.x0 >= 0 and inches.x1 <= picture.get_size_inches()[0]
    assert picture.get_suptitle().count("\n") == 1 or number < 4
    plt.close(picture)


def test_lines_of_a_panel_differ_in_colour() -> None:
    models = ["own", "sum", "average", "scaled=0.8", "least_squares", "projected_sum"]
    models += [f"{name}, test data" for name in ("own network", "sum of weights")]
    frame = pd.DataFrame([{"step": x, "loss": 1.0, "model": model} for x in (1, 2) for model in models])
    picture, (ax,) = panels(1, "")
    lines(ax, frame, "step", "loss", "model", models)
    legend = ax.get_legend()
    assert legend is not None
    styles = {(str(line.get_color()), line.get_marker()) for line in legend.get_lines()}
    assert len(styles) == len(models)
    plt.close(picture)


def labels_of(picture: Figure) -> list[str]:
    return [text.get_text() for text in picture.legends[0].get_texts()]


def test_test_data_are_drawn_where_they_were_given(results: Path) -> None:
    (summary,) = summaries_of(results, ["weight_decay"])
    labels = ["own network, test data", "sum of weights, test data"]
    assert set(labels) < set(labels_of(drawn(experiment_job(), [summary])))
    moved = summary.assign(test_loss=summary.test_loss + 100)
    upper = max(
        np.max(line.get_ydata(), initial=0.0) for line in drawn(experiment_job(), [moved]).axes[2].get_lines()
    )
    assert upper > 100 > float(summary.test_loss.max())
    without = summary.assign(test_loss=np.nan * summary.test_loss)
    assert not any("test data" in label for label in labels_of(drawn(experiment_job(), [without])))


def test_collapsed_networks_are_left_out_and_counted_in_the_title(results: Path) -> None:
    (summary,) = summaries_of(results, ["weight_decay"])
    alive = drawn(experiment_job(), [summary])
    assert "collapsed" not in alive.get_suptitle()
    seed = {"weight_decay": summary.weight_decay[1], "seed": summary.seed[0]}
    summary.largest_output.loc[seed | {"model": "own", "step": summary.step[-1]}] = 1e-9
    summary.loss.loc[seed] = 1e6
    picture = drawn(experiment_job(), [summary])
    count = summary.sizes["task"]
    expected = (
        f"{count} at λ = {float(summary.weight_decay[1]):g}, of {count * summary.sizes['seed']} networks"
    )
    assert expected in picture.get_suptitle()
    heights = [np.asarray(line.get_ydata(), dtype=float) for ax in picture.axes for line in ax.get_lines()]
    assert not (np.concatenate(heights) > 1e5).any()


def test_written_files(results: Path, tmp_path: Path) -> None:
    job, summaries = (
        figure_job(config_of(PANELS), "many_tasks", PANELS[:1]),
        summaries_of(results, PANELS[:1]),
    )
    for name in ("first", "second"):
        draw(job, summaries, tmp_path / f"{name}.pdf")
    pdf = (tmp_path / "first.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Subtype /Image" not in pdf
    assert pdf == (tmp_path / "second.pdf").read_bytes()  # no date inside
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4


def test_single_task_and_linear_predictor_and_one_weight_decay(results: Path) -> None:
    (summary,) = summaries_of(results, ["weight_decay"])
    for part in (
        summary.sel(model=["own"]).isel(task=[0]),
        summary.isel(layer=[2]),
        summary.isel(weight_decay=[1]),
        summary.isel(weight_decay=[0], seed=[0]),
    ):
        drawn(experiment_job(), [part])


def test_gap_is_merged_minus_own(results: Path) -> None:
    (summary,) = summaries_of(results, ["independent"])
    expected = summary.loss.sel(model="average") - summary.loss.sel(model="own")
    np.testing.assert_array_equal(gap(summary.loss).sel(model="average"), expected)
