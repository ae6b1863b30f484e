"""The tables of the pages are those of ``docs/numbers``, and a number that leaves its interval is noticed."""

from pathlib import Path

import pandas as pd
import pytest

import markdown_tables
import page_tables
import run_numbers
from decaymerge import store


@pytest.mark.parametrize("page", page_tables.PAGES, ids=lambda page: page.name)
def test_tables_are_written_from_the_numbers(page: Path) -> None:
    text = page.read_text()
    assert page_tables.written(text) == text, "python docs/hooks/page_tables.py"


def test_intervals_have_two_digits() -> None:
    row = pd.Series({"mean": 0.123456, "low": 0.1, "high": 0.147})
    assert markdown_tables.with_interval(row) == "0.123 ± 0.023"
    assert markdown_tables.with_interval(row, factor=100) == "12.3 ± 2.3"
    assert markdown_tables.with_interval(pd.Series({"mean": 0.0, "low": 0.0, "high": 0.0})) == "0"


def write_run(results: Path, mean: float, outcome: str) -> None:
    """A run with one number and one verdict."""
    row = {"quantity": "loss", "merge_set": "a+b", "weight_decay": 1e-3, "model": "own", "task": "mean"}
    numbers = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 10, "collapsed": 0}
    store.write_table(pd.DataFrame([row | numbers]), results / "x/table.csv")
    effect = {"hypothesis": "h", "experiment": "x", "samples": "test", "mean": mean, "low": 0.0, "high": 9.0}
    store.write_table(
        pd.DataFrame([effect | {"n": 10, "p": 0.1, "outcome": outcome}]), results / "hypotheses.csv"
    )


def test_a_number_that_leaves_its_interval_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path / "results", 1.0, "holds")
    run_numbers.collect(tmp_path / "results", tmp_path / "kept")
    for mean, outcome, outside in [(1.05, "holds", False), (1.2, "holds", True), (1.05, "undecided", True)]:
        write_run(tmp_path / "results", mean, outcome)
        compared = run_numbers.compare(tmp_path / "results", tmp_path / "kept")
        assert (not compared.inside.all()) == outside, compared
    (tmp_path / "results/hypotheses.csv").unlink()
    assert not run_numbers.compare(
        tmp_path / "results", tmp_path / "kept"
    ).inside.all()  # a number is missing
