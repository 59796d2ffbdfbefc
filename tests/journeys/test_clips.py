"""A folder of clips, from the first one to a model tuned on them: what people do who have a phone
and no datasets.
"""

import html
import re
import shutil

import numpy as np
import pytest

import cache
from pipeline.features.streams.onnx import read_part
from tests.journeys.conftest import KIT
from tests.journeys.made_inputs import write_clip
from tests.onnx_graphs import Graph

SETTINGS = """
[paths]
raw = raw
body = body
cache = mine
runs = runs
[data]
datasets = 3dpw videos
[core]
local_scheduler = true
[features]
streams = means
[videos]
min_frames = 30
[vibe]
name = first
prior = none
datasets_2d =
datasets_3d = 3dpw/train
validation = 3dpw/validation
evaluation = 3dpw/test
seqlen = 6
baseline = false
batch_size = 2
iterations = 3
epochs = 1
hidden_size = 8
regressor_size = 8
"""
TUNED = {
    "name = first": "name = tuned\npretrained = {}/best.pt\nshare_2d = 0.5",
    "datasets_2d =": "datasets_2d = videos/train",
}
DETECT = "pipeline detect clips --out clips/keypoints --detector red"
CONVERT = "pipeline convert videos/train --raw clips --cache mine"
EXTRACT = "pipeline extract videos/train --cache mine"


def rows_of(terminal, cache="mine", *, code=0):
    """Rows of videos/train; the frames of every split add up."""
    return terminal.frames_kept(cache, code=code)["videos/train"]


def first_clips(terminal):
    """Four clips become tracks, features and a page."""
    types = terminal.types
    clips = terminal.folder / "clips"
    folder = terminal.folder
    terminal.install(KIT)
    write_clip(clips / "a.mp4", 45, seed=1)
    write_clip(clips / "more/b.mp4", 46, seed=2)
    write_clip(clips / "short.mp4", 33, seed=3)
    write_clip(clips / "nobody.mp4", 12, seed=4, person=False)
    # so that the demo body and model may be used with them
    (clips / "STAND_IN.json").write_text('{"stand_in": true}')
    (folder / "luigi.cfg").write_text(SETTINGS)

    types(DETECT, r"4 clips: 124 persons in 136 frames")
    types(CONVERT, r"videos 3 kept of 4, 1 without a track", r"frames 124 kept of 124")
    types(EXTRACT, r"124 rows computed.* 0 carried over")
    show = "pipeline show videos/train --cache mine --video a.mp4 --out page.html"
    types(show, r"1 track of a.mp4 in page.html")
    types("pipeline status videos/train --cache mine --all", r"nobody\.mp4.*no person")


def another_option(terminal):
    """An option that is not the default; then back again."""
    types = terminal.types
    types(
        f"{CONVERT} --set videos.min_frames=40", r"min_frames was 30, is 40", r"33 track_too_short"
    )
    types(EXTRACT, r"0 rows computed.*91 carried over")
    types(CONVERT, r"frames 124 kept of 124")
    types(EXTRACT, r"0 rows computed.*124 carried over")
    for again in (DETECT, CONVERT, EXTRACT):
        types(again, r"up to date")


def left_out_by_hand(terminal):
    """A track that looks bad on the page is left out, and comes back."""
    types, folder = terminal.types, terminal.folder
    page = html.unescape((folder / "page.html").read_text())
    (line,) = re.findall('<code class="leave-out">(.*?)</code>', page)
    (folder / "out.txt").write_text(f"{line}\n")
    convert = f"{CONVERT} --set convert.leave_out=out.txt"
    types(convert, r"1 video with other corrections", r"\d+ left_out_by_hand")
    types(EXTRACT, r"up to date")
    assert rows_of(terminal) < 124
    types("pipeline show videos/train --cache mine --out page.html", r"1 track of .* in page.html")
    page = (folder / "page.html").read_text()
    assert f"<li>{line.partition('  # ')[0]}</li>" in page
    types(convert, r"up to date")
    types(CONVERT, r"up to date")
    types(f"{CONVERT} --set convert.leave_out=none", r"frames 124 kept of 124")
    types(EXTRACT, r"0 rows computed.* 45 carried over")
    types(CONVERT, r"up to date")
    terminal.is_intact("mine")


def one_more_clip_and_a_new_name(terminal):
    """One more clip; another one has a new name."""
    types = terminal.types
    clips = terminal.folder / "clips"
    write_clip(clips / "c.mp4", 50, seed=5)
    (clips / "a.mp4").rename(clips / "renamed.mp4")
    types(DETECT, r"1 clip, 1 renamed: 50 persons", r"renamed a\.mp4", r"3 clips up to date")
    types(CONVERT, r"1 new video, 1 renamed video", r"renamed .*a\.mp4.*renamed\.mp4")
    types(EXTRACT, r"50 rows computed.* 45 carried over")
    assert rows_of(terminal) == 174


def gone_and_back(terminal):
    """A clip goes away: its rows stay until they are dropped."""
    types = terminal.types
    clips = terminal.folder / "clips"
    folder = terminal.folder
    (clips / "c.mp4").rename(folder / "c.mp4")
    types(CONVERT, r"c\.mp4", r"--drop-removed", code=1)
    types("pipeline status --cache mine", r"c\.mp4|1 video missing from", code=1)
    assert rows_of(terminal, code=1) == 174
    types(f"{CONVERT} --drop-removed", r"1 removed")
    types(EXTRACT, r"up to date")
    assert rows_of(terminal) == 124
    (folder / "c.mp4").rename(clips / "c.mp4")
    types(CONVERT, r"1 video read")
    types(EXTRACT, r"0 rows computed.* 50 carried over")


