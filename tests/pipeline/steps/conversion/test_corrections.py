"""Corrections by hand: lines that cut, join and leave out people, exchange their sides and state
identities; undone, refused, and again.
"""

import html
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_equal

import cache
from pipeline import table
from pipeline.features import streams
from pipeline.features.streams.base import LabelStream
from pipeline.people.skeletons import joint_names, opposite_joints
from tests.pipeline.datasets import made_insta_variety
from tests.pipeline.datasets.by_hand import standing, write_json, write_video
from tests.pipeline.datasets.made_kinetics import CLIP, SIZE, result
from tests.pipeline.datasets.made_kinetics import N as SHORT

N = 120
CONVERT = "convert videos/train --raw TMP/clips --cache CACHE --set videos.min_frames=10"
CORRECT = f"{CONVERT} --set convert.corrections=TMP/c.txt"
EXTRACT = "extract videos/train --cache CACHE --weights untrained:0"
OPPOSITE = opposite_joints("spin49")
WRISTS = [joint_names("spin49").index(name) for name in ("rwrist", "lwrist")]


def walk(x, frames=range(N)):
    """Somebody who walks a quarter of a px a frame: joints by frame."""
    return {t: standing("coco", x + t / 4, 60) for t in frames}


def take(person, frames):
    return {t: person[t] for t in frames}


LEFT, RIGHT = walk(20), walk(90)
TWO = {1: LEFT, 2: RIGHT}
# from frame 38 on, each is the other one
SWAPPED = {
    1: take(LEFT, range(38)) | take(RIGHT, range(38, N)),
    2: take(RIGHT, range(38)) | take(LEFT, range(38, N)),
}


@pytest.fixture
def clip(tmp_path):
    """Writes a clip, and AlphaPose's people: joints by frame of each identity."""

    def write(people, name="a.mp4", n=N):
        write_video(tmp_path / "clips" / name, n, step=0)
        results = []
        for identity, joints in people.items():
            for t, points in joints.items():
                one = {"image_id": f"{t}.jpg", "keypoints": points.ravel().tolist(), "score": 2.5}
                results.append(one if identity is None else one | {"idx": identity})
        write_json(tmp_path / f"clips/keypoints/{name}.json", results)

    return write


@pytest.fixture
def lines(tmp_path):
    return lambda *lines: (tmp_path / "c.txt").write_text("".join(f"{one}\n" for one in lines))


@pytest.fixture
def tracks(tmp_path):
    """The columns of each track."""

    def read(root="cache", split="videos/train"):
        split = cache.open(tmp_path / root)[split]
        return {
            track.name: {name: split.rows(name, track.start, track.stop) for name in split.columns}
            for track in split.tracks
        }

    return read


def frames(tracks):
    """First and last frame of each track."""
    return {
        name: (columns["frame_index"][0], columns["frame_index"][-1])
        for name, columns in tracks.items()
    }


def test_two_people_who_are_exchanged_become_the_true_tracks_in_every_row(
    clip, lines, tracks, types
):
    clip(TWO)
    types(CONVERT.replace("CACHE", "TMP/true"))
    clip(SWAPPED)
    types(CONVERT)
    lines(
        "join a.mp4/1 a.mp4/2-1",
        "cut a.mp4/2 38",
        "join videos/train/a.mp4/2 videos/train/a.mp4/1-1  # the other one",
        "cut a.mp4/1 38",
    )
    types(CORRECT, "1 video with other corrections (4 corrections: 2 joined, 2 cut)")
    assert_equal(tracks(), tracks("true"))
    types(CORRECT, "up to date")


ALL = (0, N - 1)
# lines -> first and last frame of each track
DONE = {
    "a.mp4/1": {"a.mp4/2": ALL},
    "leave_out a.mp4/1 @60:35,60,55  # a comment": {"a.mp4/2": ALL},
    "leave_out a.mp4/1 0-9": {"a.mp4/1": (10, N - 1), "a.mp4/2": ALL},
    "a.mp4": {},
    "cut a.mp4/1 38": {"a.mp4/1": (0, 37), "a.mp4/2": ALL, "a.mp4/1-1": (38, N - 1)},
    # a part that is too short is no track; and cuts are by frames
    "cut a.mp4/2 70\ncut a.mp4/2 65": {
        "a.mp4/1": ALL,
        "a.mp4/2": (0, 64),
        "a.mp4/2-2": (70, N - 1),
    },
    # a place tells the part of a person; joins may be of joined people
    "cut a.mp4/1 80\ncut a.mp4/1 40\njoin a.mp4/1-2 a.mp4/1-1\njoin a.mp4/1 a.mp4/1 @20:25,60,44 @90:43,60,44": {
        "a.mp4/1": ALL,
        "a.mp4/2": ALL,
    },
    "exchange_sides a.mp4/1 30-50": {"a.mp4/1": ALL, "a.mp4/2": ALL},
    "identities a.mp4 link": {"a.mp4/0": ALL, "a.mp4/1": ALL},
}


