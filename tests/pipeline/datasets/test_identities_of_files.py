"""Who the people of a clip are: as its label file says, or as the option `identities` states."""

import functools
import math

import numpy as np
import pytest

import cache
from pipeline import datasets
from pipeline.grades import tracks_of, video_grades
from pipeline.steps.conversion.convert import convert
from tests.fixtures import planned
from tests.pipeline.clips.labels.made_detections import COCO_NAMES
from tests.pipeline.datasets import made_people as made
from tests.pipeline.datasets.by_hand import read_video, standing, write_json, write_video

SIZE = (640, 480)
SECONDS = 3
FIGURE = standing("coco", scale=4)  # 160 px high


@functools.cache
def meeting(fps, gap_s):
    """Frames of people: the first comes from the left, the second from the right; they are unseen
    while they meet, and go back. 60 px is the least distance.
    """
    rng = np.random.default_rng(round(10 * fps))
    frames = []
    for t in range(round(SECONDS * fps)):
        phase = t / fps - 1.5  # s since they met
        if abs(phase) < gap_s / 2:
            frames.append([])
            continue
        way = 95 + 95 * math.cos(math.pi * phase / 1.5)
        people = []
        for number, x in enumerate((90 + way, 530 - way)):
            joints = FIGURE + [x, 200, 0]  # noqa: RUF005 - arrays
            people.append(made.person(joints + rng.normal(0, 1, (17, 3)) * [1, 1, 0], number))
        frames.append(people)
    return frames


def identified(frames, identity):
    """COCO's object of people with the keys that a function of the number says."""
    content = made.coco(frames, COCO_NAMES)[""]
    for entry in content["annotations"]:
        entry |= identity(entry.pop("track_id"))
    return content


FORMS = {
    "joints": lambda frames: made.coco(frames, COCO_NAMES)[""],
    "boxes": lambda frames: made.coco(frames, joints=False)[""],
    "MOT": lambda frames: made.mot(frames)[""],
    "CVAT": lambda frames: identified(
        frames, lambda number: {"attributes": {"track_id": number - 1, "keyframe": True}}
    ),
}


def read(raw, content, n_frames, fps=25.0, name="videos", **options):
    """Tracks and account of a clip with this label file."""
    end = ".txt" if isinstance(content, str) else ".json"
    folder = {"videos": "", "kinetics": "train/", "insta_variety": "train/"}[name]
    write_video(raw / f"{folder}a.mp4", n_frames, fps, SIZE, step=0)
    labels = raw / f"keypoints/{folder}a.mp4{end}"
    if isinstance(content, str):
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(content)
    else:
        write_json(labels, content)
    video = f"{folder}a" if name == "kinetics" else f"{folder}a.mp4"
    return read_video(datasets.get(name, **options), raw, "train", video)


MEETINGS = [(form, fps, 0.5) for form in FORMS for fps in (5, 30)]
MEETINGS += [("joints", 30, 0.0), ("joints", 30, 0.8), ("boxes", 60, 0.2), ("MOT", 10, 0.8)]


@pytest.mark.parametrize(("form", "fps", "gap_s"), MEETINGS)
def test_people_who_meet_and_turn_back_are_who_the_file_says(form, fps, gap_s, tmp_path):
    frames = meeting(fps, gap_s)
    content = FORMS[form](frames)
    tracks, account = read(tmp_path, content, len(frames), fps, min_frames=2, cuts=False)
    n_rows = 0
    for track in tracks:
        number = int(track.name.rpartition("/")[2].split("-")[0].split(".")[0])
        is_left = track.bbox[:, 0] < 310
        assert is_left.all() if number == (form != "CVAT") else not is_left.any()
        n_rows += len(is_left)
    assert n_rows == account["kept"] > 0.8 * sum(map(len, frames))
    assert not any("identit" in note for note in account["notes"])


def two(n_frames, swaps=()):
    """Two people who stand 100 px apart, and are numbered 1 and 2, exchanged in these frames."""
    frames = []
    for t in range(n_frames):
        numbers = (0, 1) if sum(swap <= t for swap in swaps) % 2 == 0 else (1, 0)
        places = zip(numbers, (200, 300), strict=True)
        frames.append([made.person(FIGURE + np.array([x, 200, 0]), n) for n, x in places])
    return frames


