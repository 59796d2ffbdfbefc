"""Who of a detector's file is a person, and which people are the same one."""

import json

import numpy as np
import pytest

from pipeline.clips.labels.detections import NO_IDENTITY, read_detections
from pipeline.clips.labels.label_content import (
    BOXES_ALONE,
    BY_CATEGORY,
    BY_CLASS,
    BY_MARK,
    NOT_READ,
    Stated,
    StatedIdentities,
)
from pipeline.clips.labels.label_values import MOST_NAMES
from tests.pipeline.clips.labels.made_detections import (
    CASES,
    COCO_NAMES,
    EVERY,
    SIZE,
    N,
    body,
    coco_object,
    instance,
    read,
    write,
)
from tests.raising import raw_refuses


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


def identities_in(found):
    """Of each frame, in the order of the file; None: nobody has one."""
    if found.identity is None:
        return None
    numbers = [of_frame.tolist() for of_frame in found.identity]
    return [[found.names[n] if found.names else n for n in of_frame] for of_frame in numbers]


def none_before(t, k):
    return None if t < 2 else k


@pytest.mark.parametrize(
    ("more", "who"),
    [
        ({"track_id": lambda t, k: 4 + k}, [4, 5]),
        ({"attributes": lambda t, k: {"track_id": 7 - k, "keyframe": True}}, [7, 6]),  # CVAT's
        ({"attributes": lambda t, k: {"object_id": 7 - k}}, [7, 6]),  # sleap-io's
        ({"attributes": lambda t, k: {"object_id": "ab"[k]}}, ["a", "b"]),
        ({"attributes": lambda t, k: {"object_id": 7 if t < 3 else k, "track_id": k}}, [0, 1]),
        ({"track_id": lambda t, k: k, "attributes": lambda t, k: {"object_id": k}}, [0, 1]),
        ({"track_id": lambda t, k: -1, "attributes": lambda t, k: {"object_id": k}}, [0, 1]),
        ({"track_id": lambda t, k: None, "attributes": lambda t, k: {"track_id": k}}, [0, 1]),
        ({"attributes": lambda t, k: {"occluded": False}}, None),
        ({"attributes": lambda t, k: None}, None),
        ({"instance_id": lambda t, k: k, "tid": lambda t, k: k}, None),
        ({"track_id": lambda t, k: -1}, None),
        ({"track_id": lambda t, k: None}, None),
        ({"track_id": lambda t, k: 3}, [3, 3]),
    ],
)
def test_the_identity_is_the_first_key_that_anybody_has(more, who, tmp_path):
    found = read(write(tmp_path / "k", {"": two_people(**more)}))
    assert identities_in(found) == (who and [who] * N)
    assert [note for note in found.notes if "identity" in note] == (
        ["attributes.track_id is the identity: attributes.object_id differs for 6 detections"]
        * (who == [0, 1] and more.keys() == {"attributes"})
    )


NULLS = {  # files of two people, of whom nobody has an identity in the first two frames
    "COCO": lambda: {"": two_people(track_id=none_before)},
    "CVAT": lambda: {"": two_people(attributes=lambda t, k: {"track_id": none_before(t, k)})},
    "results": lambda: {"": [result(t, k, idx=none_before(t, k)) for t in EVERY for k in (0, 1)]},
    "MMPose": lambda: {"": [instances(t, track_id=none_before) for t in EVERY]},
    "MOT": lambda: {
        "": "".join(
            f"{t + 1},{-1 if t < 2 else k},{9 + 30 * k},9,20,40,1\n" for t in EVERY for k in (0, 1)
        )
    },
    "CSV": lambda: {
        "": "track,frame,x,y,w,h\n"
        + "".join(f"{'' if t < 2 else k},{t},{9 + 30 * k},9,20,40\n" for t in EVERY for k in (0, 1))
    },
}