@pytest.fixture
def digests(tmp_path):
    """Of the split and its stream."""

    def read():
        split = cache.open(tmp_path / "cache")["videos/train"]
        return [cache.content_digest(split, stream) for stream in (None, *split.streams)]

    return read


def test_a_correction_is_done_and_undone_to_the_bit(clip, lines, tracks, types, network, digests):
    clip(TWO)
    clip({3: LEFT}, "b.mp4")
    types(CONVERT)
    types(EXTRACT)
    before = digests()
    for text, expected in DONE.items():
        whole = tracks()
        network.batches.clear()
        lines(*text.splitlines())
        assert "rows of unchanged files" not in types(CORRECT)
        assert frames(tracks()) == expected | {"b.mp4/3": ALL}, text
        types(EXTRACT)
        # at a cut, boxes are smoothed again: rows have other pixels
        assert bool(network.batches) == ("cut" in text and "join" not in text), text
        network.batches.clear()
        types(CORRECT, "up to date")
        if text.startswith("exchange"):
            kp_2d = whole["a.mp4/1"]["kp_2d"]
            kp_2d[30:51] = kp_2d[30:51, OPPOSITE]
            assert_equal(tracks(), whole)
        types(f"{CONVERT} --set convert.corrections=none", "1 video with other corrections (0 corr")
        types(EXTRACT)
        assert digests() == before, text
        assert network.batches == [], text


FORMS = "expected a name alone, leave_out NAME [FRAMES], join PERSON PERSON, cut PERSON FRAME"
UNREADABLE = """
copy a.mp4/1
cut
cut a.mp4/1
cut a.mp4/1 ten
cut a.mp4/1 1.5
cut a.mp4/1 -1
cut a.mp4/1 10-20
cut a.mp4/1 10 20
cut a.mp4/1 99999999999999999999
join a.mp4/1
join a.mp4/1 a.mp4/2 a.mp4/3
join a.mp4/1 a.mp4/2 @10:1,2,3
exchange_sides a.mp4/1
identities a.mp4
identities a.mp4 linked
leave_out a.mp4/1 @10:1,2
cut with blank.mp4/1 10
cut "with blank.mp4/1 10
cut "with blank.mp4/1"10
Cut a.mp4/1 10
join a.mp4/1 with blank.mp4/1
"""
# lines -> exit code and message; the last line is wrong
WRONG = dict.fromkeys(UNREADABLE.strip().splitlines(), (2, FORMS)) | {
    "cut b.mp4/1 10": (2, "did you mean 'a.mp4'?"),
    'cut "with \\q.mp4/1" 10': (2, FORMS),
    "\ufeff# of Windows\r\ncut a.mp4/1 ten\r": (2, FORMS),
    "identities a.mp4 file\nidentities a.mp4 link": (2, "contradiction to TMP/c.txt, line 1, 'id"),
    "join a.mp4/1 a.mp4/2\njoin a.mp4/3 a.mp4/2": (2, "contradiction to TMP/c.txt, line 1, 'jo"),
    "cut a.mp4/7 10": (1, "expected one of the people 1, 2, found 7"),
    "cut a.mp4 10": (1, "expected one of the people 1, 2, found a.mp4"),
    'join a.mp4/1 "with blank.mp4/1"': (1, "people 1, 2, found with blank.mp4/1"),
    "cut a.mp4/1 0": (1, "in 0 to 119, which is cut after the first, found cut a.mp4/1 0"),
    "cut a.mp4/1 120": (1, "in 0 to 119, which"),
    "exchange_sides a.mp4/1 120-130": (1, "in 0 to 119, which"),
    "exchange_sides a.mp4/1 50-40": (1, "in 0 to 119, which"),
    "join a.mp4/1 a.mp4/2": (1, "at most 0.2 s in common, found 120 frames of both"),
    "join a.mp4/1 a.mp4/1": (1, "at most 0.2 s in common"),
    "leave_out a.mp4/1 120-130": (1, "which has a.mp4/1, a.mp4/2"),
    "leave_out a.mp4/1-1": (1, "which has a.mp4/1, a.mp4/2"),
    "identities a.mp4/1 link": (1, "which has a.mp4/1, a.mp4/2"),
    "leave_out a.mp4/1 @10:99,60,40": (1, "[10, 99, 60, 40], found [[10.0, 22.6"),
    "exchange_sides a.mp4/1 10 @10:99,60,40": (1, "[10, 99, 60, 40], found [[10, 22.5, 60"),
    "exchange_sides a.mp4/1 10 @200:22,60,40": (1, "[200, 22, 60, 40], found nobody"),
}


