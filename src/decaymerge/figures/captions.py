"""Titles of figures: the network, training, data and seeds of each experiment in one line."""

from collections.abc import Sequence

from decaymerge.config.experiment import Experiment


def describe_experiment(experiment: Experiment) -> str:
    """A line for the title of a figure: network, n, d, η and number of seeds."""
    return _description(experiment, _widths(experiment))


def describe_sweep(experiments: Sequence[Experiment]) -> list[str]:
    """Lines for the title of a figure of several experiments; those that differ only in their widths share one."""
    groups: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        key = f"{_description(experiment, '')}; {experiment.training.steps} steps"
        groups.setdefault(key, []).append(experiment)
    lines = []
    for group in groups.values():
        widths = " | ".join(dict.fromkeys(map(_widths, group)))
        lines.append(f"{_description(group[0], widths)}; {group[0].training.steps} steps")
    return lines


def _widths(experiment: Experiment) -> str:
    return ", ".join(map(str, experiment.network.hidden)) or "none"


def _description(experiment: Experiment, widths: str) -> str:
    tasks = experiment.named_tasks
    samples = "/".join(str(value) for value in dict.fromkeys(task.samples for task in tasks.values()))
    dims = {task.input_dim(len(tasks)) for task in tasks.values()}
    network = experiment.network
    kind = {"relu": "ReLU", "linear": "linear"}[network.activation]
    power = "" if network.power == 1 else f"^{network.power:g}"
    return (
        f"{kind}{power} network, hidden widths {widths}; n = {samples} samples a task, d = {dims.pop()};"
        f" η = {experiment.training.step_size:g}; {experiment.seeds} seeds"
    )
