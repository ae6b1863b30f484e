"""What a configuration may hold, and what it means; ``test_config_errors.py`` has the answers to mistakes."""

import json
import re
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builders import REPOSITORY, smoke_config
from decaymerge.config import json_schema, parse
from decaymerge.config.experiment import Experiment
from decaymerge.config.merging import merge_name
from decaymerge.workflow import jobs
from decaymerge.workflow.jobs import FigureJob

GAUSSIAN = {"dataset": "gaussian", "dim": 12, "samples": 5}


def experiment(**settings: Any) -> Experiment:
    base = deepcopy(smoke_config()["experiments"]["independent"])
    return parse({"experiments": {"x": base | settings}}).experiments["x"]


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
    assert jobs.seed_blocks(experiment(seeds=5, seeds_per_job=3, first_seed=8)) == ["8-10", "11-12"]


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
