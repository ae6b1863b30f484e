"""Figures: nothing clipped, vector PDF, any experiment can be drawn."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from conftest import Workflow, smoke_config
from decaymerge import store
from decaymerge.config import check
from decaymerge.figures import FIGURES, draw
from decaymerge.workflow.jobs import FigureJob, figure_job

mpl.use("Agg")


def job_of(names: list[str], **changes: Any) -> FigureJob:
    config = smoke_config()
    for name in names:
        config["experiments"][name] |= changes
    return figure_job(check(config), names)


@pytest.mark.parametrize(
    ("figure", "names"),
    [("figure3", ["independent", "same_inputs", "weight_decay"]), ("experiment", ["fashion_mnist"])],
)
def test_no_text_is_clipped_and_none_overlaps(smoke: Workflow, figure: str, names: list[str]) -> None:
    summaries = [store.read(smoke.folder / f"results/{name}/summary.nc") for name in names]
    drawn = FIGURES[figure](job_of(names), summaries)
    drawn.canvas.draw()
    title = drawn.get_suptitle()
    assert "standard deviation over seeds" in title and "n = 40 samples" in title
    inches = drawn.get_tightbbox()
    width, height = drawn.get_size_inches()
    assert inches.x0 >= 0 and inches.y0 >= 0 and inches.x1 <= width and inches.y1 <= height
    legend = drawn.legends[0].get_window_extent()
    for ax in drawn.axes:
        tight = ax.get_tightbbox()
        assert tight is not None and not legend.overlaps(tight)
        assert ax.get_xlabel() and ax.get_ylabel()


def test_written_files(smoke: Workflow, tmp_path: Path) -> None:
    summary = store.read(smoke.folder / "results/fashion_mnist/summary.nc")
    for name in ("one", "two"):
        draw("experiment", job_of(["fashion_mnist"]), [summary], tmp_path / f"{name}.pdf")
    pdf = (tmp_path / "one.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Subtype /Image" not in pdf
    assert pdf == (tmp_path / "two.pdf").read_bytes()  # no date inside
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4


def test_single_task_and_linear_predictor_and_one_weight_decay(smoke: Workflow, tmp_path: Path) -> None:
    summary = store.read(smoke.folder / "results/fashion_mnist/summary.nc")
    own = summary.sel(model=["own"]).isel(task=[0])
    draw("experiment", job_of(["fashion_mnist"]), [own], tmp_path / "own.pdf")
    draw("experiment", job_of(["fashion_mnist"]), [summary.isel(layer=[2])], tmp_path / "linear.pdf")
    draw("experiment", job_of(["fashion_mnist"]), [summary.isel(weight_decay=[1])], tmp_path / "one.pdf")
    draw(
        "experiment",
        job_of(["fashion_mnist"]),
        [summary.isel(weight_decay=[0], seed=[0])],
        tmp_path / "zero.pdf",
    )
    assert len(list(tmp_path.iterdir())) == 8


def test_gap_is_merged_minus_own(smoke: Workflow) -> None:
    from decaymerge.figures.panels import gap

    summary = store.read(smoke.folder / "results/independent/summary.nc")
    expected = summary.loss.sel(model="average") - summary.loss.sel(model="own")
    np.testing.assert_array_equal(gap(summary).sel(model="average"), expected)
