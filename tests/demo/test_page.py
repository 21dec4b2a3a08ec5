"""The report page stands for itself: no network, no scripts, all text escaped, and not long."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from fusewire.demo._charts import LEFT, RIGHT, WIDTH, Figure, Series
from fusewire.demo._config import Plan
from fusewire.demo._course import DOWN, UP, Stretch
from fusewire.demo._page import check_target, render, write_page
from fusewire.demo._tally import Tally
from fusewire.errors import SettingsError
from tests.demo.made_up_run import Clocked, outage, recovery

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page as a browser would take it: its elements, its attributes, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1].append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    course = outage()
    return Page(render(Plan(), recovery(course), course))


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert {name for name, _ in page.tags} & {"script", "link", "img", "iframe", "object"} == set()
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert not attributes.keys() & {"src", "href", "style"}
    assert "url(" not in page.html
    assert "@import" not in page.html


def test_its_policy_forbids_all_but_its_own_style(page: Page) -> None:
    (policy,) = (
        meta["content"] or ""
        for meta in page.named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    found = re.search(r"<style>(.*)</style>", page.html, re.DOTALL)
    assert found
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_all_elements_are_closed(page: Page) -> None:
    assert page.open == []


def test_the_verdict_and_what_each_client_lost_stand_first(page: Page) -> None:
    assert page.text.index("NOTHING LOST") < page.text.index("With Fusewire")
    assert ["lost: an error, and not charged", "0", "60", "60"] in page.rows
    assert ["charged twice", "0", "0", "1"] in page.rows
    cards = [" ".join(card.split()) for card in page.text.split("lost: never made")[1:]]
    assert [card.split(" ", 1)[0] for card in cards] == ["0", "60", "60"]


def test_a_failed_run_is_told_from_a_good_one_in_words(page: Page) -> None:
    course = outage()
    report = dataclasses.replace(recovery(course), lost=3)
    failed = Page(render(Plan(), report, course))
    assert "✘ FAILED: lost: 3" in failed.text
    assert "✔" not in failed.text
    assert "✘" not in page.text


def test_curves_have_a_name_a_description_and_their_figures_in_a_table(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    drawings = page.named("svg")
    assert len(drawings) == 2
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= ids
    rows = [row for row in page.rows if re.match(r"\d+\.\d to \d+\.\d$", row[0])]
    assert sum(int(row[1]) for row in rows) == 40  # answered OK
    assert sum(int(row[2]) for row in rows) == 60  # PENDING
    assert max(int(row[4]) for row in rows) == 60  # waiting
    assert rows[-1][4] == "0"


def test_states_and_the_outage_stand_in_words_in_the_curves(page: Page) -> None:
    for words in (
        "server down, 12.0 s",
        "open",
        "closed",
        "PENDING",
        "errors",
        "Waiting, at most 60",
    ):
        assert words in page.text


def test_it_says_why_p99_is_what_it_is(page: Page) -> None:
    assert "Why p99 during the outage is 50.0 ms" in page.text
    assert "of the outage were answered within" in page.text


def test_every_text_is_escaped() -> None:
    course = outage()
    hostile = "<script>alert(1)</script>\"'&"
    course.step(hostile)
    report = dataclasses.replace(recovery(course), remarks=(hostile,))
    page = Page(render(Plan(), report, course))
    assert page.named("script") == []
    assert page.text.count("alert(1)") == 2  # the step and the remark


def test_a_long_run_makes_no_long_page() -> None:
    course = outage(rate=100)
    for number in range(5000):
        course.step(f"step {number}")
    report = recovery(course)
    html = render(Plan(), report, course)
    assert len(html) < 150_000
    assert "4945 later events are left out" in html


def test_a_run_in_which_nothing_happened_has_a_page_too() -> None:
    course = Clocked(Plan(), Tally())
    assert Page(render(Plan(), recovery(course), course)).open == []


def test_text_stands_out_from_what_is_behind_it(page: Page) -> None:
    schemes = re.findall(r":root \{(.*?)\}", page.html, re.DOTALL)
    assert len(schemes) == 2  # light and dark
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for front, back in (
            *((name, "page") for name in ("text", "quiet", "bad", "latency")),
            *((name, "card") for name in ("text", "quiet", "bad", "good")),
            ("good", "good-back"),
            ("bad", "bad-back"),
            *(("on-shape", shape) for shape in ("ok", "pending", "error", "orders", "down")),
        ):
            assert contrast(colors[front], colors[back]) >= 4.5, (front, back)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors, as WCAG 2.2 defines it."""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_replaces_its_file_as_a_whole(tmp_path: Path) -> None:
    course = outage()
    target = tmp_path / "outage.html"
    target.write_text("an older report")
    write_page(target, Plan(), recovery(course), course)
    assert target.read_text("utf-8").endswith("</html>")
    assert list(tmp_path.iterdir()) == [target]


