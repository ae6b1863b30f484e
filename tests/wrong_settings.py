"""Settings that a configuration cannot have, and what is said of each."""

from builders import smoke_config

GAUSSIAN = {"dataset": "gaussian", "dim": 12, "samples": 5}


WRONG = [
    ("experimets", {}, "unknown key experimets = {}, did you mean 'experiments'?"),
    (
        "experiments/independent/trainin",
        1,
        "experiments.independent: unknown key trainin = 1, did you mean",
    ),
    (
        "experiments/independent/training/weight_decay",
        [-0.1],
        "weight_decay[0] = -0.1: Input should be greater",
    ),
    (
        "experiments/independent/training/weight_decay",
        [],
        "weight_decay = []: List should have at least 1",
    ),
    (
        "experiments/independent/training/weight_decay",
        [True],
        "weight_decay[0] = True: a number is expected",
    ),
    (
        "experiments/independent/training/weight_decay",
        [float("nan")],
        "weight_decay[0] = nan: Input should be a",
    ),
    ("experiments/independent/training/weight_decay", [1e-4, "1e-4"], "names a value twice"),
    (
        "experiments/independent/training/step_size",
        "fast",
        "training.step_size = 'fast': Input should be a valid",
    ),
    (
        "experiments/independent/training/step_size",
        0,
        "training.step_size = 0: Input should be greater than 0",
    ),
    (
        "experiments/independent/training/steps",
        10.5,
        "training.steps = 10.5: Input should be a valid integer",
    ),
    (
        "experiments/independent/training/kept_steps",
        1,
        "kept_steps = 1: Input should be greater than or equal",
    ),
    (
        "experiments/independent/training/optimiser",
        "adam",
        "training.optimiser = 'adam': Input should be 'gd'",
    ),
    (
        "experiments/independent/seeds",
        0,
        "experiments.independent.seeds = 0: Input should be greater than or",
    ),
    (
        "experiments/independent/seeds",
        True,
        "independent.seeds = True: a whole number is expected, not",
    ),
    (
        "experiments/independent/merge",
        ["summ"],
        "merge[0] = 'summ': a merge method is expected: sum, average",
    ),
    ("experiments/independent/merge", ["sum", "sum"], "names a method twice"),
    (
        "experiments/independent/network/hidden",
        [0],
        "hidden[0] = 0: Input should be greater than or equal to 1",
    ),
    (
        "experiments/independent/network/activation",
        "tanh",
        "activation = 'tanh': Input should be 'relu' or",
    ),
    (
        "experiments/independent/tasks/overlap",
        1.5,
        "tasks.overlap = 1.5: Input should be less than or equal to 1",
    ),
    ("experiments/independent/tasks/dim", 21, "dim: 21 does not divide into 2 orthogonal tasks"),
    (
        "experiments/independent/tasks/dataset",
        "mnist",
        "tasks.dataset = 'mnist': Input should be one of 'gauss",
    ),
    (
        "experiments/fashion_mnist/tasks/samples",
        70_000,
        "tasks.samples = 70000: Input should be less than or",
    ),
    (
        "experiments/independent/tasks",
        {"a": GAUSSIAN, "b": GAUSSIAN | {"dim": 10}},
        "experiments.independent: tasks have different input dimensions (a: 12, b: 10)",
    ),
    ("experiments/independent/tasks", {"../a": GAUSSIAN}, "tasks.../a: a name must match pattern"),
    ("experiments/a\nb", {}, "a name must match pattern"),
    ("experiments/a b", {}, "a name must match pattern"),
    ("experiments/../x", {}, "experiments.../x: a name must match pattern"),
    (
        "experiments/scan",
        smoke_config()["experiments"]["independent"],
        "'scan' is taken by a result or figure",
    ),
    ("experiments/claims_1", smoke_config()["experiments"]["independent"], "'claims_1' is taken"),
    (
        "scan/models/tiny_bert/source",
        "gpt2",
        "scan.models.tiny_bert.source = 'gpt2': give hub:org",
    ),
    (
        "scan/models/tiny_bert/source",
        [],
        "scan.models.tiny_bert.source = []: give hub:org",
    ),
    ("scan/models/tiny_bert/sha256", "abc", "scan.models.tiny_bert.sha256 = 'abc': String should match"),
    ("scan/tolerance", 0, "scan.tolerance = 0: Input should be greater than"),
    ("figures", {"dpi": 1}, "figures.dpi = 1: Input should be greater than or equal to 50"),
    (
        "figures",
        {"experiments": {"figure3": ["independent", "same", "weight_decay"]}},
        "figures.experiments.figure3[1] = 'same' is not an experiment",
    ),
    (
        "experiments/independent/tasks",
        {"dim": 4, "samples": 9},
        "independent.tasks.dataset: Field required",
    ),
    (
        "experiments/independent/tasks",
        {"a": GAUSSIAN | {"overlap": 0.1}, "b": GAUSSIAN | {"overlap": 0.2}},
        "tasks have different overlaps",
    ),
    ("minutes_per_job", -1, "minutes_per_job = -1: Input should be greater than or equal to 0"),
    ("minutes_per_job", True, "minutes_per_job = True: a number is expected"),
    ("device", "tpu", "device = 'tpu': Input should be 'cpu', 'cuda' or 'auto'"),
]
"""A setting, a value that it cannot have, and a part of the answer."""
