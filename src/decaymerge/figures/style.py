"""The style of all figures: colours for the colour-blind; dashes and markers tell lines apart in grey."""

from collections.abc import Iterator, Sequence
from itertools import count, product
from pathlib import Path
from string import ascii_lowercase
from textwrap import fill

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decaymerge.atomic import atomic_file
from decaymerge.provenance import made_by, provenance
from decaymerge.workflow.jobs import FigureJob

COLOURS = sns.color_palette("colorblind")
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
DASHES: list[tuple[float, ...]] = [(), (4, 1.5), (1, 1), (3, 1, 1, 1), (5, 1, 1, 1, 1, 1)]
PANEL_INCHES = (2.7, 2.3)
LEGEND_INCHES = 1.6
"""Least width of one entry of a legend."""
HANDLE_INCHES, LETTER_INCHES, TITLE_LETTER_INCHES = 0.6, 0.07, 0.056
"""Width of the line in an entry with the space around it, of a letter there, and of a letter of the title."""
BAND = 80
"""Percentage of the seeds that a band covers. Quantiles are the same on a linear and on a log axis."""
OVER_SEEDS = "lines: mean over seeds; bands: 10% to 90% quantile over seeds"
RANGE_OVER_SEEDS = "lines: mean over seeds; bands: range over seeds"


def panels(
    number: int, title: str, columns: int = 3, inches: tuple[float, float] = PANEL_INCHES
) -> tuple[Figure, list[Axes]]:
    """An empty figure with ``number`` panels of ``inches`` each, at most ``columns`` in a row, and its panels."""
    sns.set_theme(context="paper", style="ticks", font_scale=0.9, rc={"axes.grid": True, "grid.alpha": 0.3})
    mpl.rcParams.update({"pdf.fonttype": 42, "axes.titlelocation": "left", "lines.markersize": 4})
    rows = -(-number // columns)
    columns = min(columns, number)
    size = (inches[0] * columns, inches[1] * rows + 0.8)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    letters = int(size[0] / TITLE_LETTER_INCHES)
    title = "\n".join(fill(line, letters) for line in title.splitlines())
    figure.suptitle(title, fontsize="small")
    for unused in axes.flat[number:]:
        unused.remove()
    return figure, list(axes.flat[:number])


def label_panels(axes: Sequence[Axes]) -> None:
    """Put (a), (b), … before the titles of the panels."""
    for letter, ax in zip(_letters(), axes, strict=False):
        ax.set_title(f"({letter}) {ax.get_title(loc='left')}", fontsize="medium", parse_math=False)


def _letters() -> Iterator[str]:
    """Yield a, …, z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Replace the legends of all panels by a single one below them, where it covers no data."""
    entries: dict[str, Artist] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
        if (legend := ax.get_legend()) is not None:
            legend.remove()
    longest = max((len(label) for label in entries), default=0)
    columns = max(1, int(figure.get_figwidth() / max(LEGEND_INCHES, HANDLE_INCHES + LETTER_INCHES * longest)))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns, frameon=False
    )


def save(figure: Figure, output: Path, job: FigureJob) -> None:
    """Write ``output`` (PDF) and a PNG next to it, with settings and provenance, but no date, as their metadata.

    Raises:
        UserError: a file cannot be written.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is final; computing it for each file takes most of the time
    settings = job.model_dump_json()
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"Creator": made_by(), "Subject": settings, "CreationDate": None},
        "png": {"settings": settings, **provenance()},
    }
    for kind, entries in metadata.items():
        with atomic_file(output.with_suffix(f".{kind}")) as temporary:
            figure.savefig(temporary, format=kind, dpi=job.drawing.dpi, metadata=entries)
    plt.close(figure)
