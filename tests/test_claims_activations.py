"""Claims about the activations of two networks, where they interfere, where they cannot, and before training."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from test_claims_trained import RELU, run_of, verdict_on


def second_is_zero(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    zero = networks[1].assign({name: 0 * networks[1][name] for name in ("W1", "W2", "W3")})
    return [networks[0], zero]


def with_own_units(networks: list[xr.Dataset]) -> list[xr.Dataset]:
    """Every network in hidden units of its own, which the other leaves at zero."""

    def widened(weight: xr.DataArray, first: bool, sides: tuple[bool, bool]) -> tuple[Any, np.ndarray]:
        out, into = weight.shape[-2:]
        extra = [(0, size) if first else (size, 0) for size in (out, into)]
        padding = [pad if is_hidden else (0, 0) for pad, is_hidden in zip(extra, sides, strict=True)]
        return [*weight.dims[:2], f"{weight.name}_out", f"{weight.name}_in"], np.pad(
            weight.values, [(0, 0), (0, 0), *padding]
        )

    sides = {"W1": (True, False), "W2": (True, True), "W3": (False, True)}
    return [
        network.drop_vars(list(sides)).assign(
            {name: widened(network[name], network is networks[0], hidden) for name, hidden in sides.items()}
        )
        for network in networks
    ]


@pytest.mark.parametrize("claim", ["lemma8", "theorem2"])
def test_activations_of_two_tasks(claim: str) -> None:
    """Networks that share units interfere; with units of their own they cannot; collapsed ones decide nothing."""
    assert verdict_on(claim, run_of("relu")).outcome == "not supported"
    wide = RELU | {"hidden": [12, 12]}
    assert verdict_on(claim, run_of("relu", networks=with_own_units, network=wide)).outcome == "holds"
    alone = verdict_on(claim, run_of("relu", networks=second_is_zero))
    assert alone.outcome == "assumption unmet" and "collapsed" in alone.note and alone.measured is None


def test_untrained_activations_have_a_cosine_near_one_over_pi() -> None:
    """Of a ReLU of independent centred pre-activations: (E h)² / E h² = 1/π as the width grows."""
    generator = torch.Generator().manual_seed(0)
    for width, expected in ((16, 0.335), (1024, 1 / np.pi)):
        first, second = torch.randn(
            2, 40_000 // width * 16, width, generator=generator, dtype=torch.float64
        ).relu()
        cosine = float(torch.cosine_similarity(first, second, dim=-1).mean())
        assert cosine == pytest.approx(expected, abs=0.003), width
