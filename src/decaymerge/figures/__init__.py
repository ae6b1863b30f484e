"""Stage ``figures``: pictures of summaries and scans. Nothing is computed here but means and differences."""

from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.depth import draw_depth
from decaymerge.figures.experiment import draw_experiment
from decaymerge.figures.figure1 import draw_figure1, table1
from decaymerge.figures.figure2 import draw_figure2
from decaymerge.figures.figure3 import draw_figure3
from decaymerge.figures.interference import draw_interference
from decaymerge.figures.layers import draw_layers
from decaymerge.figures.many_tasks import draw_many_tasks
from decaymerge.figures.overlap import draw_overlap
from decaymerge.figures.phase import draw_phase
from decaymerge.figures.style import save
from decaymerge.jobs import FigureJob
from decaymerge.provenance import made_by
from decaymerge.whole import whole

FIGURES: dict[str, Callable[[FigureJob, Sequence[xr.Dataset]], Figure]] = {
    "figure1": draw_figure1,
    "figure2": draw_figure2,
    "figure3": draw_figure3,
    "experiment": draw_experiment,
    "overlap": draw_overlap,
    "interference": draw_interference,
    "many_tasks": draw_many_tasks,
    "depth": draw_depth,
    "layers": draw_layers,
    "phase": draw_phase,
}
NEEDED = {
    "figure1": ["frobenius_norm", "layer_name"],
    "figure2": ["loss", "pair", "norm_ratio", "margin_error"],
    "overlap": ["interference"],
    "interference": ["interference", "layer"],
    "many_tasks": ["loss", "pair"],
    "depth": ["loss", "pair"],
    "layers": ["loss_increment", "cross_term"],
    "phase": ["loss", "pair"],
    "figure3": ["loss", "pair", "stable_rank"],
    "experiment": ["loss", "pair", "stable_rank"],
    "table1": ["frobenius_norm", "layer_name"],
}
"""What the files must hold that a figure or table shows."""
TABLES: dict[str, Callable[[FigureJob, Sequence[xr.Dataset]], str]] = {"table1": table1}


def draw(figure: str, job: FigureJob, shown: Sequence[xr.Dataset], output: Path) -> None:
    """Draw one of ``FIGURES`` to ``output``, a PDF, and a PNG beside it; or write one of ``TABLES``, Markdown."""
    if figure in TABLES:
        with whole(output) as temporary:
            temporary.write_text(f"{TABLES[figure](job, shown)}\n\nMade by {made_by()}.\n")
    else:
        save(FIGURES[figure](job, shown), output, job)