@pytest.mark.parametrize(("swaps", "word"), [([], "good"), ([30], "good"), ([30, 90], "doubtful")])
def test_a_track_that_changes_places_twice_is_at_most_doubtful(swaps, word, tmp_path):
    raw = tmp_path / "raw"
    write_video(raw / "a.mp4", 120, 25.0, SIZE, step=1)
    write_json(raw / "keypoints/a.mp4.json", FORMS["joints"](two(120, swaps)))
    convert(planned(datasets.get("videos", cuts=False), "train", raw, tmp_path / "cache"))
    split = cache.open(tmp_path / "cache")["videos/train"]
    (entry,) = split.videos
    assert entry.account.get("identity_changes", {}) == (
        {"a.mp4/1": len(swaps), "a.mp4/2": len(swaps)} if swaps else {}
    )
    grades = video_grades(split, tracks_of(split, 0), None)
    assert [grade.word for grade in grades.values()] == [word, word]
    doubt = "its identity changes places in 2 frames"
    assert [doubt in grade.verdict for grade in grades.values()] == [word == "doubtful"] * 2

    dataset = datasets.get("videos", cuts=False, min_grade="good")
    tracks, account = read_video(dataset, raw, "train", "a.mp4")
    assert len(tracks) == (2 if word == "good" else 0)
    assert account["tracks_dropped"] == ({} if word == "good" else {"low_grade": 2})


def test_changes_are_counted_in_the_track_in_which_they_are(tmp_path):
    """A person is another track after a gap of over a second."""
    frames = two(200, [20, 60, 130])
    frames[80:120] = [[]] * 40
    _, account = read(tmp_path, FORMS["joints"](frames), 200)
    expected = {f"a.mp4/{name}": n for name, n in {"1": 2, "1-1": 1, "2": 2, "2-1": 1}.items()}
    assert account["identity_changes"] == expected
    (note,) = (note for note in account["notes"] if "identit" in note)
    line = "identities: people change places in 3 frames, first in 20; "
    assert note == f"{line}[videos] identities = link does not use them"


@pytest.mark.parametrize("name", ["videos", "kinetics", "insta_variety"])
def test_what_is_stated_of_identities_is_done(name, tmp_path):
    """Of a list by score; everybody in the first five frames has no identity."""
    by_score = two(60, range(60))

    def identity(number):
        return {"track_id": number, "person": {"number": 10 + number}}

    content = identified(by_score, identity)
    for entry in content["annotations"][:10]:
        entry |= {"track_id": None, "person": None}

    def names(**options):
        tracks, account = read(tmp_path, content, 60, name=name, **options)
        named = sorted(track.name.rpartition("/")[2] for track in tracks)
        return named, account["dropped"], account["notes"]

    note = "identities are not used: 10 of 120 detections have none. People are linked; "
    named, dropped, notes = names()
    assert (named, dropped) == (["0", "1"], {})
    assert f"{note}[{name}] identities = file uses them" in notes
    named, dropped, notes = names(identities="link")
    assert (named, dropped) == (["0", "1"], {})
    assert not any("identit" in said for said in notes)
    named, dropped, notes = names(identities="file")
    assert (named, dropped) == (["1", "2"], {"no_identity": 10})
    assert not any("identit" in said for said in notes)
    named, dropped, notes = names(identities="person.number")
    assert (named, dropped) == (["11", "12"], {"no_identity": 10})
    named, dropped, notes = names(identities="nobody")
    assert (named, dropped) == ([], {"no_identity": 120})
    assert "nobody has the key 'nobody'" in notes


def test_the_next_conversion_knows_no_identities_that_were_stated(tmp_path, types):
    write_video(tmp_path / "raw/a.mp4", 60, 25.0, SIZE, step=0)
    content = identified(two(60), lambda number: {"track_id": 10 * number})
    write_json(tmp_path / "raw/keypoints/a.mp4.json", content)

    def tracks(options):
        types(f"convert videos/train --raw RAW --cache CACHE {options}")
        split = cache.open(tmp_path / "cache")["videos/train"]
        return [track.name for track in split.tracks]

    assert tracks("--set videos.identities=link") == ["a.mp4/0", "a.mp4/1"]
    assert tracks("") == ["a.mp4/10", "a.mp4/20"]
