"""What a configuration may hold, and what it is told when it does not."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builders import REPOSITORY, changed, smoke_config
from conftest import Workflow
from decaymerge.config import json_schema, parse
from decaymerge.config.base import load
from decaymerge.config.experiment import Experiment
from decaymerge.config.merging import merge_name
from decaymerge.errors import UserError
from decaymerge.workflow import jobs
from decaymerge.workflow.jobs import FigureJob

GAUSSIAN = {"dataset": "gaussian", "dim": 12, "samples": 5}


def experiment(**settings: Any) -> Experiment:
    base = deepcopy(smoke_config()["experiments"]["independent"])
    return parse({"experiments": {"x": base | settings}}).experiments["x"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
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
    ],
)
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
        ({"method": "scaled", "coeff": 1}, "merge[0]: unknown key coeff = 1, did you mean 'coefficient'?"),
    ],
)
def test_a_bad_merge_method_is_one_line(method: Any, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        experiment(merge=[method])
    message = str(refusal.value)
    assert message.startswith("experiments.x.merge[0]") and expected in message and "\n" not in message


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


def test_yaml_reads_1e_4_as_a_string_and_it_is_accepted() -> None:
    training = yaml.safe_load("{step_size: 1e-1, steps: 10, weight_decay: [1e-4, 1.0e-3, 0]}")
    assert training["weight_decay"][0] == "1e-4"
    accepted = experiment(training=training).training
    assert accepted.weight_decay == [1e-4, 1e-3, 0]
    assert jobs.weight_decays(accepted) == ["0", "0.0001", "0.001"]


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_weight_decay_in_file_names_round_trips(weight_decay: float) -> None:
    text = jobs.format_weight_decay(weight_decay)
    assert float(text) == weight_decay
    assert jobs.format_weight_decay(float(text)) == text
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?", text)  # wildcard_constraints in rules/common.smk


def test_whole_numbers_may_be_text() -> None:
    assert (
        experiment(seeds="4", training={"step_size": 1, "steps": "1e3", "weight_decay": [0]}).training.steps
        == 1000
    )


def test_zero_and_minus_zero_are_one_weight_decay() -> None:
    assert jobs.format_weight_decay(-0.0) == "0"


def test_blocks_cover_each_seed_once_and_grow_at_the_end() -> None:
    blocks = jobs.seed_blocks(experiment(seeds=8, seeds_per_job=3))
    assert blocks == ["0-2", "3-5", "6-7"]
    assert [seed for block in blocks for seed in jobs.seeds_of(block)] == list(range(8))
    assert jobs.seed_blocks(experiment(seeds=12, seeds_per_job=3))[:2] == blocks[:2]


def test_merge_sets() -> None:
    assert experiment().merge_sets == {"a+b": ["a", "b"]}
    three = experiment(tasks=GAUSSIAN, task_count=3).merge_sets
    assert three == {"a+b": ["a", "b"], "a+c": ["a", "c"], "b+c": ["b", "c"], "all": ["a", "b", "c"]}
    assert experiment(tasks=GAUSSIAN, task_count=1, merge=None).merge_sets == {"a": ["a"]}


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "config").glob("*.yaml")))
def test_shipped_configurations_are_valid(name: str) -> None:
    parse(yaml.safe_load((REPOSITORY / "config" / name).read_text()))


def test_schema_is_current() -> None:
    assert json.loads((REPOSITORY / "config/schema.json").read_text()) == json_schema(), (
        "config/schema.json is stale: make schema"
    )


def test_schema_has_the_limits_in_words_that_editors_know() -> None:
    training = json_schema()["$defs"]["Training"]["properties"]
    assert training["step_size"]["exclusiveMinimum"] == 0 and training["steps"]["minimum"] == 1
    assert training["weight_decay"]["items"]["minimum"] == 0 and "ge" not in str(json_schema()).split("'")
    wrong = smoke_config()
    jsonschema.validate(wrong, json_schema())
    wrong["experiments"]["independent"]["training"]["step_size"] = 0
    with pytest.raises(jsonschema.ValidationError, match="0 is less than or equal to the minimum"):
        jsonschema.validate(wrong, json_schema())


@pytest.mark.parametrize("text", ["seeds: 2024-99-99", "seeds: !!int foo", "[" * 500])
def test_values_that_yaml_cannot_make_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml cannot be read") as refusal:
        load(tmp_path / "x.yaml")
    assert "\n" not in str(refusal.value)


def test_naming_an_experiment_for_one_figure_draws_no_other() -> None:
    config = smoke_config()
    before = parse(config)
    config["figures"]["experiments"]["phase"] = ["independent"]
    after = parse(config)
    assert after.pictures.keys() == before.pictures.keys() | {"phase"}
    for figure in before.pictures:
        assert FigureJob.of(after, figure) == FigureJob.of(before, figure)


def test_scaled_merges_that_differ_in_a_late_digit() -> None:
    config = smoke_config()
    close = [{"method": "scaled", "coefficient": value} for value in (0.12345671, 0.12345672)]
    config["experiments"]["independent"]["merge"] = close
    assert next(map(merge_name, parse(config).experiments["independent"].merges)) == "scaled=0.12345671"


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"experiments and scan\.models are both empty"):
        parse({})
    assert parse({"scan": {"models": {"mine": {"source": "path:x"}}}}).scan.models["mine"].sources == [
        "path:x"
    ]
