"""The pages in a real browser, narrow and wide, light and dark: nothing is cut off, missing, unnamed or hard to read.

An installed Chromium is used, not a downloaded one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import show
from report.data.opened import open_splits
from report.data.sections import data_sections
from report.page import write_page
from report.summary import summary_section
from report.training.run_folder import read_run
from report.training.sections import training_sections
from tests.report.conftest import person, write_split, write_stream
from tests.report.runs_by_hand import SPLIT, make_run, metrics

LONG = "a_video_whose_name_was_made_by_a_machine_that_had_never_heard_of_a_telephone_" * 2
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="a browser is needed: install Chromium (apt install chromium) or Google Chrome"
)
PAGES = ("report", "tracks")
WIDTHS = (360, 768, 1440)  # px
SCHEMES = ("light", "dark")
CONTRAST = 4.5  # WCAG 2, level AA

LOOK = Path(__file__).with_name("look.js").read_text()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium of this machine."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is needed: pip install -e '.[dev]'")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def pages(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a cache with many splits and runs with long names, and the page of a split's tracks."""
    folder = tmp_path_factory.mktemp("pages")
    own = folder / "cache"
    shutil.copytree(root, own)
    for dataset in ("mpi_inf_3dhp", "insta_variety", "lab_recordings_of_dancers"):
        for split in ("train", "validation"):
            write_split(own, f"{dataset}/{split}", {f"{LONG}/0": person(12)})
            features = np.random.default_rng(2).normal(size=(12, 8))
            write_stream(own, f"{dataset}/{split}", features)
    runs = [make_run(folder, name, stand_in=True, track=f"{LONG}/0") for name in ("vibe", LONG, "damaged")]
    many = metrics(stand_in=True)
    (runs[0] / "metrics.json").write_text(
        json.dumps(many | {"mpi_inf_3dhp/test": many[SPLIT], "h36m/val": many[SPLIT]})
    )
    (runs[2] / "metrics.json").write_text("{")
    read = [read_run(run) for run in runs]
    sections = data_sections(own, raw=None, body=None, stream="resnet50")
    sections += training_sections(own, read, notes=[f"No run {LONG}."], fingerprint="0" * 16)
    first = summary_section(open_splits(own), read, stream="resnet50")
    written = {"report": folder / "report.html", "tracks": folder / "tracks.html"}
    facts = {"Cache": f"/data/{LONG}"}
    write_page(written["report"], sections, title="Report", stand_in=True, facts=facts, summary=first)
    show.write_page(show.from_cache(own, "penn_action/train", show.Choice(tracks=2, frames=2)), written["tracks"])
    return written


@pytest.fixture(scope="session")
def look(browser: Any, pages: dict[str, Path]) -> Callable[..., dict[str, Any]]:
    """What the browser makes of a page, opened from disk, all that can be unfolded unfolded."""
    seen: dict[tuple[str, int, str], dict[str, Any]] = {}

    def at(name: str, width: int, scheme: str) -> dict[str, Any]:
        key = (name, width, scheme)
        if key not in seen:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab = context.new_page()
            said: list[str] = []
            asked: list[str] = []
            tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("requestfailed", lambda request: said.append(f"failed: {request.url[:80]}"))
            tab.goto(pages[name].as_uri(), wait_until="load")
            tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            seen[key] = {**tab.evaluate(LOOK, CONTRAST), "said": said, "asked": asked}
            context.close()
        return seen[key]

    return at


everywhere = pytest.mark.parametrize(
    ("name", "width", "scheme"), [(n, w, s) for n in PAGES for w in WIDTHS for s in SCHEMES]
)
anywhere = pytest.mark.parametrize("name", PAGES)


@everywhere
def test_nothing_is_cut_off_or_makes_the_page_wider_than_the_window(
    look: Callable[..., Any], name: str, width: int, scheme: str
) -> None:
    seen = look(name, width, scheme)
    assert seen["width"] <= width
    assert seen["beyond"] == []


@everywhere
def test_text_stands_out_from_what_is_behind_it(look: Callable[..., Any], name: str, width: int, scheme: str) -> None:
    assert look(name, width, scheme)["unreadable"] == []


@anywhere
def test_the_browser_has_nothing_to_complain_of_and_asks_for_nothing(
    look: Callable[..., Any], pages: dict[str, Path], name: str
) -> None:
    seen = look(name, WIDTHS[0], "light")
    assert seen["said"] == []
    assert [url for url in seen["asked"] if not url.startswith("data:")] == [pages[name].as_uri()]


@anywhere
def test_every_picture_and_plot_has_a_name(look: Callable[..., Any], name: str) -> None:
    assert look(name, WIDTHS[0], "light")["unnamed"] == []


@anywhere
def test_headings_go_down_one_level_at_a_time_from_the_only_first_one(look: Callable[..., Any], name: str) -> None:
    levels = look(name, WIDTHS[0], "light")["levels"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


@anywhere
def test_every_table_has_a_caption_and_headers_that_say_what_they_are_of(look: Callable[..., Any], name: str) -> None:
    seen = look(name, WIDTHS[0], "light")
    assert seen["tables"] == []
    assert seen["headers"] == []


@anywhere
def test_what_scrolls_sideways_can_be_reached_by_keyboard_and_has_a_name(look: Callable[..., Any], name: str) -> None:
    assert look(name, WIDTHS[0], "light")["scrollers"] == []


@anywhere
def test_links_lead_to_parts_of_the_page_and_no_two_parts_have_one_id(look: Callable[..., Any], name: str) -> None:
    seen = look(name, WIDTHS[0], "light")
    assert seen["links"] == []
    assert seen["ids"] == []


def test_the_browser_shows_what_was_written(look: Callable[..., Any]) -> None:
    words = " ".join(look("report", WIDTHS[-1], "light")["words"].split())
    assert "STAND-IN." in words
    assert "vibe 51.2 82.5 20.0 21.0 80.0 1,234" in words
    assert "damaged/metrics.json: expected JSON" in words


FAULTS = """<!DOCTYPE html><html lang="en"><body style="background: #fff; color: #000">
<h1>One</h1><h3>Too deep</h3><h1>Again</h1>
<img src="data:,"><table><tr><th>no scope</th></tr></table>
<a href="#nowhere">nowhere</a><p id="same">a</p><p id="same">b</p>
<p style="color: #999">pale</p><p style="width: 2000px">wide</p>
<div style="overflow-x: auto; width: 50px"><p style="width: 200px">scrolls</p></div>
<svg role="img" aria-label="cut" width="20" height="20"><text y="10">much too long for it</text></svg>
</body></html>"""


def test_what_looks_for_faults_finds_each_kind(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(FAULTS)
    tab = browser.new_page(viewport={"width": 360, "height": 900})
    tab.goto((tmp_path / "bad.html").as_uri())
    seen = tab.evaluate(LOOK, CONTRAST)
    tab.close()
    assert seen["width"] > 360
    assert [text.split("> ")[1] for text in seen["beyond"]] == ["wide", "much too long for it"]
    assert seen["levels"] == [1, 3, 1]
    assert [len(seen[kind]) for kind in ("unnamed", "tables", "headers", "links", "ids", "scrollers")] == [1] * 6
    assert [text.split(":")[0] for text in seen["unreadable"]] == ["<p> pale"]
