"""Stage ``figures``: pictures of summaries, claims and scans, of which they compute only means and quantiles.

The function ``draw`` of ``figures/NAME.py`` draws the figure NAME. It takes the job and the files that the figure
shows, and returns a matplotlib figure, or a table as Markdown. ``config/figures.py`` has a row for each figure.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.atomic import atomic_file
from decaymerge.collapse import describe_collapse, without_collapsed
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
    picture = compose(job, files)
    if not isinstance(picture, str):
        return save(picture, output, job)
    with atomic_file(output) as temporary:
        temporary.write_text(f"{picture}\n\nMade by {made_by()}.\n")
    return None


def compose(job: FigureJob, files: Sequence[xr.Dataset]) -> Figure | str:
    """The figure of ``draw``, or the table as Markdown.

    Collapsed networks are left out of every figure, and its title says how many they are.
    """
    notes = []
    if all("largest_output" in file for file in files):
        collapses = [(name, describe_collapse(file)) for name, file in zip(job.names, files, strict=True)]
        notes = [f"{name}: {collapse}" for name, collapse in collapses if collapse]
        files = [without_collapsed(file) for file in files]
    picture: Figure | str = import_module(f"{__name__}.{job.figure}").draw(job, files)
    if not isinstance(picture, str):
        picture.suptitle("\n".join([picture.get_suptitle(), *notes]), fontsize="small")
    return picture
