"""What a file of people says and nobody reads is told, and a class is a person by what the file or
the user states.
"""

import json

import numpy as np
import pytest

from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.label_content import (
    BOXES_ALONE,
    BY_CATEGORY,
    BY_CLASS,
    HANDS_NOT_READ,
    NOT_READ,
    Stated,
)
from pipeline.clips.labels.people_classes import StatedClasses
from pipeline.people.skeletons import BLAZE, convert
from tests.pipeline.clips.labels.made_detections import (
    CASES,
    COCO_NAMES,
    EVERY,
    PEOPLE,
    SIZE,
    N,
    coco_object,
    instance,
    read,
    results,
    write,
    xywh,
)
from tests.raising import raw_refuses


def read_stated(place, names):
    """As `read`, with classes that are stated."""
    numbers = frozenset(name for name in names if name.isdecimal())
    classes = StatedClasses(frozenset(names) - numbers, numbers, "[videos] people_classes")
    stated = Stated(classes=classes)
    return read_detections(place, "c", lambda: [SIZE], stated)


def named(names):
    """COCO's JSON of people whose 17 joints have these names."""
    content = coco_object()
    content["categories"][1]["keypoints"] = names
    return content


def renamed(**names):
    return [names.get(name, name) for name in COCO_NAMES]


# --------------------------------------------------------------------------------------------------
# names of joints


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("left_shoulder", "left_sholder"),
        ("right_shoulder", "Right Shouldre"),
        ("left_hip", "left_hips"),
        ("right_hip", "rigth_hip"),
        ("left_elbow", "left_ellbow"),
        ("left_knee", "left-kneee"),
        ("right_wrist", "right_wrost"),
        ("nose", "noze"),
        ("left_ankle", "left_nkle"),
        ("right_ear", "tight_ear"),
    ],
)
def test_a_joints_name_that_is_misspelt_by_a_letter_is_refused_with_the_right_one(
    right, wrong, tmp_path
):
    file = write(tmp_path / "k", {"": named(renamed(**{right: wrong}))})
    with raw_refuses(rf"expected {right}, found {wrong}\. Correct"):
        read(file)


SIDES = ("left", "right")
TOOLS = {
    "MediaPipe": BLAZE,
    "SMPL": [
        "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
        "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar",
        "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
        "left_wrist", "right_wrist", "left_hand", "right_hand",
    ],
    "JHMDB": ["neck", "belly", "head", *COCO_NAMES[5:]],
    "CrowdPose": [*COCO_NAMES[5:], "top_head", "neck"],
    "MPII": [*COCO_NAMES[5:], "pelvis", "thorax", "upper_neck", "head_top"],
    "gait": [f"{side}_{joint}" for joint in ("waist", "hip", "knee", "ankle") for side in SIDES],
    "wheelchair": [*COCO_NAMES, "left_wheel", "right_wheel"],
    "rowing": ["left_oar", "right_oar", "left_lip", *COCO_NAMES[5:]],
    "numbered": ["hip1", "left_heel1", "left_heel2", *COCO_NAMES],
    "from the side": ["eye", "ear", "hip", "knee", "heel", *COCO_NAMES[5:11]],
    "animals": ["L_F_Elbow", "R_F_Elbow", *COCO_NAMES[:5], *COCO_NAMES[11:]],
    "hands": [*COCO_NAMES, *(f"left_{finger}{k}" for finger in ("pinky", "index") for k in (1, 4))],
}  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_other_joints_of_a_tool_are_one_list(tool, tmp_path):
    names = TOOLS[tool]
    content = named(names)
    for t, entry in enumerate(content["annotations"][:N]):
        # nobody whose order could be judged: one joint is seen
        entry |= {"keypoints": [200.0 + t, 100, 1] + [0, 0, 0] * (len(names) - 1)}
        del entry["keypoint_scores"]
    found = read(write(tmp_path / "k", {"": content}))
    assert found.unread.keys() <= {"joints not read", BY_CATEGORY, HANDS_NOT_READ}
    unread = [*found.unread.get("joints not read", {})]
    assert len(unread) + len(
        found.skeleton if isinstance(found.skeleton, tuple) else COCO_NAMES
    ) == len(names)


def test_a_second_name_of_a_joint_is_not_read_and_told(tmp_path):
    names = renamed(left_ear="LNose", right_ear="Nose")
    found = read(write(tmp_path / "k", {"": named(names)}))
    assert found.unread["joints not read"] == {"LNose": N, "Nose": N}


