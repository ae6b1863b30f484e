"""Every result says where it comes from, and ``decaymerge inspect`` prints it."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
import yaml
from PIL import Image, PngImagePlugin

from builders import REPOSITORY, smoke_config
from builders_runs import figure_job, summaries_of, write_claims, write_networks, write_summaries
from commands import decaymerge
from conftest import Workflow
from decaymerge import provenance
from decaymerge.config import Config, parse
from decaymerge.errors import UserError
from decaymerge.figures import draw
from decaymerge.inspection import inspect
from decaymerge.store import write_table

ORIGIN = {"code_revision", "code_clean", "decaymerge", "torch", "numpy", "python", "host", "settings"}
NAMES = ["independent", "overlap_000"]


@pytest.fixture(scope="module")
def config() -> Config:
    experiments = smoke_config()["experiments"]
    return parse({"experiments": {name: experiments[name] for name in NAMES}})


@pytest.fixture(scope="module")
def results(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of every kind that has an origin inside."""
    folder = tmp_path_factory.mktemp("results")
    write_networks(config, folder)
    write_summaries(config, folder)
    write_claims(config, folder)
    draw(figure_job(config, "depth", NAMES[:1]), summaries_of(folder, NAMES[:1]), folder / "depth.pdf")
    return folder


def check_origin(path: Path) -> None:
    """The file says where it comes from."""
    if path.suffix in (".html", ".md"):
        assert "Made by decaymerge 0." in path.read_text(), path
        return
    text = inspect(path).split("\n", 1)[1]
    if path.suffix in (".json", ".csv"):
        content = " verdicts on claims: " if path.suffix == ".json" else " rows of "
        assert text.startswith("made by decaymerge 0.") and content in text
    else:
        attributes = yaml.safe_load(text.split("\nholds:")[0])
        assert attributes.keys() >= ORIGIN, path
        assert isinstance(attributes["settings"], dict)


def kinds_of(folder: Path) -> dict[str, list[Path]]:
    """Files that are not hidden, by their ending."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {suffix: [path for path in paths if path.suffix == suffix] for suffix in {p.suffix for p in paths}}


def test_every_result_says_where_it_comes_from(results: Path) -> None:
    kinds = kinds_of(results)
    assert kinds.keys() == {".nc", ".png", ".pdf", ".json"}
    for paths in kinds.values():
        for path in paths:
            check_origin(path)


@pytest.mark.slow
def test_every_result_of_the_smoke_run_says_where_it_comes_from(smoke: Workflow) -> None:
    kinds = kinds_of(smoke.folder / "results")
    assert kinds.keys() == {".nc", ".png", ".pdf", ".json", ".csv", ".html", ".md"}
    assert min(len(kinds[suffix]) for suffix in (".nc", ".csv", ".png", ".pdf", ".json")) > 3
    for paths in kinds.values():
        for path in paths:
            check_origin(path)


def test_the_pdf_itself_says_it_too(results: Path) -> None:
    content = (results / "depth.pdf").read_bytes()
    assert b"/Creator (decaymerge 0." in content and b"/Subject (" in content
    assert b"CreationDate" not in content


def test_inspect_of_a_network(results: Path) -> None:
    output = decaymerge("inspect", results / "independent/train/a/weight_decay=0.001/seeds=0-1.nc").stdout
    for line in (
        "seeds: 0,1",
        "device: cpu",
        "  optimiser: gd",
        "  W1_coordinates (seed 2, step 12, out_1 16, rank_1 10) float32: weight",
        "  W1_basis (seed 2, rank_1 10, in_1 20) float32: orthonormal basis",
        "  W2 (seed 2, step 12, out_2 16, in_2 16) float32: weight",
    ):
        assert line in output
    revision = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert f"code_revision: {revision.stdout.strip()}" in output


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.nc", None, "missing.nc is missing, or is not a file"),
        ("x.nc", b"junk", "x.nc cannot be read as NetCDF"),
        ("x.png", b"junk", "x.png cannot be read as a picture"),
        ("x.pdf", b"junk", "x.png, which holds the origin of both, is missing next to the PDF"),
        ("x.json", b"[", "x.json cannot be read as JSON"),
        ("x.csv", b"seed,loss\n0,1\n", "x.csv does not say where it comes from"),
        ("empty.csv", b"", "empty.csv cannot be read as a table"),
        ("x.csv", b"\xff", "x.csv cannot be read as a table"),
        ("x.txt", b"", "inspect reads .nc, .csv, .png, .pdf, .json"),
    ],
)
def test_errors_are_one_line(name: str, content: bytes | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    answer = decaymerge("inspect", tmp_path / name)
    assert answer.returncode == 1 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert expected in answer.stderr


def test_inspect_of_a_table(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"loss": [0.1, 0.2], "n": [5, 5]}), tmp_path / "x.csv")
    assert inspect(tmp_path / "x.csv").endswith("2 rows of loss, n")


def test_a_file_of_others_is_told(tmp_path: Path) -> None:
    xr.Dataset({"x": 1.0}).to_netcdf(tmp_path / "x.nc")
    with pytest.raises(UserError, match="does not say where it comes from"):
        inspect(tmp_path / "x.nc")


@pytest.mark.parametrize("settings", [None, "{"])
def test_a_picture_with_half_of_the_origin_is_told(settings: str | None, tmp_path: Path) -> None:
    origin = PngImagePlugin.PngInfo()
    origin.add_text("code_revision", "x")
    if settings is not None:
        origin.add_text("settings", settings)
    Image.new("L", (2, 2)).save(tmp_path / "x.png", pnginfo=origin)
    with pytest.raises(UserError, match="does not say where it comes from"):
        inspect(tmp_path / "x.png")


def test_json_of_others_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"source": "hub:x/y"}))
    assert "source: hub:x/y" in inspect(tmp_path / "manifest.json")
    (tmp_path / "list.json").write_text(json.dumps([{"made_by": "x"}]))
    assert "made_by: x" in inspect(tmp_path / "list.json")


def test_provenance_names_a_kind_of_host_and_no_host() -> None:
    import socket

    line = provenance.made_by()
    assert "cores" in line and socket.gethostname() not in line.split()