def another_folder(terminal):
    """Another folder."""
    types = terminal.types
    clips = terminal.folder / "clips"
    folder = terminal.folder
    write_clip(folder / "other/d.mp4", 40, seed=7)
    shutil.copy(clips / "STAND_IN.json", folder / "other")
    types("pipeline detect other --out other/keypoints --detector red", r"1 clip: 40 persons")
    types(CONVERT.replace("clips", "other"), r"one folder", r"--cache", code=2)
    assert rows_of(terminal) == 174
    clips.rename(folder / "moved")
    types(CONVERT.replace("clips", "moved"))
    types(EXTRACT, r"up to date")
    terminal.is_intact("mine")


def bodies(terminal):
    """Bodies, by a model that learns from these clips too."""
    types = terminal.types
    folder = terminal.folder
    terminal.demo_data.body(folder / "body")
    terminal.demo_data.dataset("3dpw", folder / "raw/3dpw", n_videos=1, n_frames=10)
    for split in ("train", "validation", "test"):
        types(f"pipeline convert 3dpw/{split} --raw raw/3dpw --cache mine")
        types(f"pipeline extract 3dpw/{split} --cache mine")
    types("tasks train", r"run +runs/first-")
    (first,) = (folder / "runs").glob("first-*")
    single = (
        f"--cache single --detector red --set red.min_pixels=60 --checkpoint {first}/best.pt --out"
    )
    types(f"tasks predict moved/c.mp4 {single} moved", r"1 track, 50 body-frames")
    assert rows_of(terminal, "single") == 50
    terminal.is_intact("single")
    settings = SETTINGS
    for old, new in TUNED.items():
        settings = settings.replace(old, new.format(first))
    (folder / "luigi.cfg").write_text(settings)
    types("tasks train", r"run +runs/tuned-")
    (tuned,) = (folder / "runs").glob("tuned-*")
    types(
        f"tasks predict videos/train --cache mine --checkpoint {tuned}/best.pt --no-overlay "
        "--out tuned",
        r"4 tracks, 174 body-frames",
    )


def write_graph(file):
    """Outputs: a crop's mean colour (3), and the conditioning (3) as the graph got it."""
    graph = Graph()
    outputs = {
        "colour": graph("ReduceMean", "image", axes=[2, 3], keepdims=0),
        "place": "cliff_cond",
    }
    graph.write(file, {"image": ("n", 3, 224, 224), "cliff_cond": ("n", 3)}, outputs)


def boxes_a_graph_and_an_array(terminal):
    """People without joints, a network that needs their place in the image, and numbers of another
    program.
    """
    types, folder, split = terminal.types, terminal.folder, "videos/train"
    write_clip(folder / "street/e.mp4", 42, seed=8)
    types(
        "pipeline detect street --out street/keypoints --detector red_boxes", r"1 clip: 42 persons"
    )
    types("pipeline convert videos/train --raw street --cache new", r"frames 42 kept of 42")
    write_graph(folder / "hmr.onnx")
    of_graph = (
        "--set features.streams=hmr --set hmr.kind=onnx --set hmr.weights=hmr.onnx --set "
        "hmr.inputs=cliff_cond"
    )
    types(
        f"pipeline extract {split} --cache new {of_graph}=intrinsics", r"reads intrinsics", code=1
    )
    types(f"pipeline extract {split} --cache new {of_graph}=cliff", r"42 rows computed")
    np.savez(folder / "other.npz", mine=np.arange(42 * 5, dtype=np.float32).reshape(42, 5))
    array = f"{split} --cache new --format arrays --as mine"
    types(f"pipeline import other.npz {array}", r"42 of 42 rows")
    opened = cache.open(folder / "new")[split]
    (track,) = opened.tracks
    bbox = opened.rows("bbox", track.start, track.stop)
    expected = [
        2 * bbox[:, 0] / 96 - 1,
        2 * bbox[:, 1] / 72 - 1,
        bbox[:, 2] * track.crop_scale / 96,
    ]
    place = read_part(opened, [[track.start, track.stop]], "hmr", "place")
    np.testing.assert_allclose(place[0], np.stack(expected, axis=1), atol=1e-5)
    assert (opened.rows("features/mine", 0, 42).ravel() == np.arange(42 * 5)).all()
    # One more clip: the graph computes its rows alone; the array has none for them.
    write_clip(folder / "street/f.mp4", 41, seed=9)
    types("pipeline detect street --out street/keypoints --detector red_boxes", r"41 persons")
    types("pipeline convert videos/train --raw street --cache new", r"1 new video")
    types(f"pipeline extract {split} --cache new {of_graph}=cliff", r"41 rows computed")
    terminal.is_intact("new")
    types("pipeline status --cache new", r"mine \(imported")


@pytest.mark.promise("problems of All datasets")
def test_a_folder_of_clips(terminal):
    first_clips(terminal)
    another_option(terminal)
    left_out_by_hand(terminal)
    one_more_clip_and_a_new_name(terminal)
    gone_and_back(terminal)
    another_folder(terminal)
    boxes_a_graph_and_an_array(terminal)
    bodies(terminal)