@pytest.mark.parametrize(
    ("name", "write_instead"),
    [
        ("left_sholder", "lshoulder"),
        ("left_shoulder", "lshoulder"),
        ("LHip", "lhip"),
        ("Left Big-Toe", "OP LBigToe"),
        ("thorx", "thorax"),
        ("OP LHeell", "OP LHeel"),
    ],
)
def test_converting_joints_refuses_cocos_spelling_and_a_misspelt_name(name, write_instead):
    with pytest.raises(ValueError, match=f"no joint is called '{name}': write {write_instead}$"):
        convert(np.ones((2, 3)), source=["nose", name], target="spin49")


def test_another_point_of_a_joint_that_the_source_has_may_have_its_usual_name():
    """Of motion capture, LeftShoulder is the collar, beside the shoulder."""
    source = ["lshoulder", "LeftShoulder", "lshoulders"]
    assert convert(np.ones((3, 3)), source=source, target="spin49").sum() == 3


@pytest.mark.parametrize("name", ["spine1", "left_clavicle", "knee", "wrist marker", "pelvis"])
def test_converting_joints_leaves_out_what_only_the_source_has(name):
    converted = convert(np.ones((2, 3)), source=["nose", name], target="spin49")
    assert converted.sum() == 3


# --------------------------------------------------------------------------------------------------
# keys and columns


