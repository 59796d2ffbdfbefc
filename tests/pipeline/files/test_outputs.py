"""What commands may write for people, where, and what they may replace there."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline.clips.listing import list_clips
from pipeline.files.outputs import OutputRule, read_mark
from pipeline.files.raw.files import ABOUT
from pipeline.table import COMMANDS
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video
from tests.raising import pipeline_refuses
from tests.trees import contents, tree

PREPARE = "prepare videos --raw RAW --cache CACHE"
CONVERT = "convert videos/train --raw RAW --cache CACHE"
SHOW = "show videos/train --cache CACHE --video crowd.mp4"
RULE = OutputRule("predict")


@pytest.fixture
def clips(types, tmp_path):
    """A raw folder of two clips with keypoints, converted."""
    for name in ("crowd", "other"):
        write_video(tmp_path / f"raw/{name}.mp4", 60, step=0)
        people = {t: standing("coco", 30 + t, 60) for t in range(60)}
        write_alphapose(tmp_path / f"raw/keypoints/{name}/alphapose-results.json", people)
    types(CONVERT, "2 videos")
    return tmp_path / "raw"


def generator(page):
    return re.findall('<meta name="generator" content="([^"]*)">', page.read_text())


# --------------------------------------------------------------------------------------------------
# places


@pytest.mark.promise("inputs")
def test_nothing_is_drawn_over_a_raw_file_or_into_what_datasets_and_caches_read(
    clips, types, tmp_path
):
    (tmp_path / "link").symlink_to(clips)
    (tmp_path / "to_crowd.mp4").symlink_to(clips / "crowd.mp4")
    (tmp_path / "in_cache").symlink_to(tmp_path / "cache/videos")
    (clips / "pictures").mkdir()
    (clips / "pictures/000001.jpg").touch()
    before = tree(tmp_path)
    for place in (
        "RAW/crowd.mp4",
        "RAW/new.mp4",
        "TMP/link/crowd.mp4",
        "TMP/to_crowd.mp4",
        "RAW/keypoints/page.html",
        "RAW/pictures/page.html",
        "CACHE/page.html",
        "TMP/in_cache/page.html",
    ):
        for overwrite in ("", "--overwrite"):
            types(f"{SHOW} --out {place} {overwrite}", "Name a place outside", code=2)
            assert tree(tmp_path) == before
    types(CONVERT, "up to date")


def test_a_page_in_a_raw_folder_has_a_line_and_beside_it_none_and_neither_is_read(
    clips, types, tmp_path
):
    (tmp_path / "drawn").mkdir()
    line = "Datasets do not read pages"
    types(f"{SHOW} --out RAW/page.html", line)
    for place in ("TMP/drawn/page.html", "TMP/drawn/crowd.mp4", "TMP/raw_2.mp4"):
        assert line not in types(f"{SHOW} --out {place}")
    types(CONVERT, "up to date")
    types("show videos/train --raw RAW --out RAW/drawn.mp4", "In a raw folder, only a page", code=2)
    types("bodies videos/train --cache CACHE --out RAW/bodies --stream none", code=2)


def test_pages_of_prepare_within_a_raw_folder_are_no_clips_when_it_runs_again(
    clips, types, tmp_path
):
    (tmp_path / "cache").rename(clips / "cache")
    for n_pages in (1, 0):
        shown = types("prepare videos --raw RAW --cache RAW/cache", "up to date")
        assert shown.count("✓ show") == n_pages
        assert "to read" not in shown
    assert (clips / "cache-videos-train/index.html").is_file()


@pytest.mark.promise("inputs")
def test_files_that_a_command_wrote_into_a_folder_are_not_read_where_that_is_a_raw_folder(
    clips, types, capsys
):
    """Clips of the user beside them are."""
    for folder in (clips / "out", clips):
        RULE.begin_folder(folder, ["overlays", "b.mp4"])
        for name in ("overlays/a.mp4", "b.mp4"):
            write_video(folder / name, 60, step=0)
    write_video(clips / "out/mine.mp4", 60, step=0)
    shown = types(CONVERT, "1 video")
    for folder in (clips, clips / "out"):
        line = f"{folder}: skipped what vibe-pipeline predict wrote there"
        assert shown.count(line) == 1
    assert [*cache.open(clips.parent / "cache")["videos/train"].videos.names][2:] == [
        "out/mine.mp4"
    ]


def test_an_about_json_of_others_hides_no_clip(clips):
    for content in (
        "",
        "[]",
        "[" * 100_000,
        '{"files": ["crowd.mp4"]}',
        '{"generator": "another tool", "files": ["crowd.mp4"]}',
        '{"generator": "vibe-pipeline predict", "files": 3}',
        '{"generator": "vibe-pipeline predict", "files": [["crowd.mp4"], null, "../raw/crowd.mp4"]}',
    ):
        (clips / ABOUT).write_text(content)
        assert list_clips(clips) == ["crowd.mp4", "other.mp4"]
    (clips / ABOUT).unlink()
    os.mkfifo(clips / ABOUT)
    assert list_clips(clips) == ["crowd.mp4", "other.mp4"]


# --------------------------------------------------------------------------------------------------
# pages and clips


@pytest.mark.promise("outputs")
@pytest.mark.parametrize("name", ["notes.html", "notes.mp4"])
def test_a_file_of_others_is_replaced_by_overwrite_alone_and_an_own_one_always(
    clips, types, tmp_path, name
):
    out = tmp_path / name
    out.write_text("<p>my notes</p>")
    refused = f"{out}: expected nothing, or what `show` wrote; found something else"
    types(f"{SHOW} --out TMP/{name}", refused, code=2)
    assert out.read_text() == "<p>my notes</p>"
    types(f"{SHOW} --out TMP/{name} --overwrite")
    first = out.stat().st_ino
    types(f"{SHOW} --out TMP/{name}")
    assert out.stat().st_ino != first
    mark = "vibe-pipeline show"
    assert (read_mark(out) if name == "notes.mp4" else generator(out)) in (mark, [mark])
    out.write_bytes((clips / "crowd.mp4").read_bytes())  # now it is the user's again
    types(f"{SHOW} --out TMP/{name}", refused, code=2)


def test_a_link_a_folder_and_a_pipe_are_not_replaced(clips, types, tmp_path):
    (tmp_path / "nowhere.html").symlink_to("none")
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("nowhere", "folder", "pipe"):
        types(f"{SHOW} --out TMP/{name}.html", f"{name}.html", code=2)
    types(f"{SHOW} --out TMP/folder.html --overwrite", "folder.html", code=2)
    types(f"{SHOW} --out TMP/pipe.html --overwrite")
    assert generator(tmp_path / "pipe.html") == ["vibe-pipeline show"]


def test_commands_replace_their_own_pages_and_none_of_another_command(clips, types, tmp_path):
    page = tmp_path / "drawn.html"
    for _ in range(2):
        types(f"{SHOW} --out {page}")
        assert generator(page) == ["vibe-pipeline show"]
    types(PREPARE)
    index = tmp_path / "cache-videos-train/index.html"
    assert generator(index) == ["vibe-pipeline prepare"]
    types(f"{SHOW} --out {index}", "what `show` wrote; found something else", code=2)
    types(f"show videos/train --cache CACHE --out {index.parent}", "what `show` wrote", code=2)


KILLED = """
import os, sys, time
import numpy as np
from pathlib import Path
from pipeline.show.video_file import video_writer
with video_writer(Path(sys.argv[1]), 25.0, (64, 48), "vibe-pipeline show") as write:
    for _ in range(100):
        write(np.zeros((48, 64, 3), np.uint8))
    print("half", flush=True)
    time.sleep(600)
