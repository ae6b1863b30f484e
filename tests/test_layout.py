"""Where files lie: a path and the search for it are inverse."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaymerge.workflow import jobs, layout

PLACES = [
    layout.TASKS,
    layout.TRAINED,
    layout.MERGED,
    layout.EVALUATED,
    layout.SUMMARY,
    layout.CLAIMS,
    layout.SCAN,
    layout.FIGURE,
]
WILDCARDS = {
    "experiment": ["independent", "depth_2"],
    "task": ["a", "b_1"],
    "merge_set": ["a+b", "all", "first_4"],
    "weight_decay": [jobs.format_weight_decay(value) for value in (0, 1e-5, 0.001, 1, 1e16)],
    "block": ["0-9", "10-19"],
    "model": ["tiny_bert"],
    "figure": ["figure3"],
}


def places_of(place: str) -> list[dict[str, str]]:
    """Every combination of the place's wildcards."""
    combinations: list[dict[str, str]] = [{}]
    for name, values in WILDCARDS.items():
        if f"{{{name}}}" in place:
            combinations = [known | {name: value} for known in combinations for value in values]
    return combinations


@pytest.mark.parametrize("place", PLACES)
def test_every_path_is_found_with_the_wildcards_that_made_it(place: str, tmp_path: Path) -> None:
    paths = {layout.path(tmp_path, place, **wildcards): wildcards for wildcards in places_of(place)}
    assert len(paths) == len(places_of(place))
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert dict(layout.find(tmp_path, place)) == paths
    assert list(dict(layout.find(tmp_path, place))) == sorted(paths)


def test_weight_decays_in_names_are_the_shortest() -> None:
    assert WILDCARDS["weight_decay"] == ["0", "1e-05", "0.001", "1", "1e+16"]


def test_wildcards_that_are_given_are_fixed(tmp_path: Path) -> None:
    for wildcards in places_of(layout.TRAINED):
        path = layout.path(tmp_path, layout.TRAINED, **wildcards)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    given = {"experiment": "depth_2", "weight_decay": "1e-05"}
    matches = [wildcards for _, wildcards in layout.find(tmp_path, layout.TRAINED, **given)]
    assert len(matches) == 4 and all(given.items() <= wildcards.items() for wildcards in matches)
    assert not list(layout.find(tmp_path, layout.TRAINED, experiment="depth"))


def test_files_of_other_places_are_not_found(tmp_path: Path) -> None:
    for name in ("summary.nc", "train/a/weight_decay=0/.seeds=0-9.nc.restart", "train/a/seeds=0-9.nc"):
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not list(layout.find(tmp_path, layout.TRAINED))


def test_a_fixed_value_is_no_pattern(tmp_path: Path) -> None:
    path = layout.path(tmp_path, layout.SUMMARY, experiment="x")
    path.parent.mkdir(parents=True)
    path.touch()
    assert not list(layout.find(tmp_path, layout.SUMMARY, experiment="?"))


@given(st.floats(min_value=0, max_value=1e12))
def test_every_weight_decay_is_one_part_of_a_path(weight_decay: float) -> None:
    text = jobs.format_weight_decay(weight_decay)
    path = layout.path(
        Path("results"), layout.TRAINED, experiment="x", task="a", weight_decay=text, block="0-1"
    )
    assert path.parent.name == f"weight_decay={text}" and len(path.parts) == 6


def test_log_benchmark_and_result_of_a_place() -> None:
    place = layout.SUMMARY
    assert layout.result(place) == "results/{experiment}/summary.nc"
    assert layout.result(place, ".json") == "results/{experiment}/summary.json"
    assert layout.log(place) == "logs/{experiment}/summary.log"
    assert layout.benchmark(place) == "benchmarks/{experiment}/summary.tsv"