def test_keys_of_people_that_nobody_reads_are_told(tmp_path):
    content = coco_object(instance_id=7, attributes={"occluded": False, "role": "goalkeeper"})
    for entry in content["annotations"][::2]:
        entry["tid"] = 3
    found = read(write(tmp_path / "coco", {"": content}))
    assert found.unread[NOT_READ] == {"instance_id": N, "attributes.role": N, "tid": N // 2}

    found = read(write(tmp_path / "results", {"": results(pose=[1, 2, 3])}))
    assert found.unread == {NOT_READ: {"pose": N}}
    posed = [{"image_id": t, "bbox": xywh(t), "pose": [1.0]} for t in EVERY]
    found = read(write(tmp_path / "boxes", {"": posed}))
    assert found.unread == {BOXES_ALONE: {}, NOT_READ: {"pose": N}}

    frames = [{"frame_id": t, "instances": [instance(t) | {"person": 2}]} for t in EVERY]
    found = read(write(tmp_path / "mmpose", {"": frames}))
    assert found.unread == {NOT_READ: {"person": N}}

    hands = [
        {"people": [page["people"][0] | {"person_id": [k], "hand_left_keypoints_2d": [1, 2, 1]}]}
        for k, page in enumerate(PEOPLE)
    ]
    files = {f"c_{t:012d}_keypoints.json": page for t, page in enumerate(hands)}
    found = read(write(tmp_path / "openpose", files))
    assert found.unread == {HANDS_NOT_READ: {}, NOT_READ: {"person_id": N}}


# what its own keys and columns are told of in a right file: boxes, and other classes
TOLD = {
    "coco results of boxes": {BY_CATEGORY: {"17": 8}},
    "coco": {BY_CATEGORY: {"car": 1}},
    "coco of boxes": {BY_CATEGORY: {"car": 1}},
    "coco without a joint": {BY_CATEGORY: {"car": 1}},
    "mot truth": {"classes as MOT16 numbers them": {"1 taken": N, "3 skipped": N}},
    "csv": {"columns not read": {"score": N}},
    "yolo": {BY_CLASS: {"2": N}},
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_told_of_what_a_tools_own_files_always_have(name, tmp_path):
    boxes = {} if CASES[name].joints else {BOXES_ALONE: {}}
    found = read(write(tmp_path / "k", CASES[name].files))
    assert found.unread == boxes | TOLD.get(name, {})


def test_openposes_and_cocos_empty_keys_say_nothing(tmp_path):
    empty = {"person_id": [-1], "face_keypoints_2d": [], "pose_keypoints_3d": []}
    pages = [{"people": [page["people"][0] | empty]} for page in PEOPLE]
    assert read(write(tmp_path / "openpose", {"": pages})).unread == {}
    content = coco_object(ignore=0, segmentation=[[1.0, 2.0]], area=9.0, num_keypoints=17)
    assert read(write(tmp_path / "coco", {"": content})).unread == {BY_CATEGORY: {"car": 1}}


# --------------------------------------------------------------------------------------------------
# classes


def mot_lines(*classes):
    """A person of each class in each frame, whose identity is the number in this list."""
    return "".join(
        f"{t + 1},{k + 1},{50 + 90 * k + t},80,40,90,1,{number},1.0\n"
        for t in EVERY
        for k, number in enumerate(classes)
    )


def who(found):
    return {int(number) for frame in found.identity for number in frame}


@pytest.mark.parametrize("place", ["c.txt", "gt/gt.txt", "gt/gt.txt with a list in gt"])
def test_people_of_mot_are_those_whom_the_list_of_classes_calls_so(place, tmp_path):
    """CVAT's class is a line of its list: in MOT16's numbers, 1 is the person, not the car."""
    path, _, in_folder = place.partition(" ")
    file = write(tmp_path / path, {"": mot_lines(1, 3, 2)})
    (file.parent if in_folder or path == "c.txt" else tmp_path).joinpath("labels.txt").write_text(
        "car\ndog\nPerson\n\n"
    )
    found = read(file)
    assert who(found) == {2}
    assert found.unread == {BOXES_ALONE: {}, BY_CLASS: {"car": N, "dog": N}}


def test_a_list_of_classes_without_people_is_refused_with_the_classes_and_the_setting(tmp_path):
    file = write(tmp_path / "c.txt", {"": mot_lines(1, 2)})
    (tmp_path / "labels.txt").write_text("player\nball\n")
    setting = r"found ball, player\. State those that are people: \[videos\] people_classes"
    with raw_refuses(setting):
        read_stated(file, [])
    with raw_refuses(r"expected a class keeper, found ball, player"):
        read_stated(file, ["keeper"])
    assert who(read_stated(file, ["player"])) == {1}


def test_people_without_a_class_are_people_beside_any_list(tmp_path):
    (tmp_path / "labels.txt").write_text("player\nball\n")
    no_class = write(tmp_path / "c.txt", {"": mot_lines(-1, -1)})
    assert read(no_class).unread == {BOXES_ALONE: {}}
    seven = mot_lines(1).replace(",1,1.0\n", "\n")
    assert read(write(tmp_path / "d.txt", {"": seven})).n_persons == N


def test_without_a_list_mot16s_classes_hold_and_are_counted(tmp_path):
    """boxmot's 0 is a person, and its 1 a bicycle: who states it gets the people."""
    file = write(tmp_path / "c.txt", {"": mot_lines(0, 1)})
    found = read(file)
    assert who(found) == {2}
    told = {"classes as MOT16 numbers them": {"0 skipped": N, "1 taken": N}}
    assert found.unread == {BOXES_ALONE: {}} | told
    found = read_stated(file, ["0"])
    assert who(found) == {1}
    assert found.unread == {BOXES_ALONE: {}, BY_CLASS: {"1": N}}


def test_stated_classes_are_people_in_every_format(tmp_path):
    content = coco_object(joints=False)
    content["categories"] = [{"id": 1, "name": "Player"}, {"id": 3, "name": "person"}]
    coco = write(tmp_path / "coco", {"": content})
    assert (read(coco).n_persons, read_stated(coco, ["player"]).n_persons) == (1, N)
    with raw_refuses(r"expected a class keeper, found Player, person"):
        read_stated(coco, ["keeper"])
    listed = write(tmp_path / "results", CASES["coco results of boxes"].files)
    assert read_stated(listed, ["17"]).unread[BY_CATEGORY] == {"1": N}
    yolo = write(tmp_path / "yolo", CASES["yolo"].files)
    assert read_stated(yolo, ["2"]).unread[BY_CLASS] == {"0": N}
    posed = json.loads(json.dumps(CASES["ultralytics to_json"].files[""]))
    for k, (entry,) in enumerate(posed):
        entry |= {"class": k % 2, "name": ("player", "ball")[k % 2]}
    tracked = write(tmp_path / "to_json", {"": posed})
    taken = {"classes taken for people": {"player": N // 2, "ball": N // 2}}
    assert (read(tracked).n_persons, read(tracked).unread) == (N, taken)
    assert read_stated(tracked, ["player"]).unread == {BY_CLASS: {"ball": N // 2}}


def test_names_state_nothing_about_numbers_and_numbers_nothing_about_names(tmp_path):
    """In a folder with files of several tools."""
    yolo = write(tmp_path / "yolo", CASES["yolo"].files)
    assert read_stated(yolo, ["player"]).n_persons == N
    assert read_stated(yolo, ["player", "2"]).unread[BY_CLASS] == {"0": N}
    mot = write(tmp_path / "c.txt", {"": mot_lines(1, 3)})
    assert read_stated(mot, ["player"]).unread == read(mot).unread
    coco = write(tmp_path / "coco", CASES["coco"].files)
    assert read_stated(coco, ["2"]).n_persons == N


def test_a_category_that_is_0_throughout_is_refused_with_both_ways_out(tmp_path):
    zeros = [one | {"category_id": 0} for one in results()]
    file = write(tmp_path / "k", {"": zeros})
    with raw_refuses(r"Write category_id 1, leave it out, or state 0: \["):
        read_stated(file, [])
    assert read_stated(file, ["0"]).n_persons == N
