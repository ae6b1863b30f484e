"""The documentation as a site, in a real browser."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from commands import command_names
from conftest import REPOSITORY
from decaymerge import __version__
from decaymerge.config import json_schema

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Quiet(SimpleHTTPRequestHandler):
    """A server that prints nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built: a warning, as of a link that leads nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(browser: "Browser") -> "Page":
    return browser.new_page()


def test_every_page_opens_without_an_error_and_asks_nobody_else(
    page: "Page", site: Path, address: str
) -> None:
    troubles: list[str] = []

    def note(bad: bool, what: str) -> None:
        if bad:
            troubles.append(what)

    page.on("console", lambda message: note(message.type in ("error", "warning"), message.text))
    page.on("pageerror", lambda error: note(True, str(error)))
    page.on("requestfailed", lambda request: note(True, request.url))
    page.on("response", lambda answer: note(answer.status >= 400, answer.url))
    page.on("request", lambda sent: note(not sent.url.startswith((address, "data:", "blob:")), sent.url))
    pages = sorted(path.relative_to(site) for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) >= 20
    for path in pages:
        page.goto(f"{address}{path}", wait_until="networkidle")
        assert page.locator("h1").first.is_visible()
        images = page.locator("article img").evaluate_all("all => all.map(one => one.naturalWidth)")
        assert all(width > 100 for width in images), path
        assert not troubles, f"{path}: {troubles}"


@pytest.mark.parametrize("width", [1280, 390])
def test_formulas_are_mathml_and_the_page_fits(page: "Page", address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}explanation/theory.html")
    text = page.inner_text("article")
    assert "$" not in text and "\\" not in text and not page.locator(".arithmatex").count()
    shown = page.locator("math[display=block]")
    assert shown.count() >= 15 and page.locator("math").count() >= 40
    box = shown.first.bounding_box()
    assert box is not None and box["width"] > 100 and 10 < box["height"] < 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_formula_leads_to_its_function(page: "Page", address: str) -> None:
    page.goto(f"{address}explanation/theory.html")
    page.locator("article a", has_text="norm_preservation").first.click()
    assert page.url.endswith("reference/library.html#decaymerge.claims.stationary.norm_preservation")
    page.get_by_text("p^(K-k) B²").first.wait_for()  # the page is long, and may still be loading


def test_every_setting_is_in_the_reference(page: "Page", address: str) -> None:
    page.goto(f"{address}reference/configuration.html")
    schema = json_schema()
    models = {"Config": schema} | schema["$defs"]
    for name, model in models.items():
        rows = page.locator(f"#{name.lower()} ~ .md-typeset__scrollwrap").first.locator("tbody tr")
        keys = [row.split("\t")[0] for row in rows.all_inner_texts()]
        assert keys == list(model["properties"]), name
    step_size = page.locator("tr", has=page.get_by_text("step_size", exact=True)).first.inner_text()
    assert "number" in step_size and "required" in step_size and "> 0" in step_size and "η" in step_size


def test_every_command_is_in_the_reference(page: "Page", address: str) -> None:
    page.goto(f"{address}reference/commands.html")
    text = page.inner_text("article")
    for name in command_names():
        assert f"decaymerge {name}" in text, name
    assert "--max-memory" in text


@pytest.mark.parametrize("is_served", [True, False])
def test_search_finds_a_page(page: "Page", site: Path, address: str, is_served: bool) -> None:
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(address if is_served else (site / "index.html").as_uri())
    page.locator("input.md-search__input").click()
    page.keyboard.type("denormal")
    page.locator(".md-search-result__item", has_text="Troubleshooting").first.wait_for()
    assert [url for url in asked if not url.startswith((address, "file:", "data:", "blob:"))] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_figures_have_a_caption_and_enlarge(
    browser: "Browser", site: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((site / "explanation/results.html").as_uri())
    figures = page.locator("article figure")
    assert figures.count() == page.locator("article img").count() > 5
    assert "Figure 3" in figures.first.locator("figcaption").inner_text()
    figures.first.locator("img").click()
    large = page.locator(".gslide.current img")
    large.wait_for()
    assert large.evaluate("image => image.naturalWidth") > 1000
    page.close()


def test_every_page_says_the_version(page: "Page", address: str) -> None:
    page.goto(f"{address}glossary.html")
    assert f"decaymerge {__version__}" in page.locator("footer").inner_text()
