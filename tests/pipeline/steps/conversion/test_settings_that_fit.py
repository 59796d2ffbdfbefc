"""Settings that name clips and tracks: they fit, or are an error; and they hold until they end."""

import numpy as np
import pytest

import cache
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video

N = 40
# corners (px) of two people of 30 px who walk
PLACES = {"left": 10, "right": 100}


@pytest.fixture
def clips(tmp_path):
    """Writes clips of two people, with the number of each."""

    def write(*names, **numbers):
        numbers = numbers or {"left": 1, "right": 2}
        for name in names:
            write_video(tmp_path / "clips" / name, N, step=0)
            file = tmp_path / f"clips/keypoints/{name}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                f"{numbers[side]},{t},{PLACES[side] + t / 10},40,30,30"
                for t in range(N)
                for side in numbers
            ]
            file.write_text("\n".join(["track,frame,x,y,w,h", *lines]))

    return write


@pytest.fixture
def tracks(tmp_path):
    """Left edges (px) of the people in the cache, by track."""

    def read(split="videos/train"):
        rows = cache.open(tmp_path / "cache")[split]
        centres = {
            one.name: float(rows.rows("bbox", one.start, one.stop)[0, 0]) for one in rows.tracks
        }
        return {name: "left" if x < 80 else "right" for name, x in centres.items()}

    return read


@pytest.fixture
def listed(tmp_path):
    return lambda *lines: (tmp_path / "out.txt").write_text("".join(f"{one}\n" for one in lines))


CONVERT = "convert videos/train --raw TMP/clips --cache CACHE --set convert.leave_out=TMP/out.txt"


# --------------------------------------------------------------------------------------------------
# tracks that are left out


def test_a_line_whose_track_is_another_one_now_is_its_video_s_error(clips, listed, tracks, types):
    clips("a.mp4", "b.mp4", "c.mp4")
    listed("a.mp4/1", "b.mp4/1")
    types(CONVERT)
    before = {"a.mp4/2": "right", "b.mp4/2": "right", "c.mp4/1": "left", "c.mp4/2": "right"}
    assert tracks() == before
    clips("a.mp4", "c.mp4", left=2, right=1)
    for _ in range(2):  # until it is corrected
        types(CONVERT, "no_such_track", "a.mp4/1", "out.txt has lines that do not fit", code=1)
        assert tracks() == {**before, "c.mp4/1": "right", "c.mp4/2": "left"}
    listed("b.mp4/1")
    types(CONVERT)
    assert tracks().keys() - {"a.mp4/1", "a.mp4/2"} == before.keys() - {"a.mp4/2"} | {"c.mp4/1"}
    listed("b.mp4/1", "a.mp4/2")
    types(CONVERT, "left_out_by_hand")
    assert tracks()["a.mp4/1"] == "right"
    assert "a.mp4/2" not in tracks()


def test_other_detections_of_the_same_person_are_left_out(
    clips, listed, tracks, types, monkeypatch
):
    clips("a.mp4")
    listed("a.mp4/1")
    types(CONVERT)
    monkeypatch.setitem(PLACES, "left", 13)
    clips("a.mp4")
    types(CONVERT)
    assert tracks() == {"a.mp4/2": "right"}


def test_a_line_that_fits_no_track_is_an_error_also_of_a_new_video(clips, listed, tracks, types):
    clips("a.mp4", "b.mp4")
    listed("a.mp4/7")
    for _ in range(2):
        types(CONVERT, "a.mp4/7", "which has a.mp4/1, a.mp4/2", code=1)
        assert tracks().keys() == {"b.mp4/1", "b.mp4/2"}
    listed("a.mp4/1")
    types(CONVERT)
    assert tracks().keys() == {"a.mp4/2", "b.mp4/1", "b.mp4/2"}


# --------------------------------------------------------------------------------------------------
# values that hold until another one is named

PREPARE = "prepare videos --raw TMP/clips --cache CACHE --detector none"
AGAIN = "convert videos/train --cache CACHE"
WITH_RAW = f"{AGAIN} --raw TMP/clips"


