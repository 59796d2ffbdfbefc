"""Detectors' files, written by hand from the formats' own documentation: who is where in which
frame.
"""

import json
import math

import numpy as np
import pytest

from pipeline.clips.labels import keypoints_json, mmpose, text_files
from pipeline.clips.labels.detections import read_results
from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_content import BOXES_ALONE, Stated
from pipeline.clips.labels.people_formats import FORMATS
from pipeline.files.formats import large_json
from pipeline.people.skeletons import joint_names
from tests.pipeline.clips.labels.made_detections import (
    CASES,
    COCO_NAMES,
    EVERY,
    PEOPLE,
    SIZE,
    N,
    body,
    box,
    coco_object,
    flat,
    read,
    results,
    write,
    xywh,
    yolo,
    yolo_joints,
)
from tests.raising import raw_refuses


@pytest.mark.parametrize("large", [1 << 22, 0])  # bytes; larger JSON is read by parts
@pytest.mark.parametrize("name", CASES)
def test_a_format_is_known_by_its_content_and_read_by_its_own_conventions(
    name, large, tmp_path, monkeypatch
):
    monkeypatch.setattr(large_json, "LARGE", large)
    case = CASES[name]
    found = read(write(tmp_path / "k", case.files))
    assert found.frame_index.tolist() == list(range(N))
    assert list(found.frames) == (case.frames or list(range(N)))
    if case.joints:
        assert joint_names(found.skeleton) == joint_names("coco")
        expected = [body(t)[None] for t in range(N)]
    else:
        assert found.boxes_alone
        expected = [np.array(box(t)).reshape(1, 2, 2) for t in range(N)]
    for points, truth in zip(found.keypoints, expected, strict=True):
        np.testing.assert_allclose(points[..., : truth.shape[-1]], truth, atol=1e-3)
    assert (found.identity and [who.tolist() for who in found.identity]) == (
        case.who and [case.who] * N
    )


def test_a_person_without_a_joint_among_people_with_joints_is_no_box(tmp_path):
    content = coco_object()
    for t in EVERY:
        content["annotations"][t]["bbox"] = xywh(t)
    content["annotations"][3]["keypoints"] = [0.0] * 51
    found = read(write(tmp_path / "k", {"": content}))
    assert [bool(persons[..., 2].any()) for persons in found.keypoints] == [
        t != 3 for t in range(N)
    ]
    assert not found.boxes_alone


def test_boxes_of_unsure_people_keep_their_score_and_names_of_a_csv_theirs(tmp_path):
    (tmp_path / "k").write_text("1,1,10,10,20,40,0.25\n1,2,10,10,20,40,0\n1,3,10,10,20,40,-1\n")
    found = read(tmp_path / "k")
    assert found.keypoints[0][:, 0, 2].tolist() == [0.25, 1]
    assert found.unread["people skipped by a mark"] == {"confidence 0": 1}
    (tmp_path / "k").write_text("track,frame,x,y,w,h\nbob,0,1,2,3,4\nann,0,5,6,7,8\n")
    found = read(tmp_path / "k")
    assert [found.names[k] for k in found.identity[0]] == ["bob", "ann"]
    assert [*found.unread] == [BOXES_ALONE]
    np.testing.assert_array_equal(found.keypoints[0][1, :, :2], [[5, 6], [12, 14]])


def test_a_pose_lifters_right_leg_comes_first(tmp_path):
    """Somebody who faces the camera, so the right side is on the image's left."""
    # as MMPose's h36m.py: the hip, the right leg, the left leg, the trunk, the left arm, the right
    places = (
        "50 50  45 50 44 70 43 90  55 50 56 70 57 90  50 40 50 30 50 25 50 20  "
        "60 30 65 40 70 50  40 30 35 40 30 50"
    )
    xy = np.array(places.split(), float).reshape(17, 2)
    flat = np.column_stack([xy, np.full(17, 0.9)]).ravel().tolist()
    results = [{"image_id": t, "category_id": 1, "keypoints": flat, "score": 0.9} for t in EVERY]
    stated = Stated(StatedOrder("h36m_lifters"))
    found = read_results(write(tmp_path / "k", {"": results}), stated=stated)
    names = joint_names(found.skeleton)
    for name, place in {
        "rknee": (44, 70), "rankle": (43, 90), "lknee": (56, 70), "lankle": (57, 90),
        "rwrist": (30, 50), "lwrist": (70, 50), "headtop": (50, 20),
    }.items():  # fmt: skip
        assert tuple(found.keypoints[0][0, names.index(name), :2]) == place, name


