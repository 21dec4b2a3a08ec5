"""The report page as people see it: in Chromium, without network, light and dark.

Runs by `make browser`. With a folder in FUSEWIRE_TEST_PICTURES, the run is as long as that of
`make demo`, and the pictures of README are taken from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chromium import chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PICTURES = os.environ.get("FUSEWIRE_TEST_PICTURES", "")
MOST_BYTES = 200_000
SHORT = ("--healthy", "2", "--outage", "3")
SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 25)"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the report of a real run."""
    target = tmp_path_factory.mktemp("report") / "outage.html"
    program = [sys.executable, "-c", "from fusewire.cli import main; main()", "demo"]
    subprocess.run(
        [*program, "--report", target, *(() if PICTURES else SHORT)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=110,
    )
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Imported here: only the environment of `make browser` has it.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - see above

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), timeout=60_000)
        yield browser
        browser.close()


@pytest.fixture
def opened(report: Path, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Provide a function that opens the report, offline. What it asks for or complains of fails."""
    heard: list[str] = []
    contexts = []

    def open_page(*, width: int = 1100, height: int = 1140, **options: Any) -> Page:
        context = browser.new_context(
            offline=True, viewport={"width": width, "height": height}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(report.as_uri())
        assert heard.pop(0) == report.as_uri()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize(("scheme", "background"), SCHEMES.items())
def test_the_page_follows_the_readers_colors(
    opened: Callable[..., Page], scheme: str, background: str
) -> None:
    page = opened(color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
    colors = page.evaluate(
        "['ok', 'pending', 'error', 'band'].map(kind =>"
        " getComputedStyle(document.querySelector(`svg .${kind}`)).fill)"
    )
    assert len(set(colors)) == len(colors) - 1  # an error is red, and so is the outage
    assert "rgb(0, 0, 0)" not in colors  # what a shape without a style is


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing(opened: Callable[..., Page], scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - as in `browser`

    page = opened(color_scheme=scheme, width=width)
    page.locator("summary").click()  # what is folded is looked at too
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert len(results.response["passes"]) > 15


def test_everything_can_be_seen_without_scripts(opened: Callable[..., Page]) -> None:
    page = opened(java_script_enabled=False)
    for words in ("NOTHING LOST, NOTHING CHARGED TWICE", "Why p99 during the outage is"):
        assert page.get_by_text(words).first.is_visible()
    drawings = page.locator("svg")
    assert drawings.count() == 2
    for number in range(2):
        box = drawings.nth(number).bounding_box()
        assert box is not None
        assert box["width"] > 900
        assert box["height"] > 300


@pytest.mark.parametrize("width", [1100, 360])
def test_no_text_of_the_curves_leaves_the_drawing_or_covers_another(
    opened: Callable[..., Page], width: int
) -> None:
    outside, covered = opened(width=width).evaluate(
        """() => {
          const outside = [], covered = [];
          for (const svg of document.querySelectorAll('svg')) {
            const frame = svg.getBoundingClientRect();
            const texts = [...svg.querySelectorAll('text')].map(
              text => [text.textContent, text.getBoundingClientRect()]);
            for (const [words, box] of texts)
              if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
                  box.top < frame.top - 1 || box.bottom > frame.bottom + 1) outside.push(words);
            texts.forEach(([words, a], at) => texts.slice(at + 1).forEach(([other, b]) => {
              if (a.left < b.right - 1 && b.left < a.right - 1 &&
                  a.top < b.bottom - 3 && b.top < a.bottom - 3) covered.push(`${words}/${other}`);
            }));
          }
          return [outside, covered];
        }"""
    )
    assert (outside, covered) == ([], [])


def test_a_narrow_screen_scrolls_the_curves_and_not_the_page(opened: Callable[..., Page]) -> None:
    page = opened(width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", SCHEMES)
def test_its_picture_is_small_enough_for_readme(
    opened: Callable[..., Page], scheme: str, tmp_path: Path
) -> None:
    folder = ROOT / PICTURES if PICTURES else tmp_path
    picture = folder / f"outage-{scheme}.png"
    opened(color_scheme=scheme).screenshot(path=picture)
    assert 10_000 < picture.stat().st_size < MOST_BYTES
