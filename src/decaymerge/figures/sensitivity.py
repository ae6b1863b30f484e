"""How the four hypotheses depend on step size, number of samples, width and scale of the initial weights (ours)."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure

from decaymerge.figures.style import COLOURS, MARKERS, label_panels, legend_below, panels
from decaymerge.hypotheses import HYPOTHESES, judge
from decaymerge.workflow.jobs import FigureJob

TITLES = {
    "sums_solve_independent_tasks": ("independent tasks", "gap of the sum"),
    "sums_fail_on_the_same_inputs": ("same inputs", "gap of the sum"),
    "decay_closes_the_gap": ("weight decay closes the gap", "gap without decay minus gap with it"),
    "decay_lowers_the_rank": ("weight decay lowers the rank", "log of the ratio of stable ranks"),
}


def draw(job: FigureJob, summaries: Sequence[xr.Dataset]) -> Figure:
    """A panel for each hypothesis, with the effect in each experiment that decides it.

    Args:
        job: Experiments that merge by summing, each with one setting changed.
        summaries: Their summaries, in the order of the job.
    """
    same_inputs = {name: one.same_inputs for name, one in zip(job.names, job.experiments, strict=True)}
    verdicts = judge(same_inputs, summaries, job.drawing.weight_decay)
    height = 0.9 + 0.11 * len(same_inputs)
    caption = (
        f"λ = {job.drawing.weight_decay:g}; points: mean over seeds; lines: 95% interval; dotted: threshold"
    )
    figure, axes = panels(len(TITLES), caption, columns=2, inches=(3.6, height))
    for ax, (key, (title, xlabel)) in zip(axes, TITLES.items(), strict=True):
        rows = verdicts[verdicts.hypothesis == key]
        names = list(dict.fromkeys(rows.experiment))
        for style, (samples, part) in enumerate(rows.groupby("samples", sort=False)):
            heights = [names.index(name) + 0.15 * (2 * style - 1) for name in part.experiment]
            ax.errorbar(
                part["mean"],
                heights,
                xerr=[part["mean"] - part.low, part.high - part["mean"]],
                linestyle="none",
                color=COLOURS[style],
                marker=MARKERS[style],
                label=f"{samples} data",
            )
        ax.axvline(HYPOTHESES[key].threshold, color="black", linestyle=":", linewidth=1)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel=xlabel, ylabel="experiment", ylim=(len(names) - 0.5, -0.5))
        ax.set_title(title)
    label_panels(axes)
    legend_below(figure, axes)
    return figure
