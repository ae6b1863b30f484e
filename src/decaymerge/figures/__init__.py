"""Stage ``figures``: pictures of summaries and scans. Nothing is computed here but means and differences.

The figure NAME is drawn by the function ``draw`` of ``figures/NAME.py``. It takes the job and the files that the
figure shows, and returns a matplotlib figure, or a table as Markdown. ``config/figures.py`` has a row for each.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import xarray as xr

from decaymerge.atomic import atomic_file
from decaymerge.figures.style import save
from decaymerge.provenance import made_by
from decaymerge.workflow.jobs import FigureJob


def draw(job: FigureJob, files: Sequence[xr.Dataset], output: Path) -> None:
    """Draw a figure to ``output``, a PDF, and to a PNG next to it; or write a table to ``output``, Markdown."""
    picture = import_module(f"{__name__}.{job.figure}").draw(job, files)
    if not isinstance(picture, str):
        return save(picture, output, job)
    with atomic_file(output) as temporary:
        temporary.write_text(f"{picture}\n\nMade by {made_by()}.\n")
    return None