def test_a_wrong_line_is_named_and_changes_nothing(clip, tracks, types, tmp_path):
    clip(TWO)
    clip({1: LEFT}, "with blank.mp4")
    types(CONVERT)
    before = tracks()
    for text, (code, message) in WRONG.items():
        (tmp_path / "c.txt").write_bytes(text.encode())
        where = f"c.txt, line {text.count(chr(10)) + 1}: "
        types(CORRECT, where, message.replace("TMP", str(tmp_path)), code=code)
        assert_equal(tracks(), before, text)


def test_lines_of_windows_with_quotes_and_comments_are_right(clip, types, tracks, tmp_path):
    clip(TWO)
    clip({1: LEFT}, "b #1 .mp4")
    text = '\ufeff# of Windows\r\n\r\nleave_out "videos/train/b #1 .mp4/1"\t 9-  # why\r\n'
    (tmp_path / "c.txt").write_bytes(text.replace("9-", "9-99").encode())
    types(CORRECT)
    assert sorted(tracks()["b #1 .mp4/1"]["frame_index"]) == [*range(9), *range(100, N)]


HOLD = "join, cut, exchange_sides and identities hold for clips of videos, kinetics and insta_variety alone, found"


def test_people_of_datasets_without_a_detector_are_not_corrected(penn, lines, types):
    convert = "convert penn_action/train --raw RAW/penn_action --cache CACHE"
    correct = f"{convert} --set convert.corrections=TMP/c.txt"
    for wrong in ("join 0003/0 0003/1", "cut 0003/0 3", "identities 0003 link"):
        lines("# people", wrong)
        types(correct, f"c.txt, line 2: {HOLD}", code=2)
    lines("leave_out 0003/0 2-3")
    types(correct, "2 left_out_by_hand")


def test_people_of_records_are_not_corrected(lines, types, tmp_path):
    made_insta_variety.write(tmp_path / "raw", made_insta_variety.clip())
    correct = (
        "convert insta_variety/train --raw RAW --cache CACHE --set convert.corrections=TMP/c.txt"
    )
    for wrong in ("identities ONE link", "cut ONE 2", "exchange_sides ONE 0-1"):
        lines(wrong.replace("ONE", "train/clips_00/00000"))
        types(correct, f"c.txt, line 1: {HOLD}", code=2)
    lines("leave_out train/clips_00/00000 1")
    types(correct, "1 left_out_by_hand")


def test_people_of_kinetics_are_cut_and_joined(lines, tracks, types, tmp_path):
    """Two people who are exchanged from frame 30 on."""
    write_video(tmp_path / f"raw/train/abseiling/{CLIP}.mp4", SHORT, size=SIZE)
    results = []
    for t in range(SHORT):
        swapped = t >= 30
        results += [result(t, 100, idx=1 + swapped), result(t, 400, idx=2 - swapped)]
    write_json(tmp_path / f"raw/keypoints/train/{CLIP}/{CLIP}.json", results)
    name = f"train/abseiling/{CLIP}"
    convert = "convert kinetics/train --raw RAW --cache CACHE --set convert.corrections"
    lines(
        f"cut {name}/1 30",
        f"cut {name}/2 30",
        f"join {name}/1 {name}/2-1",
        f"join {name}/2 {name}/1-1",
    )
    types(f"{convert}=TMP/c.txt")
    found = tracks(split="kinetics/train")
    assert found.keys() == {f"{name}/1", f"{name}/2"}
    for columns in found.values():
        assert columns["frame_index"].tolist() == [*range(SHORT)]
        assert np.ptp(columns["bbox"][:, 0]) < 1
    types(f"{convert}=none")
    assert (
        max(np.ptp(columns["bbox"][:, 0]) for columns in tracks(split="kinetics/train").values())
        > 200
    )