def result(t, k, **more):
    joints = np.add(body(t), [5 * k, 0, 0]).ravel().tolist()
    return {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": joints, "score": 0.9} | more


@pytest.mark.parametrize("tool", NULLS)
def test_who_has_no_identity_has_none_in_every_format(tool, tmp_path):
    found = read(write(tmp_path / "k", NULLS[tool]()))
    numbers = [of_frame.tolist() for of_frame in found.identity]
    assert numbers == [[NO_IDENTITY, NO_IDENTITY]] * 2 + [[0, 1]] * (N - 2)
    assert [*found.names] == ["0", "1"] * (tool == "CSV")
    assert found.n_persons == 2 * N


def instances(t, **more):
    """MMPose's two people of a frame; `more`: of each, by frame and person."""
    people = []
    for k in (0, 1):
        person = instance(t) | {key: value(t, k) for key, value in more.items()}
        person["keypoints"] = np.add(person["keypoints"], [5 * k, 0]).tolist()
        people.append(person)
    return {"frame_id": t, "instances": people}


def openpose(t):
    people = [
        {
            "person_id": [k + 3],
            "pose_keypoints_2d": np.add(body(t, "body_25"), [5 * k, 0, 0]).ravel().tolist(),
        }
        for k in (0, 1)
    ]
    return {"people": people}


WITH_KEYS = {  # the key, files of two people who are 3 and 4 by it
    "COCO": ("instance_id", lambda: {"": two_people(instance_id=lambda t, k: 3 + k)}),
    "COCO, nested": (
        "meta.person.id",
        lambda: {"": two_people(meta=lambda t, k: {"person": {"id": 3 + k}})},
    ),
    "COCO, another": (
        "tid",
        lambda: {"": two_people(track_id=lambda t, k: 8, tid=lambda t, k: 3 + k)},
    ),
    "results": (
        "tid",
        lambda: {"": [result(t, k, tid=3 + k, idx=k) for t in EVERY for k in (0, 1)]},
    ),
    "MMPose": (
        "instance_id",
        lambda: {"": [instances(t, instance_id=lambda t, k: 3 + k) for t in EVERY]},
    ),
    "OpenPose": ("person_id", lambda: {f"c_{t:012d}_keypoints.json": openpose(t) for t in EVERY}),
}


@pytest.mark.parametrize("tool", WITH_KEYS)
def test_a_stated_key_is_the_identity(tool, tmp_path):
    key, make = WITH_KEYS[tool]
    place = write(tmp_path / "k", make())
    stated = Stated(identities=StatedIdentities(key))
    found = read_detections(place, "c", lambda: [SIZE], stated)
    assert identities_in(found) == [[3, 4]] * N
    root = key.split(".")[0]
    assert root not in found.unread.get(NOT_READ, {})
    usual = read(place)
    assert identities_in(usual) != [[3, 4]] * N
    assert root in usual.unread[NOT_READ]
    other = Stated(identities=StatedIdentities("tracks"))
    found = read_detections(place, "c", lambda: [SIZE], other)
    assert found.identity is None
    assert "nobody has the key 'tracks'" in found.notes


@pytest.mark.parametrize("identity", [True, 1.5, {"id": 3}, "a\x1b[2J", [], "x" * 201])
def test_an_identity_that_is_no_number_or_name_is_refused(identity, tmp_path):
    place = write(tmp_path / "k", {"": two_people(track_id=lambda t, k: identity)})
    with raw_refuses(r"annotations\[0\]\.track_id.* leave track_id out"):
        read(place)


# --------------------------------------------------------------------------------------------------
# the people of all frames in one

ALL_IN_ONE = "all frames in one file: the frame of a person cannot be known. Run the tool on the"


def in_one(*endings):
    """YOLO's lines of people in all frames; endings: of each person's."""
    lines = (
        f"0 0.{3 + 4 * k}{t:02d} 0.4 0.1 0.3{end}" for t in EVERY for k, end in enumerate(endings)
    )
    return "\n".join(lines) + "\n"


LISTED = [one | {"image_id": "0.jpg", "idx": 4} for one in CASES["coco results"].files[""]]


@pytest.mark.parametrize(
    ("place", "files", "words"),
    [
        ("k", {"image0.txt": in_one(" 1", " 2")}, ALL_IN_ONE),
        ("k", {"image0.txt": in_one("", "")}, ALL_IN_ONE),
        ("k", {"image1.txt": in_one(" 1", " 2")}, ALL_IN_ONE),  # after another advice was followed
        ("k", {"c_7.txt": in_one(" 0.9 4")}, ALL_IN_ONE),
        ("k", {"": LISTED}, ALL_IN_ONE),
        ("k", {"": "".join(f"1,7,{100 + t},80,60,150,0.9\n" for t in EVERY)}, ALL_IN_ONE),  # MOT
        ("clip.txt", {"": in_one(" 1", " 2")}, "cannot be known: run it on the video"),
    ],
)
def test_the_people_of_all_frames_in_one_file_are_refused(place, files, words, tmp_path):
    with raw_refuses(words):
        read(write(tmp_path / place, files))


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
