"""Settings of each dataset: one model a dataset, whose data are drawn in ``tasks/{dataset}.py``."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from decaymerge.config.base import Settings, refuse
from decaymerge.config.numbers import Name, Number, Size, Whole


class Task(Settings, ABC):
    """What every dataset says of itself."""

    fetched: ClassVar[tuple[str, ...]] = ()
    """Names of the files that ``fetch/{dataset}.py`` puts into ``resources/{dataset}``."""
    loading_bytes: ClassVar[int] = 0
    """Memory that its files take while they are read."""
    samples: Size
    """Training samples n of one task, drawn for each seed."""
    test_samples: Annotated[Whole, Field(ge=0, le=10**6)] | None = None
    """Held-out samples of one task, drawn for each seed and used by no training: as many as ``samples`` if left
    out, none for 0."""

    @property
    def test_size(self) -> int:
        """``test_samples``, with the default filled in."""
        return self.samples if self.test_samples is None else self.test_samples

    @abstractmethod
    def input_dim(self, task_count: int) -> int:
        """Dimension d of the inputs in an experiment with ``task_count`` tasks."""

    def files(self, resources: Path) -> list[Path]:
        """Files that the data are drawn from; those that are fetched lie in ``resources``."""
        return []


class GaussianTask(Task):
    """Gaussian inputs projected to the unit sphere (Figures 2 and 3 of the paper)."""

    dataset: Literal["gaussian"]
    dim: Size
    """Input dimension d, the same for all tasks of an experiment."""
    overlap: Literal["orthogonal", "same"] | Annotated[Number, Field(ge=0, le=1)] = "orthogonal"
    """``orthogonal``: each task on its own coordinates. ``same``: every task isotropic in all coordinates, with
    its own labelling vector. A number in [0, 1]: cosine of the principal angles between two tasks' subspaces,
    each of half the dimension."""
    labels: Literal["linear", "quadratic", "random"] = "linear"
    """``linear``: sign of ⟨v, x⟩. ``quadratic``: sign of ⟨v, x⟩² minus its median over the training samples.
    ``random``: fair coin. It is tossed for test samples as well, so the test error of every network is 50% by
    construction, but for chance."""

    def input_dim(self, task_count: int) -> int:
        """``dim``, if it suits the overlap and the number of tasks."""
        if self.overlap == "orthogonal" and self.dim % task_count:
            raise refuse(
                f"dim: {self.dim} does not divide into {task_count} orthogonal tasks; use a multiple"
            )
        if not isinstance(self.overlap, str) and (task_count != 2 or self.dim % 2):
            raise refuse(
                f"overlap: {self.overlap} is defined for two tasks and an even dim, not {task_count} and"
                f" {self.dim}; use orthogonal or same"
            )
        return self.dim


class FashionMnistTask(Task):
    """Fashion-MNIST classes 0-4 against 5-9, zero-padded so that tasks are orthogonal (Appendix C.2)."""

    fetched = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    loading_bytes = 150_000_000
    pixels: ClassVar[int] = 784
    test_images: ClassVar[int] = 10_000

    dataset: Literal["fashion_mnist"]
    samples: Annotated[Size, Field(le=60_000)]
    """Training images n of one task, drawn for each seed."""
    test_samples: Annotated[Whole, Field(ge=0, le=test_images)] | None = None
    """Images of one task from Fashion-MNIST's 10 000 test images, drawn for each seed: as many as ``samples``, or
    all 10 000, if left out; none for 0."""

    @property
    def test_size(self) -> int:
        """``test_samples``, with the default filled in."""
        return min(super().test_size, self.test_images)

    def input_dim(self, task_count: int) -> int:
        """One block of 784 coordinates for each task."""
        return self.pixels * task_count

    def files(self, resources: Path) -> list[Path]:
        """Training images and labels, test images and labels."""
        return [resources / self.dataset / name for name in self.fetched]


class AxesTask(Task):
    """One input for each task, the unit vector of its own axis, with the label 1: counterexample to Theorem 2."""

    dataset: Literal["axes"]
    samples: Literal[1] = 1
    """One sample."""
    test_samples: Literal[0] = 0
    """There is nothing to hold out."""

    def input_dim(self, task_count: int) -> int:
        """One coordinate for each task."""
        return task_count


class UserTask(Task, ABC):
    """What tasks with the user's data have in common."""

    dim: Size
    """Input dimension of the data."""
    padded: bool = False
    """Give each task of the experiment its own block of ``dim`` coordinates, so that tasks are orthogonal."""
    normalised: bool = False
    """Scale each input to norm 1, as the paper's inputs are."""

    def input_dim(self, task_count: int) -> int:
        """Dimension d of the inputs, with the blocks of the other tasks where they are padded."""
        return self.dim * task_count if self.padded else self.dim

    @property
    @abstractmethod
    def file(self) -> str:
        """The user's file that the data are made from."""

    def files(self, resources: Path) -> list[Path]:
        """That file alone."""
        return [Path(self.file)]


class FileTask(UserTask):
    """Data of a file: arrays ``inputs`` (sample, feature) and binary ``labels`` (sample), and, for test data,
    ``test_inputs`` and ``test_labels``.
    """

    dataset: Literal["file"]
    path: Annotated[str, Field(pattern=r"^[^{}]+\.(npz|nc)$")]
    """NumPy's ``.npz``, or NetCDF (``.nc``); relative to the configuration's file."""
    test_samples: Annotated[Whole, Field(ge=0, le=10**6)] | None = None
    """Test samples of one task, drawn for each seed from the file's: as many as ``samples``, or all, if left out;
    none for 0, and from a file without test data."""

    @property
    def file(self) -> str:
        """The file of arrays."""
        return self.path


class FunctionTask(UserTask):
    """Data that a Python function makes: ``make(rng, samples, **arguments)`` returns inputs and binary labels, or
    inputs, labels, test inputs and test labels.
    """

    dataset: Literal["function"]
    test_samples: Annotated[Whole, Field(ge=0, le=10**6)] | None = None
    """Test samples that the function is to return: as many as ``samples`` if left out. It is told their number if
    it has a parameter ``test_samples``. None for 0, and from a function that returns inputs and labels alone."""
    function: Annotated[str, Field(pattern=r"^[^{}]+\.py:[A-Za-z_]\w*$")]
    """``file.py:name``; the file is relative to the configuration's. ``rng`` is a
    ``numpy.random.Generator`` of this task and seed alone."""
    arguments: dict[str, str | bool | int | float] = Field(default_factory=dict)
    """Further arguments by name."""

    @property
    def file(self) -> str:
        """The file of the function."""
        return self.function.rpartition(":")[0]


TaskSettings = Annotated[
    GaussianTask | FashionMnistTask | AxesTask | FileTask | FunctionTask, Field(discriminator="dataset")
]
NamedTasks = Annotated[dict[Name, TaskSettings], Field(min_length=1, max_length=26)]
FETCHED: dict[str, tuple[str, ...]] = {
    get_args(task.model_fields["dataset"].annotation)[0]: task.fetched
    for task in get_args(get_args(TaskSettings)[0])
    if task.fetched
}
"""Datasets that are fetched, with the names of their files."""


def tasks_form(value: Any) -> str:
    """A mapping with the key ``dataset`` is one task's settings; one of mappings is keyed by task name."""
    named = (
        isinstance(value, Mapping)
        and value
        and all(not isinstance(part, str | int) for part in value.values())
    )
    return "named" if named else "alike"