def test_a_declared_joint_order_goes_before_the_usual_one(tmp_path):
    order = np.random.default_rng(0).permutation(17)
    content = coco_object()
    content["categories"][1]["keypoints"] = [COCO_NAMES[j] for j in order]
    for t in range(N):
        content["annotations"][t]["keypoints"] = body(t)[order].ravel().tolist()
    found = read(write(tmp_path / "k", {"": content}))
    assert found.skeleton == tuple(joint_names("coco")[j] for j in order)
    content["categories"][1]["keypoints"] = [f"part {j}" for j in range(17)]
    with raw_refuses("6 or more of nose") as caught:
        read(write(tmp_path / "k", {"": content}))
    assert caught.value.reason == "unknown_joint_order"


def change_of(name, change):
    """A case's files after a change of its only file's content."""
    content = json.loads(json.dumps(CASES[name].files[""]))
    change(content)
    return {"": content}


def times(*factors):
    return lambda points: points * factors


def two_skeletons(content):
    content["categories"] += [{"id": 2, "name": "person", "keypoints": COCO_NAMES[::-1]}]


def one_frame_twice(content):
    for t, image in enumerate(content["images"]):
        image["file_name"] = f"{t % 2}.jpg"


def from_0(content):
    content["instance_info"][0]["frame_id"] = 0


