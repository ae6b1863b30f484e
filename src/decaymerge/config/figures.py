"""The table of all figures: which there are, and what each shows.

A figure is a row of ``FIGURES`` and a file ``figures/{name}.py`` with a function ``draw``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from decaymerge.config.datasets import GaussianTask
from decaymerge.config.experiment import Experiment
from decaymerge.config.merging import merge_name

Experiments = Mapping[str, Experiment]


@dataclass(frozen=True)
class FigureRow:
    """What the workflow knows of a figure.

    Attributes:
        shows: A few words for the report's list.
        caption: Text under the picture in the report; ``{names}`` are the experiments or models that it shows.
        needs: Variables that the files must have.
        reads: Which files it is drawn from.
        default: Experiments that it shows where the configuration has all of them and names no others.
        check: What is wrong with the experiments that it is to show, or an empty text.
    """

    shows: str
    caption: str
    needs: tuple[str, ...]
    reads: Literal["summary", "claims", "scan"] = "summary"
    default: tuple[str, ...] = ()
    check: Callable[[Experiments], str] = lambda experiments: ""


def _single_tasks(experiments: Experiments) -> str:
    several = [name for name, experiment in experiments.items() if len(experiment.named_tasks) > 1]
    return f"{several[0]} must have a single task" if several else ""


def _two_panels_and_a_sweep(experiments: Experiments) -> str:
    if len(experiments) != 3:
        return "three experiments are expected: independent tasks, the same inputs, a sweep of weight_decay"
    flat = [
        name
        for name, experiment in experiments.items()
        if not experiment.merges or not experiment.network.hidden
    ]
    return f"{flat[0]} must merge two tasks or more, and have a hidden layer" if flat else ""


def _numeric_overlaps(experiments: Experiments) -> str:
    for name, experiment in experiments.items():
        tasks, training = experiment.named_tasks.values(), experiment.training
        numeric = all(isinstance(task, GaussianTask) and not isinstance(task.overlap, str) for task in tasks)
        if not numeric or (training.optimiser, training.dtype) != ("gd", "float64") or training.finish:
            return (
                f"{name} must have two Gaussian tasks with a number as overlap, optimiser: gd without finish, and"
                " dtype: float64"
            )
    return ""


def _sums(experiments: Experiments) -> str:
    for name, experiment in experiments.items():
        if "sum" not in map(merge_name, experiment.merges):
            return f"{name} must have two tasks or more and merge: [sum]"
    return ""


def _sums_of_one_sweep(experiments: Experiments) -> str:
    sweeps = {tuple(sorted(experiment.training.weight_decay)) for experiment in experiments.values()}
    differ = f"{', '.join(experiments)} must have the same training.weight_decay" if len(sweeps) > 1 else ""
    return _sums(experiments) or differ


def _sums_of_different_depths(experiments: Experiments) -> str:
    depths = [experiment.network.depth for experiment in experiments.values()]
    alike = f"{', '.join(experiments)} must have different depths, they have {depths}"
    return _sums_of_one_sweep(experiments) or (alike if len(set(depths)) < len(depths) else "")


def _fits(experiments: Experiments) -> str:
    for name, experiment in experiments.items():
        names = set(map(merge_name, experiment.merges))
        if not (
            experiment.effective_dimension and {"sum", "least_squares"} <= names and experiment.network.hidden
        ):
            return (
                f"{name} must have effective_dimension: true, a hidden layer, and merge: [sum, least_squares]"
            )
    return _sums_of_one_sweep(experiments)


def _merges_alike(experiments: Experiments) -> str:
    first, *others = experiments.values()
    if any(other.merges != first.merges for other in others):
        return f"{', '.join(experiments)} must have the same merge methods"
    return ""


def _sums_by_layer(experiments: Experiments) -> str:
    for name, experiment in experiments.items():
        if not experiment.gap_by_layer:
            return f"{name} must have gap_by_layer: true"
    return _sums_of_one_sweep(experiments)


FIGURES: dict[str, FigureRow] = {
    "figure1": FigureRow(
        shows="norms and stable ranks, layer by layer",
        caption="Frobenius norm and stable rank of each role's matrices, layer by layer, of {names} (Figure 1 and"
        " Appendix C.1 of the paper).",
        needs=("frobenius_norm", "layer_name"),
        reads="scan",
    ),
    "table1": FigureRow(
        shows="layers and dimensions of the transformers",
        caption="Layers and dimensions of the models that were scanned (Table 1 of the paper), with the paper's own"
        " below them.",
        needs=("frobenius_norm", "layer_name"),
        reads="scan",
    ),
    "figure2": FigureRow(
        shows="norm ratio and errors against λ, one task",
        caption="One task, minibatch SGD, linear and quadratic labels (Figure 2 of the paper). From the top: mean"
        " over layers of the inverse norm ratio ‖W‖₂/‖W‖_F, error, margin error and loss at the last step, against"
        " λ, on training data and on test data where they are given. The paper finds that the ratio grows with λ"
        " even where the network errs.",
        needs=("loss", "test_loss", "merge_set", "largest_output", "norm_ratio", "margin_error"),
        default=("labels_linear", "labels_quadratic"),
        check=_single_tasks,
    ),
    "figure3": FigureRow(
        shows="own and merged networks of two tasks",
        caption="Two tasks (Figure 3 of the paper): own and merged networks on independent inputs and on the same"
        " inputs, the gap between merged and own loss against λ, and the stable rank of each layer along training."
        " Losses are on training data unless a legend says otherwise.",
        needs=("loss", "test_loss", "merge_set", "largest_output", "stable_rank"),
        default=("independent", "same_inputs", "weight_decay"),
        check=_two_panels_and_a_sweep,
    ),
    "overlap": FigureRow(
        shows="interference of the first layer, measured, foreseen, bounded",
        caption="Interference of the first layer, the mean norm of W'₁x over the other task's inputs, as the"
        " overlap of two tasks grows: measured after training, foreseen from one network's trajectory (ours), and"
        " bounded (ours, and Lemma 5 of the paper).",
        needs=("interference",),
        reads="claims",
        check=_numeric_overlaps,
    ),
    "experiment": FigureRow(
        shows="own and merged networks of this experiment",
        caption="The pictures of Figure 3 for the experiment {names}: loss of own and merged networks along"
        " training, loss and gap against λ at the last step, and stable rank. Losses are on training data unless a"
        " legend says otherwise.",
        needs=("loss", "test_loss", "merge_set", "largest_output", "stable_rank"),
    ),
    "many_tasks": FigureRow(
        shows="sums of more and more networks",
        caption="Networks of more and more tasks, summed: training loss and error of the sum and of the own"
        " networks, mean over the tasks in the sum, at the last step. Ours, not the paper's.",
        needs=("loss", "merge_set", "largest_output"),
        check=_sums_of_one_sweep,
    ),
    "tasks_fit": FigureRow(
        shows="how many tasks fit into one network",
        caption="How many tasks fit: training error of the sum and of least squares against the number of tasks,"
        " the share of the width that the tasks' activations take up, and the number of tasks at which 1% error is"
        " passed against the predicted number, at which that share is 1. Ours, not the paper's.",
        needs=("error", "effective_dimension", "merge_set", "largest_output"),
        check=_fits,
    ),
    "decay_and_inputs": FigureRow(
        shows="what weight decay buys, and what inputs buy",
        caption="Own and merged networks at the last step against λ, on training and on test data: the sum, the sum"
        " with W₁ on the span of its inputs, and least squares on the tasks' inputs. Ours, not the paper's.",
        needs=("loss", "test_loss", "merge_set", "largest_output"),
        check=_merges_alike,
    ),
    "depth": FigureRow(
        shows="own networks and their sum against the depth",
        caption="Training loss of own networks, and loss and error of their sum at the last step, against the"
        " number of weight matrices. Ours, not the paper's.",
        needs=("loss", "merge_set", "largest_output"),
        check=_sums_of_different_depths,
    ),
    "gap_by_layer": FigureRow(
        shows="the gap between own networks and their sum, layer by layer",
        caption="The gap between the loss of the sum and of the own networks at the last step, in parts that add"
        " up to it: what each layer's cross terms bring, counted where a signal first leaves the own network, and"
        " where it last comes back. Ours, not the paper's.",
        needs=("loss_increment", "cross_term", "largest_output"),
        check=_sums_by_layer,
    ),
    "sensitivity": FigureRow(
        shows="effects of the hypotheses in each experiment",
        caption="How the four hypotheses about sums depend on settings: {names}. Points are means over seeds, lines"
        " their 95% intervals; the dotted line is the threshold that decides.",
        needs=("loss", "test_loss", "stable_rank", "merge_set", "largest_output"),
        check=_sums,
    ),
    "phase": FigureRow(
        shows="own networks and their sum over steps and λ",
        caption="Training loss of own networks and of their sum, and the gap between them, over steps and λ."
        " Ours, not the paper's.",
        needs=("loss", "merge_set", "largest_output"),
        check=_sums,
    ),
}
"""Every figure by its name."""

COMPARISONS = tuple(name for name, row in FIGURES.items() if row.reads != "scan" and name != "experiment")
"""Figures that show several experiments."""


class Picture(NamedTuple):
    """A file in ``results/figures``: which figure it is, and the experiments or models that it shows."""

    figure: str
    names: list[str]

    @property
    def reads(self) -> str:
        """Which files it is drawn from."""
        return FIGURES[self.figure].reads

    @property
    def caption(self) -> str:
        """Text under it in the report."""
        return FIGURES[self.figure].caption.format(names=", ".join(self.names))