@pytest.mark.parametrize("text", ["join a.mp4/1 a.mp4/2", "exchange_sides a.mp4/3 80"])
def test_people_who_were_detected_again_are_not_corrected_as_others_were(
    clip, lines, tracks, types, text
):
    """The people of the lines are others now, or missing."""
    early = {1: take(LEFT, range(60)), 2: take(LEFT, range(60, N)), 3: RIGHT}
    clip(early)
    lines(text)
    types(CORRECT)
    before = tracks()
    for other in ({1: RIGHT, 2: LEFT, 3: LEFT}, {1: LEFT}, {1: RIGHT, 3: take(RIGHT, range(30))}):
        clip(other)
        for _ in range(2):
            types(CORRECT, "no_such_track", "c.txt, line 1", code=1)
            assert_equal(tracks(), before)
    clip(early | {4: walk(50)})
    types(CORRECT)
    assert tracks().keys() == before.keys() | {"a.mp4/4"}


def test_two_people_in_one_frame_are_joined_for_0_2_s(clip, lines, tracks, types):
    """25 frames a second; of two in a frame, the one with more joints is taken."""
    left = walk(20)
    for t in (56, 57):
        left[t][:9, 2] = 0
    lines("join a.mp4/1 a.mp4/2")
    for first, code in ((61, 1), (60, 0)):
        clip({1: take(left, range(first)), 2: walk(21, range(55, N))})
        types(f"{CONVERT} --set convert.corrections=none --drop-removed")
        types(CORRECT, code=code)
    types("status --cache CACHE", "5 duplicate_person")
    kp_2d = tracks()["a.mp4/1"]["kp_2d"]
    assert frames(tracks()) == {"a.mp4/1": ALL}
    ankle = kp_2d[0, :, 2].argmax()
    x = kp_2d[:, ankle, 0] - np.arange(N) / 4
    assert_equal(np.flatnonzero(np.diff(x.round(2))), [55, 57, 59])


def page_of(tmp_path, types, name="a.mp4"):
    """The lines of a player: each track's that leaves it out, and whose its stretches were."""
    types(f"show videos/train --cache CACHE --video {name} --out TMP/page.html")
    page = html.unescape((tmp_path / "page.html").read_text())
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', page)
    return page, {track["name"]: track["stretches"] for track in json.loads(data)["tracks"]}


def x_of(stretch):
    return int(re.search(":([0-9]+)", stretch["place"])[1])


def test_lines_of_the_player_correct_corrected_tracks_again(clip, lines, tracks, types, tmp_path):
    """Two are exchanged from 38 on, and again from 80 on, which is seen in a second round."""
    clip(TWO)
    types(CONVERT.replace("CACHE", "TMP/true"))
    again = {
        1: SWAPPED[1] | take(LEFT, range(80, N)),
        2: SWAPPED[2] | take(RIGHT, range(80, N)),
    }
    clip(again)
    types(CONVERT)
    written = []
    for frame in (38, 80):
        page, people = page_of(tmp_path, types)
        for stretches in people.values():
            at = [one for one in stretches if one["first"] <= frame][-1]
            written.append(f"cut {at['name']} {frame} {at['place']}")
        lines(*written)
        types(CORRECT)
        page, people = page_of(tmp_path, types)
        first_ones = sorted([one for one, *_ in people.values()], key=x_of)
        left, right = [one for one in first_ones if not one["first"]]
        of_left, of_right = [one for one in first_ones if one["first"]]
        for one, part in ((left, of_left), (right, of_right)):
            written.append(f"join {one['name']} {part['name']} {one['place']} {part['place']}")
        lines(*written)
        types(CORRECT)
    types(CORRECT)
    page, people = page_of(tmp_path, types)
    assert [len(stretches) for stretches in people.values()] == [3, 3]
    assert "<summary>Corrected by hand: 8</summary>" in page
    assert_equal(tracks(), tracks("true"))


