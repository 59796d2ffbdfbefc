"""What keypoint files say and nobody reads is told once for a split, and people are of the classes
that a list or a setting names.
"""

import json

import pytest

from pipeline import datasets
from tests.pipeline.datasets.by_hand import coco, standing, write_coco, write_video

N = 60
CONVERT = "convert videos/train --raw RAW --cache CACHE"


def mot(*classes):
    """A person of 40 x 60 px of each class, who walks a pixel a frame."""
    return "".join(
        f"{t + 1},{k + 1},{20 + 70 * k + t / 4},30,40,60,1,{number},1.0\n"
        for t in range(N)
        for k, number in enumerate(classes)
    )


@pytest.fixture
def write(tmp_path):
    """Write clips and their keypoint files: name -> text, or COCO's JSON."""

    def write(**files):
        for name, content in files.items():
            write_video(tmp_path / f"raw/{name}.mp4", N, step=0)
            file = tmp_path / f"raw/keypoints/{name}.mp4"
            if isinstance(content, str):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.with_name(f"{file.name}.txt").write_text(content)
            else:
                write_coco(file.with_name(f"{file.name}.json"), content)

    return write


def walker(**more):
    content = coco([standing("coco", 30 + t, 60) for t in range(N)])
    for entry in content["annotations"]:
        entry |= more
    return content


def test_what_is_not_read_is_one_line_for_a_split_and_status_tells_it_again(write, types, tmp_path):
    boxes = walker()
    for entry in boxes["annotations"]:
        del entry["keypoints"]
        entry["bbox"] = [20, 20, 60, 90]
    write(a=walker(tid=4), b=walker(tid=4, pose_3d=[1]), c=boxes)
    lines = [
        "keys not read in 2 videos (a.mp4, b.mp4): tid (120), pose_3d (60)",
        "boxes alone: no joint in 1 video (c.mp4)",
    ]
    said = types(CONVERT, *lines)
    assert all(said.count(line) == 1 for line in lines)
    assert "note a.mp4: keys" not in said
    types("status --cache CACHE", *(f"videos/train: {line}" for line in lines))
    unread = {"keys not read": {"tid": N, "pose_3d": N}}
    (account,) = (each for each in status(types) if each["name"] == "b.mp4")
    assert account["unread"] == unread


def status(types):
    (split,) = json.loads(types("status --json --cache CACHE"))
    return split["videos"]


@pytest.mark.parametrize(
    ("content", "skipped"),
    [
        (mot(0), "classes as MOT16 numbers them: 0 skipped (60)"),
        (walker(category_id=3), "people skipped by category: ball (60)"),
        (walker(iscrowd=1), "people skipped by a mark: iscrowd (60)"),
    ],
)
def test_if_nobody_is_left_the_reason_is_what_was_skipped(content, skipped, write, types):
    if isinstance(content, dict):
        content["categories"].append({"id": 3, "name": "ball"})
    suffix = ".json" if isinstance(content, dict) else ".txt"
    write(a=content)
    said = types(CONVERT, code=1)
    reason = f"The first, a.mp4: a.mp4{suffix} has no person in any frame; {skipped}"
    assert reason in said
    types("status --cache CACHE", "without a track: a.mp4: a.mp4", skipped, code=1)


def test_a_clip_without_anybody_has_nothing_to_tell(write, types):
    write(a=walker(), b={**walker(), "annotations": []})
    types(CONVERT)
    said = types(
        "status --cache CACHE", "without a track: b.mp4: b.mp4.json has no person in any frame"
    )
    assert "skipped" not in said
    assert "not read" not in said


def test_a_list_of_classes_that_comes_later_is_read_and_belongs_to_its_folder(
    write, types, tmp_path
):
    """It is no file of a clip: a clip without keypoints is not refused for it."""
    write(**{"lab/a": mot(1, 3), "b": mot(1, 3)})
    write_video(tmp_path / "raw/lab/nobody.mp4", N, step=0)
    types(CONVERT, "classes as MOT16 numbers them in 2 videos")
    (tmp_path / "raw/keypoints/lab/labels.txt").write_text("car\ndog\nperson\n")
    told = "people skipped by class in 1 video (lab/a.mp4): car (60)"
    said = types(CONVERT, "1 video read", told)
    assert "1 no_keypoints" in said
    assert tracks_of(tmp_path) == ["b.mp4/1", "lab/a.mp4/2"]
    (tmp_path / "raw/keypoints/lab/labels.txt").write_text("person\ndog\ncar\n")
    types(CONVERT, "1 video read")
    assert tracks_of(tmp_path) == ["b.mp4/1", "lab/a.mp4/1"]


def tracks_of(tmp_path):
    import cache

    return [*cache.open(tmp_path / "cache")["videos/train"].tracks.names]


def test_stated_classes_are_people_and_are_not_remembered(write, types, tmp_path):
    write(a=mot(1, 3))
    types(f"{CONVERT} --set videos.people_classes=3")
    assert tracks_of(tmp_path) == ["a.mp4/2"]
    types(CONVERT, "people_classes was 3, is not set")
    assert tracks_of(tmp_path) == ["a.mp4/1"]


@pytest.mark.parametrize("name", ["videos", "kinetics", "insta_variety"])
def test_classes_are_stated_between_commas_in_any_case(name):
    stated = datasets.get(name, people_classes=" Player, field referee,3,").stated("train/a")
    assert stated.classes.names == {"player", "field referee"}
    assert stated.classes.numbers == {"3"}
    assert stated.classes.setting == f"[{name}] people_classes"
    assert datasets.get(name).stated("train/a").classes.names == frozenset()
