"""Data of the tasks: geometry, labels, independence of the block, and the real Fashion-MNIST."""

import gzip
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from builders import gaussian_data, gaussian_job
from decaymerge import tasks
from decaymerge.config.datasets import FashionMnistTask
from decaymerge.errors import UserError
from decaymerge.fetch import fashion_mnist
from decaymerge.tasks.fashion_mnist import read_idx
from decaymerge.tasks.gaussian import subspace
from decaymerge.workflow.jobs import TasksJob


def inputs_of(job: TasksJob) -> np.ndarray:
    values = tasks.make(job, []).inputs.values
    assert isinstance(values, np.ndarray)
    return values


@pytest.mark.parametrize("overlap", ["orthogonal", "same", 0, 0.3, 1])
def test_inputs_are_on_the_unit_sphere(overlap: Any) -> None:
    norms = np.linalg.norm(inputs_of(gaussian_job(1, overlap=overlap)), axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-12)


def test_orthogonal_tasks_do_not_overlap() -> None:
    a, b = (inputs_of(gaussian_job(index, overlap="orthogonal")) for index in (0, 1))
    assert np.abs(a @ b.mT).max() == 0


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9, 1.0])
def test_overlap_is_the_cosine_of_all_principal_angles(overlap: float) -> None:
    first, second = (subspace(gaussian_job(overlap=overlap).data, index, 2) for index in (0, 1))  # type: ignore[arg-type]
    np.testing.assert_allclose(second @ second.T, np.eye(6), atol=1e-14)
    cosines = np.linalg.svd(first @ second.T, compute_uv=False)
    np.testing.assert_allclose(cosines, overlap, atol=1e-14)


def test_overlap_zero_is_orthogonal() -> None:
    for index in (0, 1):
        np.testing.assert_array_equal(
            inputs_of(gaussian_job(index, overlap=0)), inputs_of(gaussian_job(index, overlap="orthogonal"))
        )


def test_same_tasks_fill_all_coordinates_and_differ() -> None:
    a, b = (gaussian_data(index, overlap="same", samples=500) for index in (0, 1))
    assert np.linalg.matrix_rank(a.inputs.values[0]) == 12
    assert not np.array_equal(a.inputs, b.inputs)


def test_labels() -> None:
    for labels in ("linear", "quadratic", "random"):
        values = gaussian_data(labels=labels, samples=1000).labels.values
        assert set(np.unique(values)) == {-1, 1}
        assert abs(values.mean()) < (0.15 if labels != "quadratic" else 1e-9)
    linear = gaussian_data(labels="linear", samples=30)
    # linearly separable: a perceptron with the minimum-norm interpolation of the labels in 12 dims finds it
    x, y = linear.inputs.values[0], linear.labels.values[0]
    weights = np.zeros(12)
    for _ in range(20_000):
        wrong = y * (x @ weights) <= 0
        if not wrong.any():
            break
        weights += (y[wrong] @ x[wrong]) / wrong.sum()
    assert (y * (x @ weights) > 0).all()


def test_data_depend_on_the_seed_alone_not_on_the_block() -> None:
    together = inputs_of(gaussian_job(seeds=(0, 1, 2)))
    np.testing.assert_array_equal(together[1:2], inputs_of(gaussian_job(seeds=(1,))))
    assert not np.array_equal(together[0], together[1])


@pytest.fixture
def small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four files in Fashion-MNIST's format, of random images, which pass for the real ones."""
    rng, folder = np.random.default_rng(0), tmp_path / "small"
    folder.mkdir()
    paths = [folder / name for name in fashion_mnist.SHA256]
    for path, shape in zip(paths, [(400, 784), (400,), (50, 784), (50,)], strict=True):
        header = bytes(16 if len(shape) == 2 else 8)
        content = header + rng.integers(0, 256 if len(shape) == 2 else 10, shape, np.uint8).tobytes()
        path.write_bytes(gzip.compress(content))
        monkeypatch.setitem(fashion_mnist.SHA256, path.name, hashlib.sha256(content).hexdigest())
    return paths