"""


def test_a_kill_while_a_clip_is_written_leaves_the_old_one(clips, types, tmp_path):
    types(f"{SHOW} --out TMP/drawn.mp4")
    before = (tmp_path / "drawn.mp4").read_bytes()
    command = [sys.executable, "-c", KILLED, tmp_path / "drawn.mp4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout.readline() == "half\n"
        writing.send_signal(signal.SIGKILL)
    assert (tmp_path / "drawn.mp4").read_bytes() == before
    types(f"{SHOW} --out TMP/drawn.mp4")
    assert not [*tmp_path.glob(".*.part")]


# --------------------------------------------------------------------------------------------------
# folders

NAMES = ("a.json", "b.json", "bodies", "overlay.mp4")


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("new")


def names_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.promise("outputs")
def test_of_a_folder_only_files_that_the_command_wrote_are_replaced_or_removed(tmp_path):
    out = tmp_path / "out"
    for names in (["a.json", "bodies/1.npz"], ["b.json", "bodies/2.npz"], ["a.json"]):
        RULE.begin_folder(out, NAMES)
        write(out, *names)
        RULE.end_folder(out, names)
        write(out, "bodies/mine.npz", "mine.json")
        assert names_below(out) == {*names, ABOUT, "bodies/mine.npz", "mine.json"}
        assert (
            {*names}
            <= {*json.loads((out / ABOUT).read_text())["files"]}
            <= {*names, ABOUT, "bodies"}
        )
    write(out, "overlay.mp4")
    before = tree(out)
    with pipeline_refuses(r"overlay\.mp4: expected nothing, or what `predict`"):
        RULE.begin_folder(out, NAMES)
    assert tree(out) == before
    replace(RULE, overwrite=True).begin_folder(out, NAMES)
    with pipeline_refuses(rf"{ABOUT}: expected nothing, or what `bodies` wrote"):
        OutputRule("bodies").begin_folder(out, ["bodies.json"])


def test_what_a_killed_run_left_is_the_command_s_own(tmp_path):
    out = tmp_path / "out"
    RULE.begin_folder(out, NAMES)
    write(out, "bodies/1.npz", "b.json")  # and it is killed
    RULE.begin_folder(out, NAMES)
    write(out, "bodies/1.npz", "a.json")
    RULE.end_folder(out, ["bodies/1.npz", "a.json"])
    assert names_below(out) == {"a.json", "bodies/1.npz", ABOUT}


@pytest.mark.promise("inputs")
def test_an_input_is_neither_replaced_nor_removed_whatever_lists_it(tmp_path):
    out = tmp_path / "out"
    RULE.begin_folder(out, NAMES)
    write(out, "overlay.mp4", "bodies/a.npz")
    RULE.end_folder(out, ["overlay.mp4", "bodies/a.npz"])
    for name in ("overlay.mp4", "bodies/a.npz"):
        os.link(out / name, tmp_path / name.replace("/", "_"))
    rule = replace(RULE, inputs=(tmp_path / "overlay.mp4",), overwrite=True)
    with pipeline_refuses(r"overlay\.mp4: .*overlay\.mp4 is an input"):
        rule.begin_folder(out, NAMES)
    replace(RULE, inputs=(tmp_path / "bodies_a.npz",)).end_folder(out, [])
    assert names_below(out) == {"bodies/a.npz", ABOUT}


@pytest.mark.promise("outputs")
@pytest.mark.parametrize(
    "name",
    [
        *("../outside/1.npz", "{outside}/1.npz", "link/1.npz", "link/folder/3.npz", "link"),
        *("folder/../../outside/1.npz", "file.npz", "", ".", "..", "folder", "a\0b", "\ud800"),
        *("x" * 5000, "a/" * 3000, "absent.npz", "loop/a", 3, None, ["a"], {"a": 1}),
    ],
)
def test_a_hostile_about_json_has_nothing_replaced_or_removed_outside_its_folder(name, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    write(out, "a.npz", "folder/b.npz")
    write(outside, "1.npz", "2.npz", "folder/3.npz")
    (out / "link").symlink_to(outside)
    (out / "loop").symlink_to("loop")
    (out / "file.npz").symlink_to(outside / "2.npz")
    before = tree(outside)
    named = name.format(outside=outside) if isinstance(name, str) else name
    about = {"generator": "vibe-pipeline predict", "files": ["a.npz", named]}
    (out / ABOUT).write_text(json.dumps(about))
    for names in (["link"], ["file.npz"]):
        with pipeline_refuses("expected nothing"):
            RULE.begin_folder(out, names)
    RULE.end_folder(out, [])
    assert tree(outside) == before
    assert {"folder/b.npz", ABOUT, "file.npz"} <= names_below(out)
    assert (out / "link").is_symlink()


def test_a_folder_within_a_raw_folder_or_a_cache_is_refused_also_behind_links(clips, tmp_path):
    rule = OutputRule("predict", (clips,), overwrite=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/bodies").symlink_to(clips)
    (tmp_path / "out/overlays").symlink_to(tmp_path / "cache/videos")
    for folder, name in (
        (clips, "a.npz"),
        (clips / "new/out", "a.npz"),
        (tmp_path / "cache", "a.npz"),
        (tmp_path / "out", "bodies"),
        (tmp_path / "out", "overlays"),
    ):
        before = tree(tmp_path)
        with pipeline_refuses("Name a place outside"):
            rule.begin_folder(folder, [name])
        assert tree(tmp_path) == before
    rule.begin_folder(tmp_path / "beside", NAMES)
    rule.begin_folder(tmp_path, NAMES)  # around both


# --------------------------------------------------------------------------------------------------
# commands without a rule

RUNS = {  # command -> its words
    "config": "",
    "convert": "penn_action/train --raw RAW/penn_action --cache CACHE",
    "doctor": "penn_action --raw RAW",
    "extract": "penn_action/train --cache CACHE --weights untrained:0 --device cpu",
    "gc": "--cache CACHE",
    "import": "TMP/array.npy penn_action/train --cache CACHE --format arrays --as mine",
    "leaks": "--cache CACHE",
    "plan": "",
    "status": "--cache CACHE --csv",
    "verify": "--cache CACHE",
}


@pytest.mark.parametrize(
    "name", [name for name, entry in COMMANDS["pipeline"].items() if entry.writes == "nothing"]
)
def test_a_command_whose_entry_has_no_rule_writes_into_caches_alone(
    name, penn, command_line, luigi_cfg, network, tmp_path
):
    luigi_cfg()
    penn.converted()
    np.save(
        tmp_path / "array.npy",
        np.zeros((sum(t.stop - t.start for t in penn.split.tracks), 3), np.float32),
    )
    folders = (tmp_path, Path.cwd())
    before = [outside_caches(folder) for folder in folders]
    command_line(f"{name} {RUNS[name]}")
    assert [outside_caches(folder) for folder in folders] == before


def outside_caches(folder):
    own = ("cache/", "cache.state/")
    return {name: data for name, data in contents(folder).items() if not name.startswith(own)}
