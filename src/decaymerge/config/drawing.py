"""What figures show and how they are drawn (``figures`` in the YAML)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decaymerge.config.base import Settings
from decaymerge.config.figures import COMPARISONS
from decaymerge.config.numbers import Name, WeightDecay, Whole


class Drawing(Settings):
    """How all figures are drawn."""

    weight_decay: WeightDecay = 1e-3
    """λ of the panels that show a single one; the nearest of an experiment's own is taken."""
    dpi: Annotated[Whole, Field(ge=50, le=1200)] = 200
    """Resolution of the PNG; the PDF is vector."""


class Figures(Drawing):
    """What figures show and how they are written. Nothing here retrains."""

    renamed_keys: ClassVar = {
        name: f"experiments: {{{name}: [names]}}"
        for name in ("figure2", "figure3", "overlap", "many_tasks", "depth", "phase")
    } | {"layers": "experiments: {gap_by_layer: [names]}"}

    experiments: dict[Literal[COMPARISONS], Annotated[list[Name], Field(min_length=1)]] = Field(  # type: ignore[valid-type]
        default_factory=dict
    )
    """The experiments that a figure of several shows, in the order of its panels. ``figure3`` and ``figure2`` show
    ``[independent, same_inputs, weight_decay]`` and ``[labels_linear, labels_quadratic]`` if left out."""

    @property
    def drawing(self) -> Drawing:
        """How figures are drawn, without the experiments that they show."""
        return Drawing(**{name: getattr(self, name) for name in Drawing.model_fields})
