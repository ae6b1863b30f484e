"""What a configuration is told when it cannot be: one line with the key, its value and the remedy."""

from pathlib import Path
from typing import Any

import pytest

from builders import changed, smoke_config
from conftest import Workflow
from decaymerge.config import parse
from decaymerge.config.base import load
from decaymerge.errors import UserError

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
    ("device", "tpu", "device = 'tpu': Input should be 'cpu', 'cuda' or 'auto'"),
]
"""A setting, a value that it cannot have, and a part of the answer."""


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_refuses(path: str, value: Any, expected: str) -> None:
    if "/../" in path:
        config = smoke_config()
        config["experiments"]["../x"] = value
    else:
        config = changed(smoke_config(), path, value)
    with pytest.raises(UserError) as refusal:
        parse(config)
    assert expected in str(refusal.value)


OLD_KEYS = [
    (
        "experiments/independent/training/method",
        "gd",
        "unknown key method = 'gd': it is now called optimiser",
    ),
    (
        "experiments/independent/training/checkpoints",
        12,
        "unknown key checkpoints = 12: it is now called kept_steps",
    ),
    ("figures/layers", ["independent"], "it is now called experiments: {gap_by_layer: [names]}"),
    *(
        (f"figures/{figure}", ["independent"], f"it is now called experiments: {{{figure}: [names]}}")
        for figure in ("figure2", "figure3", "overlap", "many_tasks", "depth", "phase")
    ),
]


@pytest.mark.parametrize(("path", "value", "expected"), OLD_KEYS)
def test_an_old_key_is_answered_with_its_new_name(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(changed(smoke_config(), path, value))
    message = str(refusal.value)
    assert expected in message and "\n" not in message
    assert message.startswith(path.rpartition("/")[0].replace("/", ".") + ": unknown key ")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("summ", "merge[0] = 'summ': a merge method is expected: sum, average, scaled"),
        (3, "merge[0] = 3: a merge method is expected"),
        (["sum"], "merge[0] = ['sum']: a merge method is expected"),
        ({"coefficient": 1}, "merge[0]: a merge method is expected"),
        ("scaled", "scaled has parameters; write {method: scaled, coefficient: …}"),
        ({"method": "sum"}, "merge[0]: sum has no parameters; write its name alone"),
        ({"method": "scaled"}, "merge[0].coefficient: Field required"),
        (
            {"method": "scaled", "coefficient": "x"},
            "merge[0].coefficient = 'x': Input should be a valid number",
        ),
        ({"method": "scaled", "coefficient": True}, "merge[0].coefficient = True: a number is expected"),
        (
            {"method": "scaled", "coefficient": float("nan")},
            "merge[0].coefficient = nan: Input should be a finite",
        ),
        (
            {"method": "scaled", "coefficient": 1e7},
            "merge[0].coefficient = 10000000.0: Input should be less than",
        ),
        ({"method": "scaled", "coefficient": {"a": True}}, "merge[0].coefficient: a: a number is expected"),
        (
            {"method": "scaled", "coefficient": {"a": "x"}},
            "merge[0].coefficient.a = 'x': Input should be a valid",
        ),
        ({"method": "scaled", "coeff": 1}, "merge[0]: unknown key coeff = 1, did you mean 'coefficient'?"),
    ],
)
def test_a_bad_merge_method_is_one_line(method: Any, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(changed(smoke_config(), "experiments/independent/merge", [method]))
    message = str(refusal.value)
    assert (
        message.startswith("experiments.independent.merge[0]") and expected in message and "\n" not in message
    )


@pytest.mark.workflow
def test_refused_before_any_job_starts(tmp_path: Any) -> None:
    workflow = Workflow(
        tmp_path, changed(smoke_config(), "experiments/independent/training/weight_decay", [-1])
    )
    answer = workflow.snakemake()
    assert answer.returncode != 0
    assert "experiments.independent.training.weight_decay[0] = -1" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("text", ["seeds: 2024-99-99", "seeds: !!int foo", "[" * 500])
def test_values_that_yaml_cannot_make_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml cannot be read") as refusal:
        load(tmp_path / "x.yaml")
    assert "\n" not in str(refusal.value)


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"experiments and scan\.models are both empty"):
        parse({})
    assert parse({"scan": {"models": {"mine": {"source": "path:x"}}}}).scan.models["mine"].sources == [
        "path:x"
    ]
