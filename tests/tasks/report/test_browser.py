"""The pages in a real browser, narrow and wide, light and dark: nothing is cut off, missing,
unnamed or hard to read.
"""

import functools
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from numpy.random import default_rng

import cache
from pipeline.files.outputs import OutputRule
from pipeline.show.page import write_motions
from pipeline.show.player import write_player
from pipeline.show.split.page import SplitPage
from pipeline.show.tracks import from_cache
from tasks.report.assembly import ReportContent
from tests.browser import LIMIT, NEEDED
from tests.tasks.report.conftest import person, write_split, write_stream
from tests.tasks.report.runs_by_hand import SPLIT, make_run, metrics

LONG = "a_video_whose_name_is_much_longer_than_a_line_of_a_telephone_or_a_column_of_a_table_" * 2
pytestmark = NEEDED
PAGES = ("report", "split", "motions", "player")
KINDS = ("unnamed", "tables", "headers", "links", "ids", "scrollers")  # of faults
CONTRAST = 4.5  # WCAG 2, level AA
LOOK = Path(__file__).with_name("look.js").read_text()


@pytest.fixture(scope="session")
def pages(root, tmp_path_factory):
    """The report of a cache with many splits and runs with long names, and the page of a split's
    tracks.
    """
    folder = tmp_path_factory.mktemp("pages")
    own = folder / "cache"
    shutil.copytree(root, own)
    for dataset in ("mpi_inf_3dhp", "insta_variety", "lab_recordings_of_dancers"):
        for split in ("train", "validation"):
            write_split(own, f"{dataset}/{split}", {f"{LONG}/0": person(12)})
            features = default_rng(2).normal(size=(12, 8))
            write_stream(own, f"{dataset}/{split}", features)
    runs = [
        make_run(folder, name, stand_in=True, track=f"{LONG}/0")
        for name in ("vibe", LONG, "unfinished")
    ]
    many = metrics(stand_in=True)
    more = {"mpi_inf_3dhp/test": many[SPLIT], "h36m/val": many[SPLIT]}
    (runs[0] / "metrics.json").write_text(json.dumps(many | more))
    (runs[2] / "metrics.json").unlink()
    written = {"report": folder / "report.html", "motions": folder / "motions.html"}
    shown, notes = tuple((run.name, run) for run in runs), (f"No run {LONG}.",)
    ReportContent(own, None, None, "resnet50", shown, notes).write(written["report"])
    split = "insta_variety/train"
    shown_split = from_cache(own, split, n_tracks=0, raw=folder)
    SplitPage(shown_split, cache.open(own)[split]).write(folder / "split", OutputRule("show"))
    written["split"] = folder / "split/index.html"
    write_motions(from_cache(own, "amass/train"), written["motions"])
    written["player"] = folder / "player.html"
    write_player(from_cache(own, "penn_action/train"), written["player"])
    return written


@pytest.fixture(scope="session")
def look(browser, pages):
    """What the browser finds in a page that is opened from disk, with all that can be unfolded
    unfolded.
    """

    @functools.cache
    def at(name, width, scheme):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(LIMIT)
        tab = context.new_page()
        messages = []
        requests = []
        tab.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("requestfailed", lambda request: messages.append(f"failed: {request.url[:80]}"))
        tab.goto(pages[name].as_uri(), wait_until="load")
        tab.evaluate(
            "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
        )
        found = {**tab.evaluate(LOOK, CONTRAST), "messages": messages, "requests": requests}
        context.close()
        return found

    return at


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(360, "light"), (1440, "dark"), pytest.param(768, "light", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off_or_hard_to_read(look, name, width, scheme):
    seen = look(name, width, scheme)
    assert seen["width"] <= width
    assert seen["beyond"] == []
    assert seen["unreadable"] == []


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_complete_and_accessible(look, pages, name):
    seen = look(name, 360, "light")
    assert seen["messages"] == []
    of_files = [url for url in seen["requests"] if not url.startswith("data:")]
    assert of_files[0] == pages[name].as_uri()
    pictures = pages["split"].parent.as_uri() + "/pictures/"
    assert [url for url in of_files[1:] if name != "split" or not url.startswith(pictures)] == []
    # pictures without a name, tables without a caption, ids used twice, links to nowhere, areas
    # that scroll but cannot be reached by keyboard
    assert {kind: seen[kind] for kind in KINDS if seen[kind]} == {}
    levels = seen["levels"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
