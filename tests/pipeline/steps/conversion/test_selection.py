"""Tracks that are left out by hand, and rows that are at most so many a second."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_equal

import cache
from cache.windows import windows_of
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.files.raw import RawVideo
from pipeline.files.raw.corrections import Correction
from pipeline.files.raw.video_names import VideoNames
from pipeline.people.track import Track
from pipeline.steps.conversion.convert import convert
from pipeline.steps.conversion.selection import RowSelection, _rows_apart, select
from tests.fixtures import planned_again
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video
from tests.pipeline.files.made_clips import Clip
from tests.pipeline.made_grades import RECORD
from tests.raising import config_refuses


@pytest.fixture
def listed(tmp_path):
    """Writes the list."""
    return lambda *lines: (tmp_path / "out.txt").write_text("".join(f"{one}\n" for one in lines))


def leave_out(*names):
    return [Correction("", name, "", "v", "leave_out", (name,)) for name in names]


def track(fps, frames, name="v/0"):
    frame_index = np.asarray(frames, np.int64)
    return Track(
        dataset="penn_action",
        split="train",
        name=name,
        video="v",
        fps=fps,
        frame_index=frame_index,
        kp_2d=np.tile(frame_index[:, None, None], (1, 49, 3)).astype(np.float32),
        extra={"height": np.float32(1.8), "contact": frame_index.astype(np.float32)},
    )


EXTRA = (
    cache.ExtraColumn(name="height", about="of the person", unit="m", per="track"),
    cache.ExtraColumn(name="contact", about="of a foot"),
)


RATES = "60 30 2, 59.94 30 2, 50 30 2, 29.97 30 1, 30.02 30 1, 31 30 2, 25 30 1, 120 25 5, 240 30 8, nan 30 1, 60 - 1"


@pytest.mark.parametrize("rates", RATES.split(", "))  # rows have whole frames; a phone's 30 is 30
def test_rows_are_at_most_so_many_a_second(rates):
    fps, limit, every = rates.split()
    max_fps = None if limit == "-" else float(limit)
    frames = range(7, 107)
    account = VideoAccount("v", found=100, kept=100, tracks_kept=1)
    (taken,) = select([track(float(fps), frames)], account, (), max_fps, EXTRA)
    expected = np.arange(7, 107, int(every))
    assert taken.frame_index.tolist() == expected.tolist()
    assert taken.kp_2d[:, 3, 1].tolist() == expected.tolist()
    assert taken.extra["contact"].tolist() == expected.tolist()
    assert taken.extra["height"] == np.float32(1.8)
    assert taken.rows.step == int(every)
    assert (account.kept, account.dropped["above_max_fps"]) == (len(expected), 100 - len(expected))
    account.check()


@given(st.sets(st.integers(0, 200), min_size=1).map(sorted), st.integers(1, 9))
def test_rows_are_apart_and_none_could_be_added(frames, apart):
    taken = np.array(frames)[_rows_apart(np.array(frames), np.full(len(frames), apart))]
    assert taken[0] == frames[0]
    assert (np.diff(taken) >= apart).all()
    # one pass over the frames, as a person would choose them
    for frame in set(frames) - set(taken.tolist()):
        before = taken[taken < frame]
        assert frame - before[-1] < apart


def frame_times(*parts, places=6):
    """Times (s) of frames at one rate after the other: pairs of a rate and a number of frames."""
    steps = np.concatenate([[0], *(np.full(n, 1 / rate) for rate, n in parts)])
    return np.cumsum(steps).round(places)


def clip_tracks(times, max_fps, left_out=(), filmed_fps=math.nan):
    """The tracks of a person in all frames of a clip with these times (s), and the account."""
    # a container without a rate of its own
    record = replace(RECORD, times=np.asarray(times), header_fps=math.nan, filmed_fps=filmed_fps)
    n = len(times)
    account = VideoAccount("v", found=n, kept=n, tracks_kept=1, clip=record.as_dict())
    whole = track(record.fps_of(np.arange(n)), range(n))
    tracks = select([whole], account, leave_out(*left_out), max_fps, EXTRA)
    account.check()
    assert account.tracks_kept == len(tracks)
    assert account.kept == sum(len(taken.frame_index) for taken in tracks)
    return record, tracks, account


def n_windows(taken, frames):
    """Windows of 16 rows of a track in a range of frames: all of its rows one step apart."""
    numbers = taken.frame_index[np.isin(taken.frame_index, frames)]
    is_gap = np.diff(numbers) != taken.rows.step
    edges = [0, *(np.flatnonzero(is_gap) + 1).tolist(), len(numbers)]
    runs = np.stack([edges[:-1], edges[1:]], axis=1)
    return len(windows_of(runs, seqlen=16, stride=16))


def test_rows_of_uneven_frames_are_apart_in_time_and_each_rate_has_its_track():
    _, (slow, fast), account = clip_tracks(frame_times((15, 150), (60, 150)), 30)
    assert (slow.name, fast.name) == ("v/0", "v/0-1")
    assert slow.frame_index.tolist() == [*range(150)]
    assert fast.frame_index.tolist() == [*range(150, 301, 2)]
    assert (slow.rows.step, fast.rows.step) == (1, 2)
    assert (slow.fps, fast.fps) == (pytest.approx(15, rel=0.01), pytest.approx(60, rel=0.01))
    assert fast.kp_2d[:, 3, 1].tolist() == [*range(150, 301, 2)]
    assert dict(account.dropped) == {"above_max_fps": 75}
    assert account.notes == ["cut where the frame rate changes: v/0, v/0-1"]
    assert account.people == {"v/0-1": [["0", 0, 300]]}


def test_rows_of_slow_motion_with_a_pause_are_apart_as_it_was_filmed():
    """Played at 30 frames a second, filmed at 240: rows of 30 a second are 8 frames apart."""
    times = np.arange(300) / 30
    times[150:] += 0.05
    record, (taken,), _ = clip_tracks(times, 30, filmed_fps=240)
    assert not record.is_even
    assert taken.rows.step == 8
    assert taken.fps == pytest.approx(240, rel=0.01)


@pytest.mark.parametrize("pause", [5, 1.7e9])  # s; a camera that sets its clock: from 1970 on
def test_a_pause_of_any_length_needs_no_memory(pause):
    times = np.arange(300) / 30
    times[150:] += pause
    _, tracks, _ = clip_tracks(times, 15)
    taken = [one.frame_index.tolist() for one in tracks]
    assert taken == [[*range(0, 150, 2)], [*range(150, 300, 2)]]


def test_a_part_of_a_cut_track_is_left_out_by_its_name():
    _, (slow,), account = clip_tracks(frame_times((15, 150), (60, 150)), 30, ["v/0-1"])
    assert slow.name == "v/0"
    assert dict(account.dropped) == {"above_max_fps": 75, "left_out_by_hand": 76}


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_track_is_cut_only_where_its_rate_changes_for_a_second(seconds):
    times = frame_times((15, 150), (60, round(60 * seconds)), (15, 150))
    _, tracks, _ = clip_tracks(times, 30)
    assert len(tracks) == (3 if seconds > 1 else 1)
    frames = np.concatenate([taken.frame_index for taken in tracks])
    assert np.diff(times[frames]).min() == pytest.approx(1 / 30, abs=1e-5)
    # where both steps are one frame, there is nothing to cut
    assert len(clip_tracks(times, 60)[1]) == 1


@pytest.mark.parametrize("places", [6, 3])  # as in MP4; as in MKV and WebM
@pytest.mark.parametrize("jitter", [0, 0.002])
def test_even_clips_at_or_below_max_fps_lose_no_row(jitter, places):
    random = np.random.default_rng(94)
    for rate in range(5, 61 if jitter else 241):
        for n in (2, 3, 16, 300):
            times = np.arange(n) / rate + random.uniform(-jitter, jitter, n)
            times = np.maximum.accumulate((times - times[0]).round(places))
            for max_fps in (rate, 1.2 * rate):
                record, (taken,), _ = clip_tracks(times, max_fps)
                assert record.is_even
                assert len(taken.frame_index) == n


def test_a_stated_rate_of_a_clip_without_times_counts():
    record = replace(RECORD, times=np.full(100, math.nan), header_fps=math.nan)
    account = VideoAccount("v", found=100, kept=100, tracks_kept=1, clip=record.as_dict())
    (taken,) = select([track(60, range(100))], account, (), 30, EXTRA)
    assert taken.frame_index.tolist() == [*range(0, 100, 2)]


RATE = st.integers(5, 240)


@given(st.lists(RATE, min_size=2, max_size=3), RATE, st.sampled_from([6, 3]))
def test_rows_of_uneven_frames_are_never_nearer_and_have_windows(rates, max_fps, places):
    n_frames = [math.ceil(240 * max(1, 2 * rate / max_fps)) for rate in rates]
    times = frame_times(*zip(rates, n_frames, strict=True), places=places)
    record, tracks, _ = clip_tracks(times, max_fps)
    if record.is_even:
        return
    frames = np.concatenate([taken.frame_index for taken in tracks])
    assert np.diff(times[frames]).min() >= 0.9 / max_fps - 1e-5
    for start, n in zip(np.cumsum([0, *n_frames]), n_frames, strict=False):
        within = np.arange(start, start + n)
        n_rows = np.isin(frames, within).sum()
        assert n_rows >= 160
        assert sum(n_windows(taken, within) for taken in tracks) >= 0.9 * n_rows / 16


def test_a_clip_of_two_rates_has_windows_of_both(tmp_path, types, into):
    times = (1000 * frame_times((15, 200), (60, 99))).round().astype(int)
    clip = Clip("both.mkv", n_frames=300, times=times.tolist(), paint=lambda number: 0)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/both.mkv").write_bytes(clip.encode())
    people = {t: standing("coco", 60, 60) for t in range(300)}
    write_alphapose(tmp_path / "clips/keypoints/both.mkv.json", people)
    convert = "convert videos/train --raw TMP/clips --cache CACHE --set convert.max_fps=30"
    types(convert, "50 above_max_fps")
    split = cache.open(tmp_path / "cache")["videos/train"]
    rates = {one.name: round(one.fps / one.step) for one in split.tracks}
    assert rates == {"both.mkv/0": 15, "both.mkv/0-1": 30}
    assert len(split.windows()) == 200 // 16 + 50 // 16


@pytest.mark.parametrize(
    ("names", "kept", "subjects"), [(["v/2"], [3, 4], [None, "Bob"]), (["v", "v/3"], [], [])]
)
def test_tracks_that_are_left_out_count_with_their_people(names, kept, subjects):
    account = VideoAccount("v", found=9, kept=9, tracks_kept=3, subjects=["Ann", None, "Bob"])
    tracks = [track(25, range(n), f"v/{n}") for n in (2, 3, 4)]
    taken = select(tracks, account, leave_out(*names), None, EXTRA)
    assert [t.name for t in taken] == [f"v/{n}" for n in kept]
    assert account.subjects == subjects
    assert (account.kept, account.tracks_kept, account.read) == (sum(kept), len(kept), 9)
    assert dict(account.tracks_dropped) == {"left_out_by_hand": 3 - len(kept)}
    assert dict(account.dropped) == {"left_out_by_hand": 9 - sum(kept)}
    assert account.corrections.keys() == {*names}
    account.check()
    assert VideoAccount.from_dict(account.as_dict()) == account


NAMES = VideoNames("videos", {"train": {"a.mp4", "take #2.mp4", "caf\u00e9.mp4"}, "val": {"b.mp4"}})


def marked_videos(file, split="train", names=NAMES):
    videos = [RawVideo(path, ()) for of_split, path in sorted(names.videos) if of_split == split]
    return RowSelection(corrections=file).mark(videos, split, names, datasets.get(names.dataset))


def marked(*args, **more):
    found = marked_videos(*args, **more)
    return [line.names[0] for video in found for line in video.corrections]


@pytest.mark.parametrize(
    ("line", "track"),
    [
        ("a.mp4/0", "a.mp4/0"),
        ("videos/train/a.mp4/0", "a.mp4/0"),
        ("  videos/train/a.mp4/0\t # why", "a.mp4/0"),
        ("videos/train/a.mp4/0\t# why", "a.mp4/0"),
        ("videos/train/a.mp4/0 # bad: take #2, and # 3/4", "a.mp4/0"),
        ("videos/train/take #2.mp4/0  # bad", "take #2.mp4/0"),
        ("take #2.mp4/0 # see #3", "take #2.mp4/0"),
        ("cafe\u0301.mp4/0", "caf\u00e9.mp4/0"),
        ("a.mp4", "a.mp4"),
        ("videos/train/a.mp4  # a crowd", "a.mp4"),
        ("take #2.mp4 # see a.mp4/0", "take #2.mp4"),
    ],
)
def test_a_line_of_the_list(tmp_path, listed, line, track):
    listed("# a heading # with two", "", "3dpw/train/x/0  # of another dataset", "b.mp4/1", line)
    assert marked(tmp_path / "out.txt") == [track]
    assert marked(tmp_path / "out.txt", "val") == ["b.mp4/1"]


def test_a_name_that_is_one_clip_s_path_and_another_s_full_name_is_refused(tmp_path, listed):
    names = VideoNames("videos", {"train": {"a.mp4", "videos/train/a.mp4"}})
    for line, track in ("a.mp4/0", "a.mp4/0"), ("videos/train/videos/train/a.mp4/0", None):
        listed(line)
        assert marked(tmp_path / "out.txt", names=names) == [track or "videos/train/a.mp4/0"]
    listed("videos/train/a.mp4/0")
    with config_refuses("the full name of another one"):
        marked(tmp_path / "out.txt", names=names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("penn_action/trian/0003/0", "line 1"),
        ("# one\n0033/0", "line 2.*did you mean '0003'"),
        ("penn_acton/train/0003/0", "line 1"),
        ("penn_action/train/0033", "line 1.*did you mean 'penn_action/train/0003'"),
        (b"\xff\xfe\x00", "UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(tmp_path, content, words):
    file = tmp_path / "out.txt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    with config_refuses(rf"(?i)out\.txt.*{words}"):
        marked(file, names=VideoNames("penn_action", {"train": {"0003"}}))


CONVERT = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
LEAVE_OUT = f"{CONVERT} --set convert.leave_out=TMP/out.txt"


@pytest.mark.parametrize(
    "lines", [["0003/0  # bad: two people"], ["0003  # a crowd", "0003/0  # and this one"]]
)
def test_a_track_or_a_whole_clip_is_left_out_and_comes_back(lines, penn, listed, types, reads):
    penn.convert()
    whole = penn.rows("kp_2d")
    listed(*(f"{penn.name}/{line}" for line in lines))
    for read, said in (["0003"], "left_out_by_hand"), ([], "up to date"):
        reads.clear()
        types(LEAVE_OUT, said)
        assert reads.names == read  # others are not read again
        assert penn.rows("kp_2d").keys() == whole.keys() - {"0003/0"}
    types("status --all --cache CACHE", "left_out_by_hand")
    listed(f"{penn.name}/0003")
    types(LEAVE_OUT, "1 video read")
    assert penn.rows("kp_2d").keys() == whole.keys() - {"0003/0"}
    reads.clear()
    assert "left_out_by_hand" not in types(f"{CONVERT} --set convert.leave_out=none")
    assert_equal(penn.rows("kp_2d"), whole)
    assert reads.names == ["0003"]


def test_a_track_of_one_clip_is_meant_before_another_clip(tmp_path, listed):
    """Of Kinetics, which has folders of clips beside clips."""
    names = VideoNames("kinetics", {"train": {"train/dance", "train/dance/0"}})
    listed("train/dance/0")
    assert marked(tmp_path / "out.txt", names=names) == ["train/dance/0"]
    found = marked_videos(tmp_path / "out.txt", names=names)
    (video,) = (each for each in found if each.corrections)
    assert video.name == "train/dance"


def test_what_parts_have_read_with_another_list_is_read_again(penn, listed, types):
    def kept():
        return {name[:4] for name in penn.rows("kp_2d")}

    listed(f"{penn.name}/0003/0")
    types(f"{LEAVE_OUT} --part 1/1")
    listed(f"{penn.name}/0005/0")
    types(LEAVE_OUT)
    listed(f"{penn.name}/0003/0", f"{penn.name}/0001/0")
    types(LEAVE_OUT, "(why: 3 videos with other corrections (2 corrections: 2 left out))")
    listed(f"{penn.name}/0005/0")
    types(LEAVE_OUT)
    assert kept() == {"0001", "0003"}
    types(f"{CONVERT} --set convert.leave_out=none")
    assert kept() == {"0001", "0003", "0005"}


def test_clips_of_several_rates_get_one(tmp_path, types, into):
    root = tmp_path / "cache"
    for name, fps, n_frames in (("fast.mp4", 60.0, 120), ("slow.mp4", 25.0, 50)):
        write_video(tmp_path / "clips" / name, n_frames, fps, step=0)
        people = {t: standing("coco", 30 + t // 4, 60) for t in range(n_frames)}
        write_alphapose(tmp_path / f"clips/keypoints/{name}.json", people)
    convert = "convert videos/train --raw TMP/clips --cache CACHE"
    types(convert, "[convert] max_fps = 25")
    whole = into.rows(root, "videos/train", "kp_2d")
    assert "rows a second" not in types(f"{convert} --set convert.max_fps=30", "60 above_max_fps")
    steps = {track.name: track.step for track in cache.open(root)["videos/train"].tracks}
    assert steps == {"fast.mp4/0": 2, "slow.mp4/0": 1}
    every = {name: rows[:: steps[name]] for name, rows in whole.items()}
    assert_equal(into.rows(root, "videos/train", "kp_2d"), every)
    types(convert, "max_fps was 30")  # without the setting, all rows are back
    assert_equal(into.rows(root, "videos/train", "kp_2d"), whole)


def test_a_recorded_selection_is_that_of_a_retry(penn, listed, tmp_path):
    listed(f"{penn.name}/0003/0")
    convert(penn.plan(selection=RowSelection(10.0, tmp_path / "out.txt")))
    plan = planned_again(penn.split)
    assert plan.recipe.selection.max_fps == 10.0
    assert plan.up_to_date