ELSEWHERE = "8 of 8 people's joints lie elsewhere than their box"
PAGES = CASES["openpose"].files
MOT = CASES["mot"].files[""]
CSV = "track,frame,x,y,w,h\nann,0,1,2,3,4\n"
MISTAKES = [  # the files, words of the message
    ({"": "1,1,nan,10,20,40\n"}, r"'line 1': expected x y w h in px"),
    ({"": "1,1,10,10,20,40\n2,1,10,10,-20,40\n"}, r"'line 2': expected a box x y w h with a width"),
    ({"": "1,1,10,10\n"}, r"'line 1': expected frame,id,x,y,w,h.*4 numbers"),
    (
        {"": "id,frame,x1,y1,x2,y2\n1,0,1,2,3,4\n"},
        "id, x1, x2, y1, y2; missing or twice: track, x, y, w, h",
    ),
    ({"": '" "\n'}, "found none; missing or twice: track, frame, x, y, w, h"),
    ({"": f"{CSV}ann,0,1,2,3,4\n"}, "a second time"),
    (
        {"": f"{CSV}a\x07,1,1,2,3,4\n"},
        "'line 3': expected a name or number, found a text of 2 characters as the track",
    ),
    ({"": f"{CSV}ann,1,1,5,2,3,4\n"}, "'line 3': expected 6 fields.*found 7 .*decimal points"),
    ({"": f"{CSV}ann,-1,1,2,3,4\n"}, "expected a whole number, found a text '-1' as the frame"),
    ({"": MOT.replace("\n8,", "\n0,")}, "frames from 1 on, as in MOT"),
    (
        {"": "".join(f"{t + 1},1,0.2,0.3,0.1,0.9,1\n" for t in EVERY)},
        "8 of 8 boxes have a side under 1 px",
    ),
    ({"": "1,1,10,10,20,40,nan\n"}, r"'line 1': expected a finite confidence, found nan"),
    ({"c_1.txt": "0 0.5 0.5 0.1\n"}, r"'line 1': expected 5, 39, 56 numbers"),
    ({"c_1.txt": yolo(0), "c_2.txt": yolo_joints(1)}, "expected keypoints in all lines"),
    (
        {"c_1.txt": f"0.91{yolo(0)[1:]} 0\n"},
        r"'line 1, class': expected a whole number, found 0.91",
    ),
    ({"c_1.txt": f"{yolo(0)} nan\n"}, r"'line 1': expected a finite confidence, found nan"),
    (
        {"c_1.txt": f"{yolo(0)} 99999999999999999999\n"},
        "scores.*0..1, found 1 of 1 people have scores, over 10% of them above 10",
    ),
    ({"a_1.txt": f"{yolo(0)}\n", "b_1.txt": f"{yolo(0)}\n"}, "found several: a_1.txt, b_1.txt"),
    (
        {f"c_{t}.txt": f"{yolo(t)}\n" for t in EVERY},
        r"from 1 on, as in YOLO.*found 0\. Count frames from 1",
    ),
    ({"c_1.txt": "0 50 50 20 40\n"}, "shares of the image"),
    (change_of("mmpose demo", from_0), "from 1 on"),
    (
        change_of("mmpose demo", lambda c: c["instance_info"][0].update(frame_id=2)),
        "each frame once",
    ),
    (
        change_of("mmpose demo", lambda c: c["meta_info"]["keypoint_id2name"].pop("3")),
        "names of the joints",
    ),
    (
        change_of("mmpose demo", lambda c: c["instance_info"][3]["instances"][0].pop("keypoints")),
        r"\[0\].keypoints",
    ),
    (
        change_of("mmpose inferencer", lambda c: c[1]["instances"][0]["keypoint_scores"].pop()),
        r"shape \(16, 2\)",
    ),
    (
        change_of("coco", lambda c: c["annotations"][2].update(keypoints=[1] * 48)),
        r"annotations\[2\].*51 numbers.*each named joint",
    ),
    (
        change_of("coco of boxes", lambda c: c["annotations"][2].update(bbox=[1, 2, 3])),
        r"annotations\[2\].bbox",
    ),
    (
        change_of("coco of boxes", lambda c: c["annotations"][2].update(score=math.inf)),
        "'score': expected a finite confidence, found inf",
    ),
    (change_of("coco", two_skeletons), "categories.*same joints"),
    (change_of("coco", one_frame_twice), "each frame once"),
    (
        change_of("coco results of boxes", lambda c: c[0].update(score=10**400)),
        "'score': expected a finite confidence, found a number out of range",
    ),
    (
        change_of("coco results of boxes", lambda c: c[0].update(keypoints=flat(0))),
        "a box alone, 51 numbers a person",
    ),
    (PAGES | {"c_000000000007_keypoints.json": '{"people": [{"pose'}, "000007.*cut off"),
    ({"": json.dumps(results())[:-200]}, "cut off"),
    ({"": [*results(), *results(keypoints=[1.0] * 78)]}, "one joint order"),
    ({"": results(image_id="frame.jpg")}, "frame number"),
    ({"": results(image_id=-5)}, "frame number.*found -5"),
    ({"": [*results(), *results(image_id="b_000000.jpg")]}, "'b_'"),
    ({"": results(category_id=0)}, "0 in 8 of 8 results"),
    (
        {"": results(times(1, 1, 100))},
        "0..1, found 8 of 8 people have scores, over 10% of them above 10",
    ),
]
BY_HAND = [  # where the same detector would write the same file again
    ({"": {"people": 3}}, "--format"),
    ({"": {"keypoints": [{"0": [[1, 2, 0.5]]}], "skeleton": []}}, "keypoints, skeleton"),
    ({"": [{"image_id": "1.jpg", "keypoints": [1, 2]}]}, "joint orders"),
]


@pytest.mark.parametrize(("files", "words"), [*MISTAKES, *BY_HAND])
def test_what_does_not_keep_to_its_format_is_refused_by_file_and_place(files, words, tmp_path):
    place = write(tmp_path / "k", files)
    with raw_refuses(f"(?s){words}") as caught:
        read(place)
    assert str(caught.value).startswith(str(place))
    if (files, words) in BY_HAND:
        assert "Run the detector" not in str(caught.value)


