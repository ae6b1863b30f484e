"""Settings of each dataset: one model a dataset, whose data are made in ``tasks/``."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from decaymerge.settings import Name, Number, Settings, Size, refuse


class GaussianTask(Settings):
    """Gaussian inputs projected to the unit sphere (Figures 2 and 3 of the paper)."""

    dataset: Literal["gaussian"]
    dim: Size
    """Input dimension d, the same for all tasks of an experiment."""
    samples: Size
    """Training samples n of one task."""
    overlap: Literal["orthogonal", "same"] | Annotated[Number, Field(ge=0, le=1)] = "orthogonal"
    """``orthogonal``: each task on its own coordinates. ``same``: every task isotropic in all coordinates, with
    its own labelling vector. A number in [0, 1]: cosine of the principal angles between two tasks' subspaces,
    each of half the dimension."""
    labels: Literal["linear", "quadratic", "random"] = "linear"
    """``linear``: sign of ⟨v, x⟩. ``quadratic``: sign of ⟨v, x⟩² minus its median. ``random``: fair coin."""

    def input_dim(self, tasks: int) -> int:
        """Dimension d of the inputs when the experiment has ``tasks`` tasks."""
        if self.overlap == "orthogonal" and self.dim % tasks:
            raise refuse(f"dim: {self.dim} does not divide into {tasks} orthogonal tasks; use a multiple")
        if not isinstance(self.overlap, str) and (tasks != 2 or self.dim % 2):
            raise refuse(
                f"overlap: {self.overlap} is defined for two tasks and an even dim, not {tasks} and {self.dim};"
                " use orthogonal or same"
            )
        return self.dim


class FashionMnistTask(Settings):
    """Fashion-MNIST classes 0-4 against 5-9, zero-padded so that tasks are orthogonal (Appendix C.2)."""

    dataset: Literal["fashion_mnist"]
    samples: Annotated[Size, Field(le=60_000)]
    """Training images n of one task, drawn anew for each seed."""
    pixels: ClassVar[int] = 784

    def input_dim(self, tasks: int) -> int:
        """Dimension d of the padded inputs: one block of 784 coordinates for each task."""
        return self.pixels * tasks


class OwnTask(Settings):
    """What tasks with data of one's own have in common."""

    dim: Size
    """Input dimension of the data."""
    samples: Size
    """Training samples n of one task, drawn anew for each seed."""
    padded: bool = False
    """Give each task of the experiment its own block of ``dim`` coordinates, so that tasks are orthogonal."""
    normalised: bool = False
    """Scale each input to norm 1, as those of the paper are."""

    def input_dim(self, tasks: int) -> int:
        """Dimension d of the inputs, with the blocks of the other tasks where they are padded."""
        return self.dim * tasks if self.padded else self.dim


class FileTask(OwnTask):
    """Data of a file: arrays ``inputs`` (sample, feature) and binary ``labels`` (sample)."""

    dataset: Literal["file"]
    path: Annotated[str, Field(pattern=r"^[^{}]+\.(npz|nc)$")]
    """NumPy's ``.npz``, or NetCDF (``.nc``); relative to the folder that the run works in."""

    @property
    def file(self) -> str:
        """What the data are made from."""
        return self.path


class FunctionTask(OwnTask):
    """Data that a Python function makes: ``make(rng, samples, **arguments)`` returns inputs and binary labels."""

    dataset: Literal["function"]
    function: Annotated[str, Field(pattern=r"^[^{}]+\.py:[A-Za-z_]\w*$")]
    """``file.py:name``; the file is relative to the folder that the run works in. ``rng`` is a
    ``numpy.random.Generator`` of this task and seed alone."""
    arguments: dict[str, str | bool | int | float] = Field(default_factory=dict)
    """Further arguments by name."""

    @property
    def file(self) -> str:
        """What the data are made from."""
        return self.function.rpartition(":")[0]


TaskSettings = Annotated[
    GaussianTask | FashionMnistTask | FileTask | FunctionTask, Field(discriminator="dataset")
]
NamedTasks = Annotated[dict[Name, TaskSettings], Field(min_length=1, max_length=26)]


def tasks_form(value: Any) -> str:
    """A mapping with the key ``dataset`` is one task's settings; one of mappings is keyed by task name."""
    named = (
        isinstance(value, Mapping)
        and value
        and all(not isinstance(part, str | int) for part in value.values())
    )
    return "named" if named else "alike"
