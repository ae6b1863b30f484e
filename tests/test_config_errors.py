"""What a configuration is told when it cannot be: one line with the key, its value and the remedy."""

from pathlib import Path
from typing import Any

import pytest

from builders import changed, smoke_config
from conftest import Workflow
from decaymerge.config import parse
from decaymerge.config.base import load
from decaymerge.errors import UserError
from wrong_settings import WRONG


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
