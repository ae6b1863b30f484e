"""The page of claims and Snakemake's report, in a real browser, the page on a wide and on a narrow window."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import yaml

from builders import smoke_config
from commands import decaymerge
from conftest import Workflow
from decaymerge import claims, store
from decaymerge.claims.verdict import Verdict
from decaymerge.config.figures import FIGURES
from decaymerge.figures.claims_page import MEANINGS, with_formulas

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WHOLE_PLACE = """Array.from(document.querySelectorAll("section:not([hidden]) .chart")).every(
    chart => Math.abs(chart.clientWidth - chart.querySelector(".main-svg").clientWidth) < 2)"""
"""Whether each chart is as wide as its place."""
FIGURES_BY_TITLE = {
    "Figure 1": "figure1",
    "Figure 1 tiny bert": "figure1",
    "Figure 2": "figure2",
    "Figure 3": "figure3",
    "Overlap": "overlap",
    "Table 1": "table1",
    "Fashion mnist": "experiment",
}
"""Figures that the report of the smoke run lists."""


@pytest.fixture(scope="module")
def page(browser: "Browser", smoke: Workflow) -> "Page":
    page = browser.new_page()
    page.goto((smoke.folder / "results/claims.html").as_uri())
    return page


@pytest.fixture(scope="module")
def report(smoke: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snakemake's report as ``make report`` makes it, with the page under Run."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    smoke.run("results/overview.html")
    smoke.run("--report", str(path), "all", "results/overview.html")
    (smoke.folder / "results/overview.html").unlink()  # a run without the report does not have it
    return path


@pytest.fixture
def report_page(browser: "Browser", report: Path) -> "Iterator[Page]":
    """The report, on which no script fails and which asks for nothing that is not in it."""
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert not errors
    page.close()


@pytest.fixture
def verdicts(smoke: Workflow) -> list[Verdict]:
    return claims.read(smoke.folder / "results/claims.json")


def test_it_shows_every_verdict_with_its_outcome_in_words(page: "Page", verdicts: list[Verdict]) -> None:
    rows = page.locator("tr.verdict")
    assert rows.count() == len(verdicts) > 15
    texts = sorted(rows.nth(i).locator(".outcome").inner_text() for i in range(rows.count()))
    assert texts == sorted(verdict.outcome for verdict in verdicts)
    assert page.locator("#overview tbody tr").count() == len({verdict.claim for verdict in verdicts})
    text = page.inner_text("body")
    assert all(outcome in text and meaning[:60] in text for outcome, meaning in MEANINGS.items())
    assert "Tried:" in text


def test_outcomes_differ_in_colour(page: "Page") -> None:
    colours = page.eval_on_selector_all(
        "ul .outcome", "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(colours)) == len(MEANINGS) == 3


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_window_and_formulas_are_rendered(page: "Page", width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    formulas = page.locator("p.statement math")
    assert formulas.count() >= 10
    box = formulas.first.bounding_box()
    assert box is not None and box["width"] > 20 and 10 < box["height"] < 200
    assert "$" not in page.inner_text("body") and "\\frac" not in page.inner_text("body")
    assert page.screenshot(path=tmp_path / "page.png")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_row_marks_its_panel_in_the_picture(page: "Page", width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    section = page.locator("section#identity")
    picture, marker = section.locator("img"), section.locator("figure .panel")
    assert picture.is_visible() and not marker.is_visible()
    assert picture.evaluate("image => image.naturalWidth") > 200
    first, second = section.locator("tr.verdict button").first, section.locator("tr.verdict button").nth(1)
    styles = []
    for button in (first, second):
        button.click()
        assert marker.is_visible() and button.get_attribute("aria-pressed") == "true"
        styles.append(marker.get_attribute("style"))
        box, around = marker.bounding_box(), picture.bounding_box()
        assert box is not None and around is not None
        assert around["x"] - 4 < box["x"] and box["y"] + box["height"] < around["y"] + around["height"]
    assert first.inner_text() == second.inner_text() or styles[0] != styles[1]
    assert first.get_attribute("aria-pressed") == "false"
    second.press("Enter")
    assert not marker.is_visible()


def test_numbers_of_cases_stand_at_the_top(page: "Page", verdicts: list[Verdict]) -> None:
    text = page.locator("#count").inner_text()
    names = {verdict.claim for verdict in verdicts}
    assert f"{len(names)} claims, measured in {len(verdicts)} cases" in text
    contradicted = {verdict.claim for verdict in verdicts if verdict.outcome == "not supported"}
    assert set(page.locator("#count a").all_inner_texts()) == contradicted
    assert f"{sum(not verdict.trivial for verdict in verdicts)} of the cases could have failed" in text


def test_files_that_the_page_names_are_beside_it(page: "Page", smoke: Workflow) -> None:
    links = page.eval_on_selector_all(".files a, a.file", "all => all.map(one => one.getAttribute('href'))")
    files = [link for link in links if not link.startswith("https:")]
    assert len(files) > 10 and all((smoke.folder / "results" / file).is_file() for file in files)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_can_be_read_in_the_dark(browser: "Browser", smoke: Workflow, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    page.goto((smoke.folder / "results/claims.html").as_uri())
    light, dark = (
        page.eval_on_selector("body", f"body => getComputedStyle(body).{which}").strip("rgb()").split(",")
        for which in ("color", "backgroundColor")
    )
    assert min(map(int, light)) - max(map(int, dark)) > 150
    page.close()


def test_it_needs_nothing_from_outside(page: "Page") -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    assert requests and all(url.startswith(("file:", "data:")) for url in requests)
    assert sum(url.startswith("file:") for url in requests) == 1


def test_formulas_and_words_are_told_apart() -> None:
    html = with_formulas(r"a < b: $x \le 1$")
    assert html.startswith("a &lt; b: <math") and "$" not in html


def test_report_of_a_run_has_every_figure(report_page: "Page", smoke: Workflow) -> None:
    assert "Weight decay drives the weight matrices" in report_page.inner_text("body")
    report_page.get_by_text("Figures", exact=True).click()
    rows = [text.split("\t")[:2] for text in report_page.locator("tbody tr").all_inner_texts()]
    assert sorted(rows) == sorted(
        [title, FIGURES[figure].shows] for title, figure in FIGURES_BY_TITLE.items()
    )
    pictures = {path.stem for path in (smoke.folder / "results/figures").glob("*.png")}
    assert len(rows) == len(pictures) + 1
    report_page.locator("tbody tr", has_text="Figure 3").locator("a, button").first.click()
    picture = report_page.locator("img[src*='figure3.png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500


def test_report_of_a_run_has_every_claim(report_page: "Page", verdicts: list[Verdict]) -> None:
    report_page.get_by_text("Claims", exact=True).click()
    rows = report_page.locator("tbody tr").all_inner_texts()
    assert {row.split("\t")[0] for row in rows} == {verdict.claim for verdict in verdicts} | {"all claims"}
    (row,) = (row for row in rows if row.startswith("identity\t"))
    assert row.split("\t")[1:3] == ["ours", "holds 2"]


def test_report_of_a_run_has_its_settings_scans_and_origin(report_page: "Page", smoke: Workflow) -> None:
    report_page.get_by_text("Run", exact=True).click()
    rows = report_page.locator("tbody tr", has_text="settings, scans, origin")
    rows.locator("a, button").first.click()
    overview = report_page.frame_locator("iframe")
    assert "Made by decaymerge 0." in overview.locator("#origin + p").inner_text()
    settings = yaml.safe_load(overview.locator("pre").inner_text())
    assert settings["experiments"]["weight_decay"] == smoke_config()["experiments"]["weight_decay"]
    layers = overview.locator("table.scan tbody tr").all_inner_texts()
    scan = store.read(smoke.folder / "results/scan/tiny_bert.nc")
    assert len(layers) == scan.sizes["layer"]
    norm, rank = (float(scan[name].sel(layer=0, role="Q")) for name in ("frobenius_norm", "stable_rank"))
    assert f"{norm:.4g} / {rank:.3g}" in layers[0]


def test_report_of_a_run_has_its_times(report_page: "Page") -> None:
    report_page.get_by_text("Statistics", exact=True).click()
    assert report_page.locator("canvas, svg.marks").first.is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_run_is_explored_by_moving_sliders(
    browser: "Browser", smoke: Workflow, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    results = smoke.folder / "results"
    files = [*results.glob("*/summary.nc"), *results.glob("*/claims.nc")]
    assert decaymerge("explore", tmp_path / "explore.html", *files).returncode == 0
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda sent: errors.append(sent.url) if sent.url.startswith("http") else None)
    page.goto((tmp_path / "explore.html").as_uri())
    names = page.locator("#experiment option").all_inner_texts()
    assert "Gap:" in page.locator("#said").inner_text()  # not one that merges nothing
    page.select_option("#experiment", "weight_decay")
    summary = store.read(results / "weight_decay/summary.nc")
    for decay, step in ((1, summary.sizes["step"] - 1), (0, 3)):
        page.locator("#decay").fill(str(decay))
        page.locator("#step").fill(str(step))
        loss = summary.loss.isel(weight_decay=decay, step=step, merge_set=0).mean("task")
        gap = float((loss.sel(model="sum") - loss.sel(model="own")).mean("seed"))
        assert f"Gap: sum {gap:.3g} (" in page.locator("#said").inner_text()
    shown: set[str] = set()
    for name in names:
        page.select_option("#experiment", name)
        shown.update(
            page.eval_on_selector_all("section:not([hidden]) .chart", "all => all.map(one => one.id)")
        )
        page.wait_for_function(WHOLE_PLACE)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown >= {"loss", "gap", "ranks", "interference"}
    assert not errors
    page.close()
