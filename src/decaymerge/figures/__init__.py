"""Stage ``figures``: pictures of what the summaries hold. Nothing is computed here but means and differences."""

from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.experiment import draw_experiment
from decaymerge.figures.figure3 import draw_figure3
from decaymerge.figures.style import save
from decaymerge.jobs import FigureJob

FIGURES: dict[str, Callable[[FigureJob, Sequence[xr.Dataset]], Figure]] = {
    "figure3": draw_figure3,
    "experiment": draw_experiment,
}


def draw(figure: str, job: FigureJob, summaries: Sequence[xr.Dataset], output: Path) -> None:
    """Draw one figure of ``FIGURES`` to ``output``, a PDF, and to a PNG beside it."""
    save(FIGURES[figure](job, summaries), output, job.settings.dpi)