def test_a_list_holds_in_the_nights_after_it_was_named_and_none_ends_it(
    clips, listed, tracks, types
):
    clips("a.mp4", "val/b.mp4")
    types(PREPARE)
    listed("a.mp4/1")
    types(f"{PREPARE} --set convert.leave_out=TMP/out.txt")
    assert tracks() == {"a.mp4/2": "right"}
    types(f"{PREPARE} --plan", "up to date", "as before: convert.corrections =", "none ends it")
    types(PREPARE)
    assert tracks() == {"a.mp4/2": "right"}
    # also of the split of which the list had no line
    listed("a.mp4/1", "val/b.mp4/2")
    types(PREPARE)
    assert tracks() == {"a.mp4/2": "right"}
    assert tracks("videos/val") == {"val/b.mp4/1": "left"}
    assert "as before" not in types(f"{PREPARE} --set convert.leave_out=none")
    assert (len(tracks()), len(tracks("videos/val"))) == (2, 2)
    assert "as before" not in types(PREPARE)


def test_a_list_that_is_gone_is_an_error_until_none_ends_it(clips, listed, tmp_path, types):
    clips("a.mp4")
    listed("a.mp4/1")
    types(CONVERT)
    (tmp_path / "out.txt").unlink()
    for command in (AGAIN, WITH_RAW):
        types(command, "out.txt", "= none", code=2)
    types(f"{AGAIN} --set convert.leave_out=none")
    types(AGAIN, "up to date")


def test_a_split_is_converted_as_recorded_but_for_the_list(clips, listed, tracks, types):
    clips("a.mp4")
    types(f"{WITH_RAW} --set videos.min_frames=30")
    listed("a.mp4/1")
    types(f"{AGAIN} --set convert.leave_out=TMP/out.txt", "left_out_by_hand")
    assert tracks() == {"a.mp4/2": "right"}


def test_a_stated_rate_holds_until_none_ends_it_and_no_other_option_does(
    clips, types, tmp_path, luigi_cfg
):
    clips("a.mp4")
    types(f"{WITH_RAW} --set videos.fps=50 --set videos.min_frames=30")
    types(WITH_RAW, "(why: parameters.min_frames was 30, is 40)")
    assert {one.fps for one in cache.open(tmp_path / "cache")["videos/train"].tracks} == {50}
    luigi_cfg("videos", "[videos]\nfps =")
    types(WITH_RAW, "luigi.cfg", "fps: is empty", code=2)
    luigi_cfg("videos", "[videos]\nfps = none")
    types(WITH_RAW, "(why: parameters.fps was 50, is not set)")


# --------------------------------------------------------------------------------------------------
# rates of clips


def rates(tmp_path, split="videos/train"):
    """Rates of the clips in the cache."""
    return {one.video: one.fps for one in cache.open(tmp_path / "cache")[split].tracks}


@pytest.mark.parametrize(
    ("stated", "texts"),
    [
        ("nosuch/*=60", ["[videos] fps", "no video of videos fits 'nosuch/*'"]),
        ("train/plain.mp4=60", ["fits 'train/plain.mp4'; did you mean", "plain.mp4'?"]),
        ("plain.mp=60, *=25", ["fits 'plain.mp'; did you mean 'plain.mp4'?"]),
        ("videos/val/plain.mp4=60", ["did you mean 'videos/train/plain.mp4'?"]),
        ("plain.mp4=59,94", ["'plain.mp4=59,94'", "decimal point"]),
        ("59,94", ["'59,94'", "decimal point"]),
    ],
)
def test_a_rate_that_fits_no_clip_is_an_error(clips, types, tmp_path, stated, texts):
    clips("plain.mp4", "val/b.mp4")
    convert = WITH_RAW.replace("CACHE ", f"CACHE --set 'videos.fps={stated}' ")
    types(convert, *texts, code=2)
    assert not (tmp_path / "cache/videos").exists()


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("plain.mp4=59.94", 59.94),
        ("val/b.mp4=60, plain.mp4=59.94", 59.94),  # b.mp4 is in another split
        ("videos/train/plain.mp4=50", 50),
        ("videos/train/*=50, 60", 50),
        ("videos/val/*=50, 60", 60),
        ("videos/*/b.mp4=50, val/b.mp4=40, 60", 60),
    ],
)
def test_a_clip_is_named_by_its_path_or_its_full_name(clips, types, tmp_path, stated, expected):
    clips("plain.mp4", "val/b.mp4")
    types(WITH_RAW.replace("CACHE ", f"CACHE --set 'videos.fps={stated}' "))
    assert rates(tmp_path) == {"plain.mp4": pytest.approx(expected)}