def test_a_page_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "absent" / "outage.html"):
        with pytest.raises(SettingsError, match="report must be a file in a folder that exists"):
            check_target(target)
    check_target(tmp_path / "outage.html")


def figure(*server: Stretch) -> Figure:
    return Figure(10.0, 1.0, server or [Stretch(0.0, 10.0, UP)])


def test_a_strip_covers_the_time_from_end_to_end() -> None:
    shapes = figure()
    shapes.add_strip(
        "circuit", [Stretch(0, 4, "closed"), Stretch(4, 4.5, "open"), Stretch(4.5, 10, "half_open")]
    )
    bars = shapes.strips[0].bars
    assert bars[0].x == LEFT
    assert bars[-1].x + bars[-1].width == pytest.approx(WIDTH - RIGHT)
    for one, after in itertools.pairwise(bars):
        assert one.x + one.width == pytest.approx(after.x)
    assert [bar.words for bar in bars] == ["closed", "open", "half open"]


def test_where_a_state_has_no_room_it_has_a_short_name_or_none() -> None:
    shapes = figure()
    shapes.add_strip("circuit", [Stretch(0, 0.3, "half_open"), Stretch(0.3, 0.35, "open")])
    assert [bar.words for bar in shapes.strips[0].bars] == ["½", ""]


def test_a_short_time_down_is_called_a_restart_and_can_be_seen() -> None:
    server = [Stretch(0, 2, UP), Stretch(2, 2.01, DOWN), Stretch(2.01, 4, UP), Stretch(4, 8, DOWN)]
    restart, down = figure(*server).bands
    assert (restart.words, down.words) == ("restart", "server down, 4.0 s")
    assert restart.width >= 2


def test_areas_stand_on_each_other_and_leave_out_what_is_empty() -> None:
    shapes = figure()
    shapes.add_stack(
        "answers",
        100,
        [
            Series("ok", "OK", [40.0] * 4 + [0.0] * 4 + [40.0] * 2),
            Series("pending", "PENDING", [0.0] * 4 + [40.0] * 4 + [0.0] * 2),
            Series("error", "errors", [0.0] * 10),
        ],
    )
    (panel,) = shapes.panels
    ok, pending, error = panel.areas
    assert ok.path.count("M") == 2  # before and after
    assert pending.path.count("M") == 1
    assert (error.path, error.label) == ("", "")
    assert [tick.text for tick in panel.ticks] == ["0", "10", "20", "30", "40"]
    assert panel.ticks[0].at == panel.y + panel.height


def test_a_line_has_gaps_where_there_are_no_values() -> None:
    shapes = figure()
    shapes.add_log_lines("latency", 100, [Series("p50", "p50", [50.0, None, None, 5.0, 0.01])])
    (panel,) = shapes.panels
    (line,) = panel.lines
    assert line.path.count("M") == 2
    assert [tick.text for tick in panel.ticks] == ["1 ms", "10 ms"]
    assert line.y == panel.y + panel.height  # below the scale is at its foot