def test_a_man_who_is_away_for_two_seconds_is_one_by_a_line_of_the_player(
    clip, lines, tracks, types, tmp_path
):
    """Of 1,200 frames, which are tracks of up to 500; a stretch that is too short counts, too."""
    n = 1200
    man = {t: standing("coco", 20 + t / 16, 60) for t in range(n)}
    gone = {*range(500, 550), *range(556, 600)}
    clip({None: take(man, [t for t in range(n) if t not in gone])}, n=n)
    types(CONVERT)
    two = {"a.mp4/2": (600, 899), "a.mp4/2.1": (900, n - 1)}
    assert frames(tracks()) == {"a.mp4/0": (0, 499)} | two
    page, people = page_of(tmp_path, types)
    assert "too few frames for a track: 1 in 550 to 555" in page
    (first,), (last,) = people["0"], people["2.1"]
    assert last["name"] == "videos/train/a.mp4/2"
    join = f"join {first['name']} {last['name']} {first['place']} {last['place']}"
    lines(join, "join a.mp4/0 a.mp4/1")
    types(CORRECT)
    joined = np.concatenate([columns["frame_index"] for columns in tracks().values()])
    assert joined.tolist() == sorted({*range(n)} - gone)
    assert tracks().keys() == {"a.mp4/0", "a.mp4/0.1", "a.mp4/0.2"}


@dataclass(frozen=True, kw_only=True)
class Wrists(LabelStream):
    """x of the right and the left wrist."""

    kind = "wrists"
    dim = 2
    columns = ("kp_2d",)

    def __call__(self, labels):
        return labels["kp_2d"][:, WRISTS, 0], np.ones(len(labels["kp_2d"]), bool)


def test_streams_that_read_joints_follow_exchanged_sides_and_those_of_pixels_are_kept(
    clip, lines, tracks, types, network, monkeypatch, tmp_path
):
    monkeypatch.setitem(table.OWN[streams.ENTRY_POINTS], Wrists.kind, f"{__name__}:Wrists")
    both = [EXTRACT, "extract videos/train --cache CACHE --stream wrists"]
    clip(TWO)
    types(CONVERT)
    for command in both:
        types(command)
    network.batches.clear()
    lines("exchange_sides a.mp4/1 30-50")
    types(CORRECT)
    types(both[0], "0 rows computed")
    types(both[1], "21 rows computed")
    assert network.batches == []
    split = cache.open(tmp_path / "cache")["videos/train"]
    for track in split.tracks:
        features = split.rows("features/wrists", track.start, track.stop)
        kp_2d = split.rows("kp_2d", track.start, track.stop)
        assert_allclose(features, kp_2d[:, WRISTS, 0], rtol=1e-3)


KILLED = """
import os, signal, sys
from pipeline.__main__ import main
left = int(sys.argv[1])
def fsync(fd):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
main(sys.argv[2:])
"""


@pytest.mark.processes
@pytest.mark.parametrize("kill_at", [1, 9, 20])
def test_a_correction_that_was_killed_is_continued(clip, lines, tracks, types, tmp_path, kill_at):
    clip(TWO)
    types(CONVERT)
    before = tracks()
    lines("cut a.mp4/1 60", "leave_out a.mp4/1 0-9")
    command = CORRECT.replace("CACHE", "TMP/cache").replace("TMP", str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(kill_at), *command.split()])
    assert killed.returncode == -signal.SIGKILL
    assert_equal(tracks(), before)
    types(CORRECT)
    assert frames(tracks()) == {"a.mp4/1": (10, 59), "a.mp4/2": ALL, "a.mp4/1-1": (60, N - 1)}


def test_leave_out_is_another_name_of_the_key_and_both_are_refused(
    clip, lines, types, types_json, luigi_cfg
):
    clip(TWO)
    lines("a.mp4/1", "cut a.mp4/2 60")
    both = "[convert]\nleave_out = c.txt\ncorrections = c.txt"
    file = luigi_cfg("videos", both)
    types(CONVERT, f"{file}, line", "leave_out: is another name of corrections", code=2)
    luigi_cfg("videos", both.partition("\ncorr")[0])
    types(CONVERT, "left_out_by_hand")
    (status,) = types_json("status --cache CACHE")
    assert status["corrections"] == {"leave_out": 1, "cut": 1}
    types(f"{CONVERT} --set convert.corrections=none", "(0 corrections: none)")