def without_other_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither Debian's folder, nor its package, nor the authors' address has the data."""

    def refused(command: list[str], *_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(100, command, stderr="E: Unable to locate package")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr(fashion_mnist, "_run", refused)
    monkeypatch.setattr(fashion_mnist, "UPSTREAM", "http://127.0.0.1:9/")


@pytest.mark.slow
def test_real_files(fashion_mnist_files: list[Path]) -> None:
    images, classes, test_images, test_classes = map(read_idx, fashion_mnist_files)
    assert images.shape == (60_000, 784) and test_images.shape == (10_000, 784)
    assert np.bincount(classes).tolist() == [6000] * 10
    assert np.bincount(test_classes).tolist() == [1000] * 10
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert images.std() / 255 == pytest.approx(0.3530, abs=5e-5)
    for path in fashion_mnist_files:
        assert fashion_mnist.content_sha256(path) == fashion_mnist.SHA256[path.name]


@pytest.mark.slow
def test_tasks_of_the_real_files(fashion_mnist_files: list[Path]) -> None:
    task = tasks.make(fashion_job(0), fashion_mnist_files)
    assert task.inputs.shape == (2, 300, 1568) and abs(task.labels.values.mean()) < 0.2
    assert task.test_inputs.shape == (2, 50, 1568) and set(task.test_labels.values.flat) == {-1, 1}


@pytest.mark.slow
def test_a_package_that_debian_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real apt, which looks for newer lists first."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_PACKAGE", "no-such-package-anywhere")
    with pytest.raises(fashion_mnist.UnavailableError):
        fashion_mnist.from_debian()


def fashion_job(
    index: int, count: int = 2, seeds: tuple[int, ...] = (0, 1), samples: int = 300, test_samples: int = 50
) -> TasksJob:
    task = FashionMnistTask(dataset="fashion_mnist", samples=samples, test_samples=test_samples)
    return TasksJob(experiment="x", task="a", seeds=list(seeds), index=index, task_count=count, data=task)


def test_fashion_mnist_tasks(small_files: list[Path]) -> None:
    a, b = (tasks.make(fashion_job(index), small_files) for index in (0, 1))
    assert a.inputs.shape == (2, 300, 1568)
    assert np.abs(a.inputs.values[..., 784:]).max() == 0 and np.abs(b.inputs.values[..., :784]).max() == 0
    # The same name draws the same sample here, so only the padding and the labels differ.
    np.testing.assert_array_equal(a.inputs.values[..., :784], b.inputs.values[..., 784:])
    np.testing.assert_array_equal(a.labels, -b.labels)
    np.testing.assert_allclose(np.linalg.norm(a.inputs, axis=-1), 1, rtol=1e-12)
    assert abs(a.labels.values.mean()) < 0.2
    assert not np.array_equal(a.inputs.values[0], a.inputs.values[1])


def test_test_images_are_the_test_files_alone(small_files: list[Path]) -> None:
    a, b = (tasks.make(fashion_job(index), small_files) for index in (0, 1))
    assert a.test_inputs.shape == (2, 50, 1568) and np.abs(a.test_inputs.values[..., 784:]).max() == 0
    assert np.abs(a.test_inputs.values @ b.inputs.values.mT).max() == 0
    np.testing.assert_array_equal(a.test_labels, -b.test_labels)
    # All 50 images are drawn, so sorting gives those of the file, with their labels, for every seed.
    images, classes = map(read_idx, small_files[2:])
    scaled = images / np.linalg.norm(images.astype(float), axis=1, keepdims=True)
    expected = np.column_stack([scaled, np.where(classes < 5, 1, -1)])
    for inputs, labels in zip(a.test_inputs.values, a.test_labels.values, strict=True):
        drawn = np.column_stack([inputs[:, :784], labels])
        np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])
    assert not np.array_equal(a.test_inputs[0], a.test_inputs[1])
    assert (
        len(np.unique(tasks.make(fashion_job(0, test_samples=30), small_files).test_inputs[0], axis=0)) == 30
    )


def test_training_images_are_bitwise_those_without_test_images(small_files: list[Path]) -> None:
    """The digest is that of the last version without test data."""
    task = tasks.make(fashion_job(1), small_files)
    digest = hashlib.sha256(task.inputs.values.tobytes() + task.labels.values.tobytes()).hexdigest()
    assert digest == "ce843fbb7a79b4c12d1244e26771bce46a406a0d68f74a5ffc12cee94c498d93"
    without = tasks.make(fashion_job(1, test_samples=0), small_files)
    xr.testing.assert_identical(without, task.drop_vars(["test_inputs", "test_labels"]))


def test_other_files_than_those_of_fashion_mnist(small_files: list[Path]) -> None:
    for files in (small_files[:2], small_files[::-1], []):
        with pytest.raises(
            UserError, match=r"fashion_mnist needs the files train-images.*, in this order, but"
        ):
            tasks.make(fashion_job(0), files)


def test_classes_below_5_are_1(small_files: list[Path]) -> None:
    images, classes = map(read_idx, small_files[:2])
    label_of_image = {
        image.tobytes(): 1 if label < 5 else -1 for image, label in zip(images, classes, strict=True)
    }
    task = tasks.make(fashion_job(0, seeds=(0,)), small_files)
    scaled = task.inputs.values[0, :, :784]
    pixels = np.rint(scaled / scaled.max(axis=1, keepdims=True) * 255)
    rows = [image.astype(np.uint8).tobytes() for image in pixels]
    labels = [label_of_image[row] for row in rows if row in label_of_image]
    known = [row in label_of_image for row in rows]
    assert len(labels) > 200  # an image whose largest pixel is below 255 is scaled otherwise
    np.testing.assert_array_equal(task.labels.values[0][known], labels)


def test_fashion_mnist_from_a_configured_folder(small_files: list[Path], tmp_path: Path) -> None:
    source = fashion_mnist.fetch(tmp_path / "copy", small_files[0].parent)
    assert source == f"fetch.fashion_mnist: {small_files[0].parent}"
    assert fashion_mnist.content_sha256(tmp_path / "copy" / "t10k-labels-idx1-ubyte.gz")


def test_damaged_files_are_not_taken(
    small_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_other_sources(monkeypatch, tmp_path)
    content = bytearray(gzip.decompress(small_files[1].read_bytes()))
    content[100] ^= 1
    small_files[1].write_bytes(gzip.compress(bytes(content)))
    expected = fashion_mnist.SHA256[small_files[1].name]
    with pytest.raises(
        UserError, match=rf"train-labels-idx1-ubyte.gz has sha256 \w+ decompressed, not {expected}"
    ):
        fashion_mnist.fetch(tmp_path / "destination", small_files[1].parent)
    assert not (tmp_path / "destination").exists()


def test_damaged_compressed_file_is_not_taken(
    small_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_other_sources(monkeypatch, tmp_path)
    for path in small_files:
        content = bytearray(path.read_bytes())
        content[60:80] = bytes(20)
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is damaged"):
        fashion_mnist.fetch(tmp_path / "destination", small_files[0].parent)


def test_task_beyond_the_number_of_tasks() -> None:
    with pytest.raises(ValueError, match="index: 2 is not below task_count: 2"):
        gaussian_job(2)


def test_damaged_or_exchanged_file_in_the_cache_is_told(small_files: list[Path], tmp_path: Path) -> None:
    images, labels = (tmp_path / path.name for path in small_files[:2])
    images.write_bytes(small_files[0].read_bytes()[:-1000])
    labels.write_bytes(small_files[3].read_bytes())
    for path, expected in ((images, "cannot be read"), (labels, "is not Fashion-MNIST's file of this name")):
        with pytest.raises(UserError, match=expected) as refusal:
            read_idx(path)
        assert str(path) in str(refusal.value) and "remove it" in str(refusal.value)


def test_no_source_is_one_error_that_names_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_other_sources(monkeypatch, tmp_path)
    with pytest.raises(UserError) as refusal:
        fashion_mnist.fetch(tmp_path / "destination", tmp_path / "mine")
    message = str(refusal.value)
    assert "\n" not in message
    package = f"Debian package {fashion_mnist.DEBIAN_PACKAGE}: apt-get: ['E: Unable to locate package']"
    for part in (str(tmp_path / "mine"), str(tmp_path / "nowhere"), package, "127.0.0.1"):
        assert part in message