def test_a_name_in_another_form_and_with_brackets_is_meant(clips, types, tmp_path):
    clips("caf\u00e9.mp4", "take [1].mp4")
    types(
        WITH_RAW.replace("CACHE ", "CACHE --set 'videos.fps=cafe\u0301.mp4=50, take [1].mp4=60' ")
    )
    assert rates(tmp_path) == {"caf\u00e9.mp4": 50, "take [1].mp4": 60}


def test_an_entry_fits_a_clip_that_only_the_cache_has(clips, types, tmp_path):
    clips("plain.mp4", "b.mp4")
    types(WITH_RAW)
    (tmp_path / "clips/b.mp4").unlink()
    (tmp_path / "clips/keypoints/b.mp4.csv").unlink()
    types(f"{WITH_RAW} --set videos.fps=b.mp4=50", "1 video missing", code=1)
    types(f"{WITH_RAW} --set videos.fps=c.mp4=50", "fits 'c.mp4'", code=2)


@pytest.mark.parametrize("dataset", ["videos", "kinetics"])
def test_a_joint_order_is_stated_of_clips_that_there_are_and_holds(dataset, tmp_path, types):
    raw = tmp_path / "raw"
    write_video(raw / "train/a.mp4", N, step=0)
    people = {t: standing("coco", 60 + t / 4, 60) for t in range(N)}
    write_alphapose(raw / "keypoints/train/a.mp4.json", people)
    convert = f"convert {dataset}/train --raw TMP/raw --cache CACHE"
    types(f"{convert} --set {dataset}.joints=train/b*=coco", "fits 'train/b*'", code=2)
    name = "a" if dataset == "kinetics" else "a.mp4"
    types(f"{convert} --set {dataset}.joints={dataset}/train/train/{name}=coco", "videos 1 kept")
    assert "assumed" not in types(convert, "up to date")
    types(f"{convert} --set {dataset}.joints=none", "assumed the joint order coco for 1 video")


# --------------------------------------------------------------------------------------------------
# columns of tables


def test_columns_are_stated_of_clips_that_there_are_and_hold(clips, tmp_path, tracks, types):
    """A table of supervision, frames from 1, beside one with our columns."""
    clips("plain.mp4")
    write_video(tmp_path / "clips/lab/a.mp4", N, step=0)
    file = tmp_path / "clips/keypoints/lab/a.mp4.csv"
    file.parent.mkdir()
    lines = [f"{10 + t / 10},40,{40 + t / 10},70,0.9,7,{t + 1}" for t in range(N)]
    file.write_text("\n".join(["x_min,y_min,x_max,y_max,confidence,tracker_id,no", *lines]))
    stated = (
        "--set 'videos.table_columns=lab/*=track:tracker_id frame:no-1 x:x_min y:y_min x2:x_max "
        "y2:y_max score:confidence'"
    )
    plain = {"plain.mp4/1": "left", "plain.mp4/2": "right"}
    types(f"{WITH_RAW} {stated.replace('lab/', 'lib/')}", "fits 'lib/*'", code=2)
    types(WITH_RAW, "lab/a.mp4.csv", "missing or twice: track", "[videos] table_columns")
    assert tracks() == plain
    types(f"{WITH_RAW} {stated}", "parameters.table_columns was not set")
    assert tracks() == plain | {"lab/a.mp4/7": "left"}
    (track,) = (
        one for one in cache.open(tmp_path / "cache")["videos/train"].tracks if one.video[0] == "l"
    )
    rows = cache.open(tmp_path / "cache")["videos/train"]
    x, y, w, h = rows.rows("bbox", track.start, track.stop).T
    np.testing.assert_allclose(x, 25 + np.arange(N) / 10, atol=1e-4)
    assert ({*y.tolist()}, {*w.round(3).tolist()}, {*h.round(3).tolist()}) == ({55}, {30}, {30})
    frames = rows.rows("frame_index", track.start, track.stop)
    assert frames.tolist() == [*range(N)]
    types(f"{PREPARE} --plan", "up to date", "as before: videos.table_columns = lab/*=track:")
    dropped = types(f"{WITH_RAW} --set videos.table_columns=none", "40 rows of unchanged files")
    assert "(why: parameters.table_columns was lab/*=track:tracker_id" in dropped
