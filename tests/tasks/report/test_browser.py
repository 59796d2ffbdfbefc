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

from pipeline.show.page import write_page
from pipeline.show.player import write_player
from pipeline.show.tracks import Choice, from_cache
from tasks.report.assembly import ReportContent
from tests.browser import LIMIT, NEEDED
from tests.tasks.report.conftest import person, write_split, write_stream
from tests.tasks.report.runs_by_hand import SPLIT, make_run, metrics

LONG = "a_video_whose_name_is_much_longer_than_a_line_of_a_telephone_or_a_column_of_a_table_" * 2
pytestmark = NEEDED
PAGES = ("report", "tracks", "player")
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
    written = {"report": folder / "report.html", "tracks": folder / "tracks.html"}
    shown, notes = tuple((run.name, run) for run in runs), (f"No run {LONG}.",)
    ReportContent(own, None, None, "resnet50", shown, notes).write(written["report"])
    write_page(
        from_cache(own, "penn_action/train", Choice(n_tracks=2, n_frames=2)), written["tracks"]
    )
    written["player"] = folder / "player.html"
    video = from_cache(own, "penn_action/train", Choice(n_tracks=1)).tracks[0].record.video
    played = from_cache(own, "penn_action/train", Choice(video=video, n_frames=1000))
    write_player(played, written["player"])
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
    assert [url for url in seen["requests"] if not url.startswith("data:")] == [
        pages[name].as_uri()
    ]
    # pictures without a name, tables without a caption, ids used twice, links to nowhere, areas
    # that scroll but cannot be reached by keyboard
    assert {kind: seen[kind] for kind in KINDS if seen[kind]} == {}
    levels = seen["levels"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_ticked_tracks_make_a_list_to_copy(browser, root, tmp_path):
    raw = root.parent / "raw/penn_action"
    tracks = {f"{video}/0": person(3) for video in ("0001", "0002", "0003")}
    tracks["0003/0"] = person(3, visible=2)
    write_split(tmp_path, "own/train", tracks, raw=raw)
    page = tmp_path / "page.html"
    shown = from_cache(tmp_path, "own/train", Choice())
    write_page(shown, page)
    assert [track.grade.word for track in shown.tracks] == ["good", "good", "bad"]
    tab = browser.new_page()
    tab.set_default_timeout(LIMIT)
    tab.goto(page.as_uri())
    tab.click("text=Leave out tracks")

    def copied():
        tab.evaluate("getSelection().removeAllRanges()")
        tab.click(".list")  # which selects all of it
        lines = tab.evaluate("getSelection().toString()").splitlines()
        return [line.partition("  # ") for line in lines if line.strip()]

    assert copied() == []
    tab.check("#leave-out-2")
    assert [name for name, _, _ in copied()] == ["own/train/0002/0"]
    tab.check("#leave-out-doubtful")
    assert copied() == [
        ("own/train/0002/0", "  # ", "good"),
        ("own/train/0003/0", "  # ", shown.tracks[2].grade.verdict),
    ]
    tab.uncheck("#leave-out-2")
    assert [name for name, _, _ in copied()] == ["own/train/0003/0"]
    tab.close()
