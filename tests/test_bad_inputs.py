"""Bad inputs of every kind, by family: each is one line, nothing is written, and nothing changed (make input-test).

Families with a file of their own are tests/test_checkpoint_refused.py, test_merge_checkpoints_bad_inputs.py and
test_adapters_refused.py.
"""

# mypy: disable-error-code="func-returns-value"
# A table of small changes: an argument makes one.

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from builders import changed, smoke_config
from builders_checkpoints import bert, config_with, edit
from commands import decaymerge
from refusals import assert_refused
from wrong_settings import WRONG

pytestmark = pytest.mark.inputs
Case = tuple[Callable[[Path], Sequence[object]], str]
"""What makes the inputs in a folder and gives the command, and a part of its answer."""


def check(cases: dict[str, Case], kind: str, folder: Path) -> None:
    make, expected = cases[kind]
    arguments = make(folder)
    assert_refused(lambda: decaymerge(*arguments), folder, expected)


ARRAYS = {"inputs": np.arange(100.0).reshape(50, 2), "labels": np.arange(50) % 2}


def data(folder: Path, name: str = "data.npz", samples: int = 20, **arrays: Any) -> list[object]:
    """A command that draws from a file, which gets these arrays unless it is there."""
    if not os.path.lexists(folder / name):
        np.savez(folder / name, **(ARRAYS | arrays))
    task = {"dataset": "file", "path": "data.npz", "dim": 2, "samples": samples}
    return ["tasks", "--settings", settings(task), "--", folder / "out.nc", folder / name]


def named(folder: Path, arrays: dict[str, Any]) -> list[object]:
    """The same of arrays with any names."""
    np.savez(folder / "data.npz", **arrays)
    return data(folder)


def settings(task: dict[str, Any]) -> str:
    place = {"experiment": "x", "task": "a", "seeds": [0], "index": 0, "task_count": 2}
    return json.dumps(place | {"data": task})


def function(folder: Path, body: str, name: str = "mine.py") -> list[object]:
    """A command that draws by a function."""
    (folder / name).write_text(f"import numpy as np\ndef make(rng, samples):\n    {body}\n")
    task = {"dataset": "function", "function": f"{name}:make", "dim": 2, "samples": 20}
    return ["tasks", "--settings", settings(task), "--", folder / "out.nc", folder / name]


