"""Who of a detector's file is a person, and which people are the same one."""

import json
import shutil

import numpy as np
import pytest

from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.label_content import BOXES_ALONE, BY_CATEGORY, BY_CLASS, BY_MARK
from pipeline.clips.labels.label_values import MOST_NAMES
from pipeline.errors import RawDataError
from tests.docs.markdown import ROOT
from tests.pipeline.clips.labels.made_detections import (
    CASES,
    COCO_NAMES,
    EVERY,
    SIZE,
    N,
    body,
    coco_object,
    read,
    write,
)

SAMPLES = ROOT.parent / "shared/data/mistakes"
MISTAKES = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples of mistakes")


def test_a_crowd_is_no_person(tmp_path):
    content = coco_object()
    content["annotations"][2]["iscrowd"] = 1
    (tmp_path / "x.json").write_text(json.dumps(content))
    found = read_detections(tmp_path / "x.json", "x", lambda: [SIZE])
    assert found.n_persons == N - 1
    assert found.unread == {BY_CATEGORY: {"car": 1}, BY_MARK: {"iscrowd": 1}}
    assert not found.notes


def category(name, joints=COCO_NAMES, **more):
    return {"id": 1, "name": name, "keypoints": joints, **more}


@pytest.mark.parametrize(
    ("one", "is_person"),
    [
        (category("person"), True),
        (category("Player"), True),
        (category("mouse_person"), False),
        (category("dog", supercategory="Canidae"), False),
        (category("mare", [*COCO_NAMES[:16], "root_of_tail"]), False),
        ({"id": 1, "name": "sheep"}, False),
    ],
)
def test_animals_are_no_people(one, is_person, tmp_path):
    found = read(
        write(
            tmp_path / "k", {"": coco_object() | {"categories": [one, {"id": 3, "name": "bear"}]}}
        )
    )
    skipped = {"bear": 1} if is_person else {one["name"]: N, "bear": 1}
    assert found.n_persons == (N if is_person else 0)
    assert found.unread[BY_CATEGORY] == skipped


@pytest.mark.parametrize(
    ("people", "other", "unread"),
    [
        ("Person", "car", {BY_CATEGORY: {"car": 1}}),
        ("pedestrian", "car", {BY_CATEGORY: {"car": 1}}),
        ("player", "ball", {"categories taken for people": {"player": N, "ball": 1}}),
    ],
)
def test_without_joints_people_are_told_by_the_name_of_their_category(
    people, other, unread, tmp_path
):
    categories = [{"id": 1, "name": people}, {"id": 3, "name": other}]
    found = read(
        write(tmp_path / "k", {"": coco_object(joints=False) | {"categories": categories}})
    )
    assert found.unread == {BOXES_ALONE: {}, **unread}
    assert found.n_persons == N + (people == "player")


@pytest.mark.parametrize(("moves_every", "said"), [(1, ""), (2, ""), (4, "75%"), (N, "88%")])
def test_joints_that_are_written_again_for_the_next_frames_are_noted(moves_every, said, tmp_path):
    """Also of one of two people, who change their places in the file."""
    people = [
        {"image_id": t, "keypoints": np.add(body(t - t % moves_every), [100 * k, 0, 0]).ravel()}
        for t in EVERY
        for k in ((0, 1) if t % 2 else (1, 0))
    ]
    text = json.dumps(people, default=np.ndarray.tolist)
    found = read(write(tmp_path / "k.json", {"": text}))
    notes = [note for note in found.notes if "frame before" in note]
    expected = f"{said} of the people have the joints of the frame before: written twice?"
    assert notes == [expected] * bool(said)


@pytest.mark.parametrize(
    ("ending", "said"),
    [("0.9,{},0,1", True), ("0.9,{}", True), ("0.9,-1,-1,-1", False), ("0.9,{}.5,0,1", False)],
)
def test_classes_in_a_column_that_is_none_of_mots_are_noted(ending, said, tmp_path):
    """VisDrone has them in the eighth of ten."""
    lines = [f"{t + 1},{k},100,80,60,150,{ending.format(k)}" for t in EVERY for k in (1, 4)]
    found = read(write(tmp_path / "k.txt", {"": "\n".join(lines)}))
    classes = {"column 8 not read, a class in files of 9 columns,": {"1": N, "4": N}}
    assert found.unread == {BOXES_ALONE: {}} | (classes if said else {})


@pytest.mark.parametrize("form", ["results", "coco", "yolo"])
def test_many_categories_that_are_no_people_are_counted_together(form, tmp_path):
    n_categories = 300
    if form == "yolo":
        line = "0 0.5 0.5 0.1 0.3\n"
        others = "".join(f"{k + 1} 0.5 0.5 0.1 0.1\n" for k in range(n_categories))
        files = {f"c_{t + 1}.txt": line + others for t in EVERY}
    elif form == "results":
        others = [{"image_id": 0, "category_id": k + 2} for k in range(n_categories)]
        files = {"": [*CASES["coco results"].files[""], *others * N]}
    else:
        content = coco_object()
        for k in range(n_categories):
            content["categories"].append({"id": k + 10, "name": f"thing {k}"})
            content["annotations"] += [{"image_id": 100, "category_id": k + 10}] * N
        files = {"": content}
    found = read(write(tmp_path / "k", files))
    assert found.n_persons == N
    (skipped,) = (n for what, n in found.unread.items() if what in (BY_CATEGORY, BY_CLASS))
    assert len(skipped) == MOST_NAMES + 1
    n_named = sum(n for name, n in skipped.items() if name != "others")
    assert skipped["others"] + n_named == n_categories * N + (form == "coco")


