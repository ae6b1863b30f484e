"""The page of claims and Snakemake's report, in a real browser, the page on a wide and on a narrow window."""

from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page

from conftest import Workflow, smoke_config
from decaymerge import claims, store
from decaymerge.figures.claims_page import MEANINGS, with_formulas


@pytest.fixture(scope="module")
def page(browser: Browser, smoke: Workflow) -> Page:
    page = browser.new_page()
    page.goto((smoke.folder / "results/claims.html").as_uri())
    return page


@pytest.fixture
def checks(smoke: Workflow) -> list[claims.Check]:
    return claims.read(smoke.folder / "results/claims.json")


def test_it_shows_every_check_with_its_status_in_words(page: Page, checks: list[claims.Check]) -> None:
    rows = page.locator("tr.check")
    assert rows.count() == len(checks) > 15
    shown = sorted(rows.nth(i).locator(".status").inner_text() for i in range(rows.count()))
    assert shown == sorted(check.status for check in checks)
    assert page.locator("#overview tbody tr").count() == len({check.claim for check in checks})
    text = page.inner_text("body")
    assert all(status in text and meaning.split(";")[0][:60] in text for status, meaning in MEANINGS.items())
    assert "Tried:" in text


def test_statuses_differ_in_colour(page: Page) -> None:
    colours = page.eval_on_selector_all(
        "ul .status", "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(colours)) == len(MEANINGS)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_window_and_formulas_are_rendered(page: Page, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    formulas = page.locator("p.statement math")
    assert formulas.count() >= 10
    box = formulas.first.bounding_box()
    assert box is not None and box["width"] > 20 and 10 < box["height"] < 200
    assert "$" not in page.inner_text("body") and "\\frac" not in page.inner_text("body")
    assert page.screenshot(path=tmp_path / "page.png")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_row_opens_and_closes_its_picture(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    section = page.locator("section#identity")
    first, second = section.locator("tr.check button").first, section.locator("tr.check button").nth(1)
    picture = section.locator("tr.picture")
    assert not picture.is_visible()
    first.click()
    assert picture.is_visible() and first.get_attribute("aria-expanded") == "true"
    assert section.locator("img").evaluate("image => image.naturalWidth") > 200
    second.click()
    assert picture.is_visible() and first.get_attribute("aria-expanded") == "false"
    second.press("Enter")
    assert not picture.is_visible()


def test_it_needs_nothing_from_outside(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    assert requests and all(url.startswith(("file:", "data:")) for url in requests)
    assert sum(url.startswith("file:") for url in requests) == 1


def test_formulas_and_words_are_told_apart() -> None:
    html = with_formulas(r"a < b: $x \le 1$")
    assert html.startswith("a &lt; b: <math") and "$" not in html


def test_snakemake_report_has_every_figure_and_claim(
    browser: Browser, smoke: Workflow, checks: list[claims.Check], tmp_path: Path
) -> None:
    smoke.run("--report", str(tmp_path / "report.html"))
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert "Weight decay drives the weight matrices" in page.inner_text("body")

    page.get_by_text("Figures", exact=True).click()
    figures = {text.split("\t")[0] for text in page.locator("tbody tr").all_inner_texts()}
    drawn = {path.stem for path in (smoke.folder / "results/figures").glob("*.png")}
    assert figures == {
        "Figure 1",
        "Figure 1, tiny_bert",
        "Figure 2",
        "Figure 3",
        "Overlap",
        "Table 1",
        "fashion_mnist",
    }
    assert len(figures) == len(drawn) + 1
    page.locator("tbody tr", has_text="Figure 3").locator("a, button").first.click()
    picture = page.locator("img[src*='figure3.png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500

    page.reload()
    page.get_by_text("Claims", exact=True).click()
    rows = page.locator("tbody tr").all_inner_texts()
    assert {row.split("\t")[0] for row in rows} == {check.claim for check in checks} | {"all of them"}
    (row,) = (row for row in rows if row.startswith("identity\t"))
    assert row.split("\t")[1:3] == ["ours", "equality 2"]
    assert not errors


def test_report_of_a_run_has_its_settings_scans_and_origin(
    browser: Browser, smoke: Workflow, tmp_path: Path
) -> None:
    """As `make report` makes it: the page under Run is asked for beside all others."""
    smoke.run("results/overview.html")
    smoke.run("--report", str(tmp_path / "report.html"), "all", "results/overview.html")
    (smoke.folder / "results/overview.html").unlink()  # a run without the report does not have it
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.get_by_text("Run", exact=True).click()
    page.locator("tbody tr", has_text="settings, scans, origin").locator("a, button").first.click()
    shown = page.frame_locator("iframe")
    assert "Made by decaymerge 0." in shown.locator("#origin + p").inner_text()
    settings = yaml.safe_load(shown.locator("pre").inner_text())
    assert settings["experiments"]["weight_decay"] == smoke_config()["experiments"]["weight_decay"]
    rows = shown.locator("table.scan tbody tr").all_inner_texts()
    scan = store.read(smoke.folder / "results/scan/tiny_bert.nc")
    assert len(rows) == scan.sizes["layer"]
    norm, rank = (float(scan[name].sel(layer=0, role="Q")) for name in ("frobenius_norm", "stable_rank"))
    assert f"{norm:.4g} / {rank:.3g}" in rows[0]
    page.reload()
    page.get_by_text("Statistics", exact=True).click()
    assert page.locator("canvas, svg.marks").first.is_visible()