def archive(folder: Path, name: str = "data.npz", zeros: int = 0, method: int = zipfile.ZIP_DEFLATED) -> None:
    """A zip with an array, or with that many zeros, which take a thousandth of their size."""
    with (
        zipfile.ZipFile(folder / name, "w", method) as file,
        file.open("inputs.npy", "w", force_zip64=True) as part,
    ):
        np.lib.format.write_array_header_1_0(
            part, {"descr": "<f8", "fortran_order": False, "shape": (max(1, zeros // 16), 2)}
        )
        for _ in range(zeros // 10**7):
            part.write(bytes(10**7))


def with_field(path: Path, offsets: dict[bytes, int], value: int) -> None:
    """Set a byte in the headers of all members of a zip, at an offset from each mark."""
    content = bytearray(path.read_bytes())
    for mark, offset in offsets.items():
        place = content.find(mark)
        while place >= 0:
            content[place + offset] = value
            place = content.find(mark, place + 4)
    path.write_bytes(content)


def encrypted(folder: Path, name: str = "data.npz") -> None:
    """Set the bit that says so."""
    with_field(folder / name, {b"PK\x03\x04": 6, b"PK\x01\x02": 8}, 1)


def unknown_method(folder: Path) -> None:
    """Compression that Python does not have."""
    with_field(folder / "data.npz", {b"PK\x03\x04": 8, b"PK\x01\x02": 10}, 99)


DATA: dict[str, Case] = {
    "an array named .npz": (
        lambda f: data(f, made=np.save((f / "data.npz").open("wb"), ARRAYS["inputs"])),
        "cannot be read as .npz or NetCDF: BadZipFile",
    ),
    "encrypted": (
        lambda f: (data(f), encrypted(f), data(f))[2],
        "cannot be read as .npz or NetCDF: RuntimeError",
    ),
    "an unknown compression": (lambda f: (data(f), unknown_method(f), data(f))[2], "NotImplementedError"),
    "an archive that explodes": (
        lambda f: (archive(f, zeros=6 * 10**8), data(f))[1],
        "which grow to 0.6 GB, as no data do; if it is meant, write the file without compression",
    ),
    "an array cut off": (lambda f: (archive(f), data(f))[1], "cannot be read as .npz or NetCDF"),
    "objects": (
        lambda f: data(f, inputs=np.array([[{}, {}]] * 50)),
        "cannot be read as .npz or NetCDF: ValueError",
    ),
    "a pipe": (lambda f: (os.mkfifo(f / "data.npz"), data(f))[1], "is no file"),
    "a folder": (lambda f: ((f / "data.npz").mkdir(), data(f))[1], "is no file"),
    "no file": (lambda f: [*data(f)[:-1], f / "none.npz"], "none.npz is no file"),
    "a link to itself": (lambda f: ((f / "data.npz").symlink_to(f / "data.npz"), data(f))[1], "is no file"),
    "one class in all draws": (
        lambda f: data(
            f, samples=2, labels=np.r_[np.zeros(49), 1], inputs=np.random.default_rng(0).random((50, 2))
        ),
        "samples: 2, and all that were drawn for task a at seed 0 have the same label",
    ),
    "text as numbers": (
        lambda f: data(f, inputs=np.array([["1", "2"]] * 50)),
        "are of type <U1, not numbers",
    ),
    "complex numbers": (
        lambda f: data(f, inputs=ARRAYS["inputs"] * 1j),
        "are of type complex128, not numbers",
    ),
    "dates": (lambda f: data(f, labels=np.arange(50).astype("M8[D]")), "are of type datetime64"),
    "no samples": (lambda f: data(f, inputs=np.ones((0, 2)), labels=np.ones(0)), "labels must be binary"),
    "NaN in the labels": (lambda f: data(f, labels=np.r_[np.nan, np.ones(49)]), "labels hold nan or inf"),
    "names of control characters": (
        lambda f: named(f, {"\x1b[2J\nerror: x": np.ones(1), **ARRAYS, "labels": np.ones((50, 2))}),
        "have the shapes",
    ),
    "an array named by control characters": (
        lambda f: named(f, {"in\x1b[2J\nputs": np.ones(1)}),
        r"it holds: in\x1b[2J\nputs",
    ),
    "a masked NetCDF": (
        lambda f: (
            xr.Dataset(
                {"inputs": (("sample", "feature"), np.ma.masked_less(ARRAYS["inputs"], 1).filled(np.nan))}
                | {"labels": ("sample", ARRAYS["labels"])}
            ).to_netcdf(f / "data.nc"),
            data(f, "data.nc"),
        )[1],
        "inputs hold nan or inf",
    ),
    "a NetCDF with another shape": (
        lambda f: (
            xr.Dataset(
                {"inputs": (("a", "b"), ARRAYS["inputs"].T), "labels": ("c", ARRAYS["labels"])}
            ).to_netcdf(f / "data.nc"),
            data(f, "data.nc"),
        )[1],
        "(sample, feature) and (sample,) are expected",
    ),
}
ONES = "np.ones((samples, 2))"
FUNCTIONS: dict[str, Case] = {
    "masked arrays": (
        lambda f: function(f, f"return np.ma.masked_equal({ONES}, 1), np.arange(samples) % 2"),
        "inputs or labels have masked entries",
    ),
    "an error without a text": (lambda f: function(f, "raise ValueError"), "mine.py:make raised ValueError"),
    "an assertion": (lambda f: function(f, "assert False"), "raised AssertionError"),
    "an error with control characters": (
        lambda f: function(f, r"raise ValueError('\x1b[2J\rerror: all is well')"),
        r"raised ValueError: \x1b[2J error: all is well",
    ),
    "an error of a thousand lines": (lambda f: function(f, r"raise ValueError('x\n' * 9999)"), " … "),
    "it exits": (lambda f: function(f, "raise SystemExit(0)"), "raised SystemExit: 0"),
    "it returns nothing": (lambda f: function(f, "pass"), "returned NoneType"),
    "it returns a generator": (lambda f: function(f, "yield 1"), "returned generator"),
    "ragged": (lambda f: function(f, "return [[1], [2, 3]], [0, 1]"), "cannot be made arrays"),
    "too few": (lambda f: function(f, "return np.ones((3, 2)), np.arange(3) % 2"), "returned 3 samples"),
    "no recursion ends": (lambda f: function(f, "return make(rng, samples)"), "raised RecursionError"),
    "no Python": (lambda f: function(f, "return )"), "SyntaxError"),
    "an import that fails": (lambda f: function(f, "import not_there"), "raised ModuleNotFoundError"),
    "too much memory": (lambda f: function(f, "return np.ones((10**9, 10**6)), 1"), "MemoryError"),
    "infinite inputs": (
        lambda f: function(f, f"return {ONES} * np.inf, np.arange(samples) % 2"),
        "hold nan or inf",
    ),
}


def config(folder: Path, text: str | bytes, name: str = "x.yaml") -> list[object]:
    """A command that checks a configuration."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["check", folder / name]


def sparse(path: Path, size: int) -> None:
    """A file of that size without content."""
    with path.open("wb") as file:
        file.truncate(size)


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{y}: &{y} [{','.join([f'*{x}'] * 10)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFIGS: dict[str, Case] = {
    "a pipe": (lambda f: (os.mkfifo(f / "x.yaml"), ["check", f / "x.yaml"])[1], "it is no file"),
    "a folder": (lambda f: ["check", f], "it is no file"),
    "nothing": (lambda f: ["check", f / "none.yaml"], "none.yaml cannot be read"),
    "huge": (
        lambda f: (sparse(f / "x.yaml", 3 * 10**8), ["check", f / "x.yaml"])[1],
        "it has 300 MB, and 10 MB are read at most",
    ),
    "aliases that explode": (lambda f: config(f, BOMB), "its aliases stand for more than a million values"),
    "an alias of itself": (lambda f: config(f, "a: &a [*a]"), "aliases"),
    "base 8": (lambda f: config(f, "steps: 0777"), "0777 is in base 8 or 60; write it in base 10"),
    "base 60": (lambda f: config(f, "steps: 1:30"), "1:30 is in base 8 or 60"),
    "base 60 with a point": (lambda f: config(f, "steps: 1:30.5"), "1:30.5 is in base 8 or 60"),
    "a key twice": (lambda f: config(f, "a: 1\na: 2"), "key 'a' is given twice"),
    "binary": (lambda f: config(f, bytes(range(256))), "cannot be read"),
    "latin-1": (lambda f: config(f, "a: ö".encode("latin-1")), "cannot be read: UnicodeDecodeError"),
    "utf-16 without a mark": (lambda f: config(f, "a: 1".encode("utf-16-le")), "cannot be read"),
    "Python objects": (
        lambda f: config(f, "a: !!python/object/apply:os.system [true]"),
        "could not determine a constructor",
    ),
    "deep lists": (lambda f: config(f, "[" * 5000), "cannot be read"),
    "a list": (lambda f: config(f, "- 1"), "Input should be a valid dictionary"),
    "empty": (lambda f: config(f, ""), "Input should be a valid dictionary"),
    "control characters": (lambda f: config(f, '"\\e[2J\\nerror: x": 1'), r"unknown key \x1b[2J\nerror: x"),
    "a key that is no text": (lambda f: config(f, "? [1, 2]\n: 3"), "cannot be read"),
    "a number of a million digits": (lambda f: config(f, f"device: {'9' * 10**6}"), "cannot be read"),
    "a text of a million letters": (lambda f: config(f, f"device: {'x' * 10**6}"), " … "),
    "a date": (lambda f: config(f, "device: 2020-01-01"), "device = datetime.date(2020, 1, 1)"),
}

CHECKPOINTS: dict[str, Case] = {
    "a config of 300 MB": (
        lambda f: (sparse(f / "a/config.json", 3 * 10**8), scan(f))[1],
        "it has 300 MB, and 100 MB are read at most",
    ),
    "a config that is a pipe": (
        lambda f: ((f / "a/config.json").unlink(), os.mkfifo(f / "a/config.json"), scan(f))[2],
        "it is no file",
    ),
    "a deep config": (
        lambda f: ((f / "a/config.json").write_text("[" * 10**6), scan(f))[1],
        "RecursionError",
    ),
    "weights that are a pipe": (
        lambda f: ((f / "a/model.safetensors").unlink(), os.mkfifo(f / "a/model.safetensors"), scan(f))[2],
        "holds no *.safetensors",
    ),
    "tensors named by control characters": (
        lambda f: (
            edit(
                f / "a",
                lambda tensors: tensors.update({"\x1b[2J\nerror: x": tensors.pop(next(iter(tensors)))}),
            ),
            scan(f),
        )[1],
        "is incomplete",
    ),
    "a class of control characters": (
        lambda f: (config_with(f / "a", architectures=["\x1b[2J"], num_hidden_layers=10**9), scan(f))[1],
        "num_hidden_layers is 1000000000",
    ),
    "a folder that is not there": (lambda f: ["scan", f"path:{f}/none"], "does not exist"),
    "a name of control characters": (
        lambda f: ["scan", f"path:{f}/\x1b[2J\nerror: x"],
        r"\x1b[2J\nerror: x': give hub:org/name",
    ),
    "a name that is too long": (lambda f: ["scan", f"path:{f}/{'x' * 5000}"], "File name too long"),
    "a coefficient that leaves nothing": (
        lambda f: (
            [
                edit(
                    f / name,
                    lambda tensors: [tensors.update({key: one.half()}) for key, one in list(tensors.items())],
                )
                for name in "ab"
            ],
            [
                "merge-checkpoints",
                f / "a",
                f / "b",
                "--method",
                "scaled",
                "--coefficient",
                "1e-30",
                "--output",
                f / "out",
            ],
        )[1],
        "the merged numbers are all too small for float16",
    ),
}


def scan(folder: Path) -> list[object]:
    return ["scan", f"path:{folder}/a", "--output", folder / "out.nc"]


def merge(folder: Path, *options: object) -> list[object]:
    return ["merge-checkpoints", folder / "a", folder / "b", *options]


GIVEN: dict[str, Case] = {
    "an archive that explodes": (
        lambda f: (archive(f, "a.npz", zeros=6 * 10**8), merge(f, *given(f)))[1],
        "which grow to 0.6 GB, as no data do",
    ),
    "an archive that is a pipe": (
        lambda f: (os.mkfifo(f / "a.npz"), merge(f, *given(f)))[1],
        "it is no file",
    ),
    "an encrypted archive": (
        lambda f: (archive(f, "a.npz"), encrypted(f, "a.npz"), merge(f, *given(f)))[2],
        "cannot be read (RuntimeError",
    ),
    "an array named .npz": (
        lambda f: (np.save((f / "a.npz").open("wb"), ARRAYS["inputs"]), merge(f, *given(f)))[1],
        "cannot be read (BadZipFile",
    ),
    "texts that are a pipe": (
        lambda f: (os.mkfifo(f / "a.txt"), merge(f, "--inputs", f"a={f}/a.txt", "--inputs", f"b={f}/a.txt"))[
            1
        ],
        "it is no file",
    ),
    "texts of 300 MB": (
        lambda f: (
            sparse(f / "a.txt", 3 * 10**8),
            merge(f, "--inputs", f"a={f}/a.txt", "--inputs", f"b={f}/a.txt"),
        )[1],
        "it has 300 MB",
    ),
    "a recipe that is a pipe": (
        lambda f: (
            os.mkfifo(f / "merge.json"),
            ["merge-checkpoints", "--recipe", f / "merge.json", "--output", f / "o"],
        )[1],
        "there is no such file",
    ),
    "a deep recipe": (
        lambda f: (
            (f / "merge.json").write_text("[" * 10**6),
            ["merge-checkpoints", "--recipe", f / "merge.json", "--output", f / "o"],
        )[1],
        "is no JSON",
    ),
}


def given(folder: Path) -> list[object]:
    """Inputs of both models from one file."""
    return ["--inputs", f"a={folder}/a.npz", "--inputs", f"b={folder}/a.npz", "--output", folder / "out"]


OUTPUTS: dict[str, Case] = {
    "below a file": (
        lambda f: [*scan(f)[:-1], f / "a/config.json/out.nc"],
        "a file stands where a folder must be",
    ),
    "a name that is too long": (lambda f: [*scan(f)[:-1], f / f"{'x' * 300}.nc"], "give a shorter name"),
    "a folder": (lambda f: [*scan(f)[:-1], f / "a"], "is a folder; give a file"),
    "a pipe": (lambda f: (os.mkfifo(f / "out.nc"), scan(f))[1], "is a device, a pipe or a link to nothing"),
    "a device": (lambda f: [*scan(f)[:-1], "/dev/full"], "is a device, a pipe or a link to nothing"),
    "a link to nothing": (lambda f: ((f / "out.nc").symlink_to(f / "none"), scan(f))[1], "a link to nothing"),
    "a link to itself": (
        lambda f: ((f / "out.nc").symlink_to(f / "out.nc"), scan(f))[1],
        "a link to nothing",
    ),
    "a place of the system": (lambda f: [*scan(f)[:-1], "/proc/out.nc"], "/proc/out.nc cannot be written"),
    "what is read": (lambda f: [*scan(f)[:-1], f / "a/model.safetensors"], "which this command reads"),
    "somebody's file": (
        lambda f: ((f / "out.nc").write_text("mine"), scan(f))[1],
        "was not made by decaymerge",
    ),
    "a plot below a file": (
        lambda f: [*scan(f), "--plot", f / "a/config.json/x.pdf"],
        "a file stands where a folder must be",
    ),
    "a plot that is no picture": (lambda f: [*scan(f), "--plot", f / "x.txt"], "--plot"),
    "a merge in a folder with files": (lambda f: merge(f, "--output", f / "a"), "exists and is not empty"),
    "a merge below a file": (
        lambda f: merge(f, "--output", f / "a/config.json/x"),
        "a file stands where a folder must be",
    ),
    "a merge in a place of the system": (
        lambda f: merge(f, "--output", "/proc/x"),
        "/proc/x cannot be written",
    ),
    "a merge inside of what is read": (
        lambda f: merge(f, "--output", f / "a/x"),
        "which is read; give a place outside",
    ),
    "a report where the merge is": (
        lambda f: merge(f, "--output", f / "x", "--report", f / "x"),
        "in the way of",
    ),
    "a report inside the merge": (
        lambda f: merge(f, "--output", f / "x", "--report", f / "x/y.nc"),
        "in the way of",
    ),
    "a new workflow below a file": (lambda f: ["new", f / "a/config.json/x"], "config.json is a file"),
    "a new workflow where one is": (
        lambda f: ((f / "Snakefile").write_text("mine"), ["new", f])[1],
        "Snakefile: there already",
    ),
    "a page of results of another kind": (
        lambda f: ["explore", f / "page.html", f / "a/model.safetensors"],
        "is neither summary.nc nor claims.nc",
    ),
    "a page of results that are missing": (
        lambda f: ["explore", f / "page.html", f / "summary.nc"],
        "summary.nc is missing",
    ),
}


def test_thousands_of_faults_are_twenty_lines(tmp_path: Path) -> None:
    experiments = "".join(f"  x{number}: {{}}\n" for number in range(1000))
    (tmp_path / "x.yaml").write_text(f"experiments:\n{experiments}")
    assert_refused(
        lambda: decaymerge("check", tmp_path / "x.yaml"), tmp_path, "… and 3980 more", several=True
    )


TRAIN = json.dumps(
    {
        "experiment": "x",
        "task": "a",
        "weight_decay": 0.0,
        "network": {"hidden": [4]},
        "step_size": 1.0,
        "steps": 5,
        "kept_steps": 3,
    }
)
JOBS: dict[str, Case] = {
    "commands that are not quoted": (lambda f: ["together", "inspect 'x"], "no closing quotation"),
    "one of several commands that is refused": (lambda f: ["together", f"inspect {f}/x.nc"], "is missing"),
    "settings that are no JSON": (lambda f: ["tasks", "--settings", "{", "--", f / "out.nc"], "--settings"),
    "settings of another job": (lambda f: ["tasks", "--settings", "{}", "--", f / "out.nc"], "--settings"),
    "a file of another stage": (
        lambda f: (
            xr.Dataset({"x": 1.0}).to_netcdf(f / "x.nc"),
            ["train", f / "x.nc", f / "out.nc", "--settings", TRAIN],
        )[1],
        "has the variables x, but not inputs and labels",
    ),
    "a truncated file": (
        lambda f: (
            (f / "x.nc").write_bytes(b"\x89HDF\r\n\x1a\n"),
            ["train", f / "x.nc", f / "out.nc", "--settings", TRAIN],
        )[1],
        "cannot be read as NetCDF",
    ),
    "a missing file": (lambda f: ["train", f / "x.nc", f / "out.nc", "--settings", TRAIN], "is missing"),
    "no device": (
        lambda f: (
            xr.Dataset({"inputs": 1.0, "labels": 1.0}).to_netcdf(f / "x.nc"),
            ["train", f / "x.nc", f / "out.nc", "--settings", TRAIN, "--device", "tpu"],
        )[1],
        "device: tpu is not one of cpu, cuda, auto",
    ),
    "inspection of nothing": (lambda f: ["inspect", f / "none.nc"], "none.nc"),
    "inspection of a pipe": (lambda f: (os.mkfifo(f / "x.nc"), ["inspect", f / "x.nc"])[1], "x.nc"),
    "verification of nothing": (lambda f: ["verify", f], ""),
    "a block of a billion seeds": (
        lambda f: (
            (f / "x/train/a/weight_decay=0").mkdir(parents=True),
            (f / "x/train/a/weight_decay=0/seeds=0-999999999.nc").write_text("x"),
            ["verify", f],
        )[2],
        "",
    ),
}


@pytest.mark.parametrize("kind", DATA)
def test_data(kind: str, tmp_path: Path) -> None:
    check(DATA, kind, tmp_path)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions(kind: str, tmp_path: Path) -> None:
    check(FUNCTIONS, kind, tmp_path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations(kind: str, tmp_path: Path) -> None:
    check(CONFIGS, kind, tmp_path)


@pytest.mark.parametrize(("path", "value", "expected"), WRONG)
def test_wrong_settings(path: str, value: Any, expected: str, tmp_path: Path) -> None:
    """The table of tests/test_config_errors.py, as files."""
    raw = smoke_config()
    if "/../" in path:
        raw["experiments"]["../x"] = value
    else:
        changed(raw, path, value)
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(raw))
    assert_refused(lambda: decaymerge("check", file), tmp_path, expected.replace("\n", r"\n"), several=True)


OF_CHECKPOINTS = {"checkpoints": CHECKPOINTS, "inputs and recipes": GIVEN, "outputs": OUTPUTS}


@pytest.mark.parametrize(
    ("family", "kind"), [(name, kind) for name in OF_CHECKPOINTS for kind in OF_CHECKPOINTS[name]]
)
def test_checkpoints_and_merges(family: str, kind: str, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        bert(tmp_path / name, seed)
    check(OF_CHECKPOINTS[family], kind, tmp_path)


@pytest.mark.parametrize("kind", JOBS)
def test_jobs_by_hand(kind: str, tmp_path: Path) -> None:
    check(JOBS, kind, tmp_path)