def two_people(**more):
    """COCO's JSON of two people in each frame; `more`: of an annotation, by frame and person."""
    content = coco_object() | {"annotations": []}
    for t in EVERY:
        for k in (0, 1):
            own = {key: value(t, k) for key, value in more.items()}
            joints = np.add(body(t), [5 * k, 0, 0]).ravel().tolist()
            content["annotations"].append(
                {"image_id": 100 + t, "category_id": 1, "keypoints": joints} | own
            )
    return content


@pytest.mark.parametrize(
    ("more", "who", "note"),
    [
        ({"track_id": lambda t, k: 4 + k}, [4, 5], ""),
        ({"attributes": lambda t, k: {"track_id": 7 - k, "keyframe": True}}, [7, 6], ""),  # CVAT's
        ({"attributes": lambda t, k: {"occluded": False}}, None, ""),
        ({"track_id": lambda t, k: -1}, None, ""),
        ({"track_id": lambda t, k: 3}, None, "everybody is 3"),
        ({"track_id": lambda t, k: k if t else -1}, None, "2 detections have none"),
    ],
)
def test_an_identity_is_read_where_a_tool_has_it_and_is_none_if_it_tells_nobody_apart(
    more, who, note, tmp_path
):
    found = read(write(tmp_path / "k", {"": two_people(**more)}))
    assert (found.identity and [ids.tolist() for ids in found.identity]) == (who and [who] * N)
    assert [note for said in found.notes if note in said] == [note] * len(found.notes)
    assert bool(found.notes) == bool(note)


# --------------------------------------------------------------------------------------------------
# the people of all frames in one

ALL_IN_ONE = "all frames in one file: the frame of a person cannot be known. Run the tool on the"


def in_one(*endings):
    """YOLO's lines of people in all frames; endings: of each person's."""
    lines = (
        f"0 0.{3 + 4 * k}{t:02d} 0.4 0.1 0.3{end}" for t in EVERY for k, end in enumerate(endings)
    )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("image0.txt", in_one(" 1", " 2")),
        ("image0.txt", in_one("", "")),
        ("image1.txt", in_one(" 1", " 2")),  # after another advice was followed
        ("c_7.txt", in_one(" 0.9 4")),
    ],
)
def test_the_people_of_all_frames_in_one_file_of_yolo_are_refused(name, lines, tmp_path):
    with pytest.raises(RawDataError, match=ALL_IN_ONE):
        read(write(tmp_path / "k", {name: lines}))


def test_the_people_of_all_frames_in_one_file_are_refused_in_every_format(tmp_path):
    listed = [one | {"image_id": "0.jpg", "idx": 4} for one in CASES["coco results"].files[""]]
    with pytest.raises(RawDataError, match=ALL_IN_ONE):
        read(write(tmp_path / "results", {"": listed}))
    mot = "".join(f"1,7,{100 + t},80,60,150,0.9\n" for t in EVERY)
    with pytest.raises(RawDataError, match=ALL_IN_ONE):
        read(write(tmp_path / "mot", {"": mot}))
    with pytest.raises(RawDataError, match=r"cannot be known: run it on the video"):
        read(write(tmp_path / "clip.txt", {"": in_one(" 1", " 2")}))


@MISTAKES
def test_ultralytics_file_of_images_without_names_is_refused(tmp_path):
    shutil.copytree(SAMPLES / "image0", tmp_path / "k")
    with pytest.raises(RawDataError, match=ALL_IN_ONE):
        read(tmp_path / "k")


def test_many_people_in_the_only_frame_with_anybody_are_read(tmp_path):
    crowd = "".join(f"0 0.{k + 1} 0.4 0.05 0.2 {k + 1}\n" for k in range(8))
    assert read(write(tmp_path / "tracked", {"c_5.txt": crowd})).n_persons == 8
    unnamed = "".join(f"0 0.{k + 1} 0.4 0.05 0.2 0.{k + 1}\n" for k in range(8))
    assert read(write(tmp_path / "untracked", {"c_5.txt": unnamed})).n_persons == 8
    twice = [one | {"idx": 4} for one in CASES["coco results"].files[""][:1] * 2]
    several = [
        one | {"image_id": "0.jpg", "idx": k + 5}
        for k, one in enumerate(CASES["coco results"].files[""])
    ]
    assert read(write(tmp_path / "results", {"": twice + several})).n_persons == 1 + N


def test_files_of_yolo_from_0_are_told_to_begin_with_1(tmp_path):
    files = {f"c_{t}.txt": "0 0.5 0.5 0.1 0.3\n" for t in EVERY}
    with pytest.raises(RawDataError, match=r"found 0\. Count frames from 1"):
        read(write(tmp_path / "k", files))