def test_a_csv_without_its_header_is_not_taken_for_mots_lines(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("".join(f"1,{t + 1},10,20,30,40\n" for t in EVERY))
    with raw_refuses(r"without a header\. Write a first line track,frame,x,"):
        read(file)


def test_scores_a_little_over_1_are_read(tmp_path):
    assert read(write(tmp_path / "k", {"": results(times(1, 1, 3))})).n_persons == N


def test_identities_that_jump_are_other_people_and_nothing_else(tmp_path):
    (tmp_path / "k").write_text(
        "".join(f"{t + 1},{2**40 * (t % 3)},10,10,20,40\n" for t in range(9))
    )
    found = read(tmp_path / "k")
    assert [who.tolist() for who in found.identity[:4]] == [[0], [2**40], [2**41], [0]]


def test_the_rows_of_the_page_declare_every_format_as_it_is_read():
    rows = {row[0]: row for row in (form.row.strip("|").split("|") for form in FORMATS)}
    modules = {**vars(text_files), **vars(keypoints_json), **vars(mmpose)}
    for form in (form for form in modules.values() if type(form).__name__ == "LabelFormat"):
        names = [name for name in rows if form.name in name.split(", ")] or [
            name for name in rows if form.name in name
        ]
        assert len(names) == 1, f"{form.name}: expected one row of the page's table, found {names}"
        row = rows[names[0]]
        assert row[2].strip().startswith(str(form.first_frame)), form
        if form.box_form:
            assert f"`{form.box_form}`" in row[3], form


@pytest.mark.parametrize(
    ("stated", "scale"),
    [
        (SIZE, 1),
        ((320, 240), 2),
        ((1280, 960), 0.5),
        ((0, 0), 1),
        ((None, None), 1),
        ((213, 160), 3),
    ],
)
def test_people_in_pictures_of_another_scale_are_scaled_to_the_clip(stated, scale, tmp_path):
    width, height = stated
    canvas = {"canvas_width": width, "canvas_height": height} if width else {}
    frames = [people | canvas for people in PEOPLE]
    boxed = np.column_stack([np.reshape(box(0), (2, 2)), [0.8, 0.8]])
    given = [(coco_object(joints), body(0) if joints else boxed) for joints in (True, False)]
    for content, _ in given:
        for image in content["images"]:
            image |= {"width": width, "height": height}
    files = [({"": content}, expected) for content, expected in given]
    files += [({"": frames}, body(0)), ({f"c_{t}.json": frames[t] for t in EVERY}, body(0))]
    for number, (content, expected) in enumerate(files):
        found = read(write(tmp_path / f"{number}/k", content))
        np.testing.assert_allclose(found.keypoints[0][0], expected * [scale, scale, 1], rtol=0.004)
        assert any("scaled" in note for note in found.notes) == (scale != 1)


@pytest.mark.parametrize("stated", [(480, 640), (640, 360), (64, 64), ("wide", 3)])
def test_people_in_pictures_of_another_shape_are_refused(stated, tmp_path):
    content = coco_object()
    content["images"][3] |= {"width": stated[0], "height": stated[1]}
    with raw_refuses(r"images\[3\]"):
        read(write(tmp_path / "k", {"": content}))
    if stated == (480, 640):
        canvas = {"canvas_width": stated[0], "canvas_height": stated[1]}
        with raw_refuses("480 x 640") as caught:
            read(write(tmp_path / "k", {"": [people | canvas for people in PEOPLE]}))
        assert caught.value.reason == "keypoints_outside"


def with_joints(tool, change):
    """A tool's files of joints and boxes, with the joints (J, 3) of frames changed: by frame."""
    joints = [change(t, body(t)) for t in EVERY]
    if tool == "yolo":
        shares = [(points / [*SIZE, 1]).ravel().tolist() for points in joints]
        return {f"c_{t + 1}.txt": f"{yolo(t)} {' '.join(map(str, shares[t]))}\n" for t in EVERY}

    def move(frames):
        for t, points in enumerate(joints):
            frames[t]["instances"][0]["keypoints"] = points[:, :2].tolist()

    return change_of("mmpose inferencer", move)


def beside(t, points):
    return np.add(points, [50, 0, 0])


@pytest.mark.parametrize("tool", ["mmpose", "yolo"])
def test_joints_outside_the_boxes_of_each_tool_are_refused_and_of_some_people_noted(tmp_path, tool):
    right = with_joints(tool, lambda t, points: points)
    assert read(write(tmp_path / "right", right)).n_persons == N
    with raw_refuses(f"{ELSEWHERE}, first in frame 0. See it"):
        read(write(tmp_path / "beside", with_joints(tool, beside)))
    some = with_joints(tool, lambda t, points: beside(t, points) if t < 2 else points)
    doubts = read(write(tmp_path / "some", some)).doubts
    assert doubts == ["2 of 8 people's joints lie outside their box, first in frame 0"]
