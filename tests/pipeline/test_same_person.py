"""Two tracks of one person are doubtful, and name each other; tracks of two people are not."""

import csv
import io
import math

import numpy as np
import pytest

import cache
from cache.format import layout
from pipeline import datasets
from pipeline.grades import grade, grades_of
from pipeline.people.skeletons import convert
from pipeline.steps.conversion.identity import reader_parts
from tests.pipeline.datasets.by_hand import coco, standing, write_json, write_video

FPS = 30


def track(frames, x=300.0, scale=5.0):
    """Columns of somebody who stands at x, 40 * scale px high, in a box of 1.25 of the height."""
    joints = np.array([standing("coco", x, 300, scale=scale) for _ in frames])
    box = (x, 300, 50 * scale, 50 * scale)
    kp_2d = convert(joints, source="coco", target="spin49").astype(np.float32)
    frames = np.array(frames)
    return {"frame_index": frames, "bbox": np.tile(box, (len(frames), 1)), "kp_2d": kp_2d}


def grades(*people, fps=FPS, **account):
    tracks = [
        cache.TrackRows(name=f"a/{number}", video="a", step=1, fps=fps, crop_scale=1)
        for number in range(len(people))
    ]
    return grades_of(tracks, people, account)


LATE = range(160, 220)  # after 100 frames, and less than a second without anybody
SEEN_TWICE = [  # the tracks of one person
    (track(range(131)), track(LATE)),
    (track(LATE), track(range(131))),
    (track(LATE, x=450), track(range(131))),  # 0.75 of the height away
    (track(LATE, scale=5.4), track(range(131))),
    (track(range(0, 100, 2)), track(range(1, 101, 2))),  # they take turns
    (track([*range(100), *range(120, 200)]), track(range(100, 120))),  # in a gap
    (track(range(101)), track(range(99, 200))),  # 2 frames together, of a hundred
]


@pytest.mark.parametrize("people", SEEN_TWICE)
def test_two_tracks_that_may_be_one_person_are_doubtful_and_name_each_other(people):
    stranger = track(range(220), x=1000)
    first, other, second = grades(people[0], stranger, people[1])
    assert first.verdict == "doubtful: may be one person with a/2"
    assert second.verdict == "doubtful: may be one person with a/0"
    assert other.word == "good"


TWO_PEOPLE = [
    (track(range(120)), track(LATE)),  # 1.3 s apart
    (track(range(131)), track(LATE, x=520)),  # 1.1 heights apart
    (track(range(131)), track(LATE, scale=5.7)),  # limbs that are longer by 14 %
    (track(range(131)), track(range(127, 220))),  # 4 frames together, of 93
    (track(range(131)), track(range(131), x=700)),
]


@pytest.mark.parametrize("people", TWO_PEOPLE)
def test_two_people_are_good(people):
    assert [found.word for found in grades(*people)] == ["good", "good"]


def test_people_of_two_scenes_or_of_unknown_times_are_not_compared():
    people = SEEN_TWICE[0]
    assert [found.word for found in grades(*people, cuts=[150])] == ["good", "good"]
    assert [found.word for found in grades(*people, cuts=[100, 200])] == ["doubtful"] * 2
    assert all(math.isnan(found.same_person) for found in grades(*people, fps=math.nan))


def test_joints_outside_the_crop_are_counted_by_its_scale():
    columns = track(range(100))
    columns["bbox"][:25, 2:] = 180  # of a person of 150 x 200 px: the ankles are outside
    assert grade(columns, FPS, crop_scale=1).outside_crop_percent == pytest.approx(25 * 2 / 12)
    assert grade(columns, FPS, crop_scale=1.2).outside_crop_percent == 0


@pytest.fixture
def raw(tmp_path):
    """A clip in which a tool has numbered one person 1, and later 2."""
    content = coco([standing("coco", 60 + t / 4, 60) for t in range(130)])
    people = content["annotations"]
    content["annotations"] = [people[t] for t in (*range(60), *range(70, 130))]
    for entry in content["annotations"]:
        entry["track_id"] = 1 + (entry["image_id"] >= 70)
    write_json(tmp_path / "raw/keypoints/a.mp4.json", content)
    write_video(tmp_path / "raw/a.mp4", 130, fps=FPS, step=1)
    return tmp_path / "raw"


CONVERT = "convert videos/train --raw RAW --cache CACHE --set videos.cuts=false"


@pytest.mark.usefixtures("raw")
def test_status_has_the_name_whether_grades_are_stored_or_computed(command_line, tmp_path):
    command_line(CONVERT)
    stored = command_line("status videos/train --cache CACHE --tracks").out
    (tmp_path / "cache/videos/train" / layout.MEASURES).unlink()
    assert command_line("status videos/train --cache CACHE --tracks").out == stored
    reasons = {row["track"]: row["grade_reasons"] for row in csv.DictReader(io.StringIO(stored))}
    assert reasons == {
        "a.mp4/1": "may be one person with a.mp4/2",
        "a.mp4/2": "may be one person with a.mp4/1",
    }


@pytest.mark.usefixtures("raw")
@pytest.mark.parametrize(("word", "n_tracks"), [("doubtful", 2), ("good", 0)])
def test_min_grade_drops_them_as_doubtful(word, n_tracks, types):
    dropped = "" if n_tracks else ", 120 low_grade"
    kept = f"tracks {n_tracks} kept of 2"
    types(f"{CONVERT} --set videos.min_grade={word}", kept, dropped, code=int(not n_tracks))


def test_a_version_of_grades_reads_clips_again_if_they_decide(raw):
    def uses(**options):
        return reader_parts(datasets.get("videos", **options), "train", raw, None)["uses"]

    assert uses(min_grade="good").keys() - uses().keys() == {"grades"}
