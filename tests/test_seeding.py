"""Random streams: each its own, and the same for ever, since results are bit by bit those of earlier versions."""

import itertools

import pytest

from decaymerge.seeding import generator


def numbers(experiment: str, task: str, seed: int, purpose: str) -> list[int]:
    return generator(experiment, task, seed, purpose).integers(0, 2**32, 3).tolist()


def test_streams_differ_in_each_of_what_names_them() -> None:
    names = itertools.product(["independent", "same_inputs"], ["a", "b"], [0, 1], ["data", "weights"])
    streams = [tuple(numbers(*name)) for name in names]
    assert len(set(streams)) == len(streams) == 16


@pytest.mark.parametrize(
    ("purpose", "expected"),
    [("data", [3916660612, 2764178199, 3795655813]), ("weights", [3455564462, 1823997307, 2412949732])],
)
def test_streams_keep_their_values(purpose: str, expected: list[int]) -> None:
    assert numbers("independent", "a", 0, purpose) == expected
