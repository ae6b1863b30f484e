"""Stage ``figures``: pictures of summaries, claims and scans. Only means, ranges and differences are computed here.

The function ``draw`` of ``figures/NAME.py`` draws the figure NAME. It takes the job and the files that the figure
shows, and returns a matplotlib figure, or a table as Markdown. ``config/figures.py`` has a row for each figure.
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
    """Write a figure to ``output`` (PDF) and to a PNG next to it, or a table to ``output`` (Markdown).

    Args:
        job: The figure, and the experiments or models that it shows.
        files: Their summaries, traces of claims or scans, in the order of the job.
        output: The file to write.

    Raises:
        UserError: a file cannot be written.
    """
    picture = import_module(f"{__name__}.{job.figure}").draw(job, files)
    if not isinstance(picture, str):
        return save(picture, output, job)
    with atomic_file(output) as temporary:
        temporary.write_text(f"{picture}\n\nMade by {made_by()}.\n")
    return None
