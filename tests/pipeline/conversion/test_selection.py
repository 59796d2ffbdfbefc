"""Tracks that are left out by hand, and rows that are at most so many a second."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache
from pipeline.accounting import VideoAccount
from pipeline.conversion.convert import convert
from pipeline.conversion.plan import plan_conversion, recorded_plan
from pipeline.conversion.selection import (
    RowSelection,
    read_list,
    remove_comment,
    rows_apart,
    select,
)
from pipeline.datasets import get
from pipeline.errors import ConfigError
from pipeline.track import Track
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video


@pytest.fixture
def listed(tmp_path):
    """Writes the list, and returns its options for commands."""
    file = tmp_path / "out.txt"

    def write(*lines):
        file.write_text("".join(f"{line}\n" for line in lines))
        return "--set", f"convert.leave_out={file}"

    return write


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


@pytest.mark.parametrize(
    ("fps", "max_fps", "every"),
    [
        (60, 30, 2),
        (59.94, 30, 2),
        (50, 30, 2),  # not 1.67: rows have whole frames
        (29.97, 30, 1),
        (30.02, 30, 1),  # a phone's 30
        (31, 30, 2),
        (25, 30, 1),
        (120, 25, 5),
        (240, 30, 8),
        (float("nan"), 30, 1),
        (60, None, 1),
    ],
)
def test_rows_are_at_most_so_many_a_second(fps, max_fps, every):
    frames = range(7, 107)
    account = VideoAccount("v", found=100, kept=100, tracks_kept=1)
    (taken,) = select([track(fps, frames)], account, (), max_fps, EXTRA)
    expected = np.arange(7, 107, every)
    assert taken.frame_index.tolist() == expected.tolist()
    assert taken.kp_2d[:, 3, 1].tolist() == expected.tolist()
    assert taken.extra["contact"].tolist() == expected.tolist()
    assert taken.extra["height"] == np.float32(1.8)
    assert taken.rows.step == every
    assert (account.kept, account.dropped["above_max_fps"]) == (len(expected), 100 - len(expected))
    account.check()


@given(st.sets(st.integers(0, 200), min_size=1).map(sorted), st.integers(1, 9))
def test_rows_are_apart_and_none_could_be_added(frames, apart):
    taken = np.array(frames)[rows_apart(np.array(frames), apart)]
    assert taken[0] == frames[0]
    assert (np.diff(taken) >= apart).all()
    # one pass over the frames, as a person would choose them
    for frame in set(frames) - set(taken.tolist()):
        before = taken[taken < frame]
        assert frame - before[-1] < apart


def test_tracks_that_are_left_out_count_with_their_people():
    account = VideoAccount("v", found=9, kept=9, tracks_kept=3, subjects=["Ann", None, "Bob"])
    tracks = [track(25, range(n), f"v/{n}") for n in (2, 3, 4)]
    taken = select(tracks, account, ("v/2", "v/7"), None, EXTRA)
    assert [t.name for t in taken] == ["v/3", "v/4"]
    assert account.subjects == [None, "Bob"]
    assert (account.kept, account.tracks_kept, account.read) == (7, 2, 9)
    assert dict(account.tracks_dropped) == {"left_out_by_hand": 1}
    assert dict(account.dropped) == {"left_out_by_hand": 2}
    assert any("'v/7'" in note and "v/2, v/3, v/4" in note for note in account.notes)
    account.check()
    assert VideoAccount.from_dict(account.as_dict()) == account


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("penn_action/train/0001/0", "penn_action/train/0001/0"),
        ("  penn_action/train/0001/0\t # why", "penn_action/train/0001/0"),
        ("videos/train/take #2.mp4/0  # bad", "videos/train/take #2.mp4/0"),
        ("# a heading # with two", ""),
        ("", ""),
    ],
)
def test_a_line_of_the_list(line, name):
    assert remove_comment(line) == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("penn_action/trian/0003/0", "line 1"),
        ("# one\n0003/0", "line 2"),
        ("penn_acton/train/0003/0", "line 1"),
        ("penn_action/train/0003", "line 1"),
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
    with pytest.raises(ConfigError, match=rf"(?i)out\.txt.*{words}"):
        read_list(file, get("penn_action"), "train")


def test_a_track_of_no_video_is_named_with_the_nearest(penn, listed, ran):
    shown = ran("convert", penn.name, "--raw", penn.raw, "--cache", penn.root,
                *listed(f"{penn.name}/0033/0"), code=2)  # fmt: skip
    assert "out.txt, line 1" in shown.err
    assert "did you mean '0003'?" in shown.err
    assert not penn.root.exists() or not cache.FeatureCache(penn.root).is_committed(penn.name)


def test_a_track_is_left_out_and_comes_back(penn, listed, ran, reads):
    command = ("convert", penn.name, "--raw", penn.raw, "--cache", penn.root)
    penn.convert()
    whole = penn.rows("kp_2d")
    gone = next(name for name in whole if name.startswith("0003/"))
    reads.clear()
    options = listed(f"{penn.name}/{gone}  # bad: two people")
    assert "left_out_by_hand" in ran(*command, *options).out
    assert set(reads.names) == {"0003"}  # others are not read again
    assert penn.rows("kp_2d").keys() == whole.keys() - {gone}
    reads.clear()
    assert "up to date" in ran(*command, *options).out
    assert reads.names == []
    status = ran("status", "--all", "--cache", penn.root).out
    assert "left_out_by_hand" in status
    listed("# nobody")
    assert ran(*command, *options).out.count("left_out_by_hand") == 0
    again = penn.rows("kp_2d")
    assert {name: rows.tobytes() for name, rows in again.items()} == {
        name: rows.tobytes() for name, rows in whole.items()
    }
    assert set(reads.names) == {"0003"}


def test_what_parts_have_read_with_another_list_is_read_again(penn, listed, ran):
    command = ("convert", penn.name, "--raw", penn.raw, "--cache", penn.root)
    options = listed(f"{penn.name}/0003/0")
    ran(*command, *options, "--part", "1/1")
    ran(*command, *listed(f"{penn.name}/0005/0"))
    both = listed(f"{penn.name}/0003/0", f"{penn.name}/0001/0")
    shown = ran(*command, *both).out
    assert "(why: 3 videos with other tracks left out)" in shown
    ran(*command, *listed(f"{penn.name}/0005/0"))
    without_0005 = penn.rows("kp_2d").keys()
    ran(*command)
    assert without_0005 == penn.rows("kp_2d").keys() - {"0005/0"}
    assert {"0003/0", "0005/0"} <= penn.rows("kp_2d").keys()


def test_clips_of_several_rates_get_one(tmp_path, ran, into):
    raw, root = tmp_path / "clips", tmp_path / "cache"
    for name, fps, n_frames in (("fast.mp4", 60.0, 120), ("slow.mp4", 25.0, 50)):
        write_video(raw / name, n_frames, fps, step=0)
        people = {t: standing("coco", 30 + t // 4, 60) for t in range(n_frames)}
        write_alphapose(raw / f"keypoints/{name}.json", people)
    command = ("convert", "videos/train", "--raw", raw, "--cache", root)
    assert "[convert] max_fps = 25" in ran(*command).out
    whole = into.rows(root, "videos/train", "kp_2d")
    shown = ran(*command, "--set", "convert.max_fps=30").out
    assert "60 above_max_fps" in shown
    assert "rows a second" not in shown
    split = cache.open(root)["videos/train"]
    assert dict(zip(split.tracks.names, split.tracks.step.tolist(), strict=True)) == {
        "fast.mp4/0": 2,
        "slow.mp4/0": 1,
    }
    rows = into.rows(root, "videos/train", "kp_2d")
    assert rows["fast.mp4/0"].tobytes() == whole["fast.mp4/0"][::2].tobytes()
    assert rows["slow.mp4/0"].tobytes() == whole["slow.mp4/0"].tobytes()
    # without the setting, all rows are back
    assert "max_fps was 30" in ran(*command).out
    again = into.rows(root, "videos/train", "kp_2d")
    assert {name: values.tobytes() for name, values in again.items()} == {
        name: values.tobytes() for name, values in whole.items()
    }


def test_a_recorded_selection_is_that_of_a_retry(penn, listed):
    dataset = get("penn_action")
    file = listed(f"{penn.name}/0003/0")[1].partition("=")[2]
    selection = RowSelection(10.0, type(penn.root)(file))
    convert(plan_conversion(dataset, "train", raw=penn.raw, root=penn.root, selection=selection))
    plan = recorded_plan(penn.split, retry=True)
    assert plan.selection.max_fps == 10.0
    assert plan.up_to_date
