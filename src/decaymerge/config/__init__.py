"""What a user writes in ``config/*.yaml``, as pydantic models: the single source of keys, types and limits.

One module describes each part of the YAML. ``config/schema.json`` is generated from them (``decaymerge schema``).
Each stage's job gets only the part that it needs, see ``workflow/jobs.py``. Unknown keys are errors.
"""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from decaymerge.config.base import JsonSchema, Settings, refuse, validate
from decaymerge.config.datasets import FETCHED
from decaymerge.config.drawing import Figures
from decaymerge.config.experiment import Experiment
from decaymerge.config.figures import FIGURES, Picture
from decaymerge.config.numbers import Name, Number
from decaymerge.config.scan import Scan

TAKEN = ("scan", "figures", "overview", *FIGURES)
"""Names in ``results`` and ``results/figures`` that no experiment can have."""


class Config(Settings):
    """A whole configuration file."""

    experiments: dict[Name, Experiment] = Field(default_factory=dict)
    """What is trained, merged and evaluated; the name is that of the folder of its results."""
    scan: Scan = Scan()
    """Checkpoints of transformers, and how they are scanned."""
    fetch: dict[Literal[tuple(FETCHED)], str] = Field(default_factory=dict)  # type: ignore[valid-type]
    """Folder of each dataset that is fetched, such as ``fashion_mnist``, if it already has the dataset's files; the
    usual places are tried without being told."""
    figures: Figures = Figures()
    """What is drawn, and how."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where tensors live. It does not determine a result, so changing it re-runs nothing."""
    minutes_per_job: Annotated[Number, Field(ge=0, le=10_000)] = 5
    """Data, trainings, merges and evaluations of an experiment that take about as long on a slow core are one job.
    At 0 each file has a job of its own. A job that runs again makes only the files that are missing or would
    differ."""
    keep_weights: bool = True
    """Keep networks after they are evaluated and their claims checked. Without them a large sweep has a hundredth
    of its size, and a later job that needs a network trains it again."""

    @model_validator(mode="after")
    def _has_work(self) -> "Config":
        if not self.experiments and not self.scan.models:
            raise refuse("experiments and scan.models are both empty: there is nothing to do")
        return self

    @model_validator(mode="after")
    def _names_are_free(self) -> "Config":
        for name in self.experiments:
            if name in TAKEN or name.startswith(("claims", "figure1_")):
                raise refuse(f"experiment name {name!r} is taken by a result or figure; choose another")
        return self

    @model_validator(mode="after")
    def _figures_fit(self) -> "Config":
        for figure, names in self.figures.experiments.items():
            setting = f"figures.experiments.{figure}"
            for i, name in enumerate(names):
                if name not in self.experiments:
                    known = ", ".join(self.experiments)
                    raise refuse(f"{setting}[{i}] = {name!r} is not an experiment; there are: {known}")
                if names.count(name) > 1:
                    raise refuse(f"{setting}: {name} is named twice")
            if wrong := FIGURES[figure].check({name: self.experiments[name] for name in names}):
                raise refuse(f"{setting}: {wrong}")
        return self

    @cached_property
    def claimed(self) -> list[str]:
        """Experiments whose claims are checked: equalities and bounds need the precision of float64."""
        return [name for name, one in self.experiments.items() if one.training.dtype == "float64"]

    @cached_property
    def comparisons(self) -> dict[str, list[str]]:
        """Experiments of each figure that shows several, of those figures that are drawn."""
        defaults = {
            figure: list(row.default)
            for figure, row in FIGURES.items()
            if row.default
            and set(row.default) <= self.experiments.keys()
            and not row.check({name: self.experiments[name] for name in row.default})
        }
        named = defaults | self.figures.experiments
        return {figure: named[figure] for figure in FIGURES if figure in named}

    @cached_property
    def summarised(self) -> list[str]:
        """Experiments that a figure shows by their summary; others are there for their claims."""
        compared = [name for names in self.comparisons.values() for name in names]
        by_summary = [
            name
            for figure, names in self.comparisons.items()
            if FIGURES[figure].reads == "summary"
            for name in names
        ]
        alone = [name for name in self.experiments if name not in {*compared, *self.claimed}]
        return list(dict.fromkeys([*by_summary, *alone]))

    @cached_property
    def summed(self) -> list[str]:
        """Experiments with a summary that merge by summing: the hypotheses are about them."""
        return [name for name in self.summarised if "sum" in self.experiments[name].merges]

    @cached_property
    def pictures(self) -> dict[str, Picture]:
        """Every figure of the run by the name of its file; an experiment that no other figure shows has its own."""
        pictures = {figure: Picture(figure, names) for figure, names in self.comparisons.items()}
        compared = {name for names in self.comparisons.values() for name in names}
        pictures |= {name: Picture("experiment", [name]) for name in self.summarised if name not in compared}
        if models := list(self.scan.models):
            pictures |= {"figure1": Picture("figure1", models)}
            pictures |= {f"figure1_{name}": Picture("figure1", [name]) for name in models}
        return pictures


def parse(raw: object) -> Config:
    """A configuration from the content of its file.

    Raises:
        UserError: one line for each wrong setting: its key, its value and what is allowed.
    """
    return validate(Config, raw)


def json_schema() -> dict[str, Any]:
    """The configuration as a JSON schema, for editors and the reference."""
    return Config.model_json_schema(schema_generator=JsonSchema)
