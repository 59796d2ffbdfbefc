"""Boxes and joints that are no box or joint, or not where the file says: each costs its row, or the
file is refused.
"""

import json
import math

import numpy as np
import pytest

from tests.pipeline.clips.labels.made_detections import (
    CASES,
    EVERY,
    SIZE,
    N,
    body,
    box,
    read,
    write,
    yolo,
    yolo_files,
)
from tests.pipeline.datasets import made_people as made
from tests.pipeline.datasets.by_hand import standing
from tests.raising import raw_refuses

BOX_TOOLS = ("mot", "csv", "yolo", "coco of boxes", "coco results of boxes")


def copied(tool):
    return json.loads(json.dumps(CASES[tool].files[""]))


def pages(frames):
    """OpenPose's files of each frame's people (J, 3)."""
    return made.openpose([[made.person(points) for points in frame] for frame in frames])


def badly(tool, number):
    """A tool's files of boxes, of which the one in frame 2 has this number as its width."""
    if tool in ("mot", "csv"):
        lines = CASES[tool].files[""].splitlines()
        # the CSV has its last frame first, and w, h before x, y
        row, column = (2, 4) if tool == "mot" else (N - 2, 3)
        numbers = lines[row].split(",")
        numbers[column] = str(number)
        lines[row] = ",".join(numbers)
        return {"": "\n".join(lines)}
    if tool == "yolo":
        files = yolo_files(yolo)
        _, x, y, _, h = files["c_3.txt"].split()
        return files | {"c_3.txt": f"0 {x} {y} {number} {h}\n"}
    boxed = copied(tool)
    entry = boxed["annotations"][2] if tool == "coco of boxes" else boxed[4]  # a person's
    entry["bbox"][2] = number
    return {"": boxed}


@pytest.mark.parametrize("tool", BOX_TOOLS)
@pytest.mark.parametrize(
    ("number", "reason"),
    [(0, "degenerate_box"), (-0.5, "degenerate_box"), (math.nan, "label_not_finite")],
)
def test_one_bad_box_costs_its_row(tool, number, reason, tmp_path):
    found = read(write(tmp_path / "k", badly(tool, number)))
    assert found.frame_index.tolist() == [0, 1, *EVERY[3:]]
    assert found.bad_boxes == {reason: 1}


def with_corners(tool):
    """A tool's files of boxes that are two corners each, of somebody right of the middle."""
    boxes = [np.add(box(t), [200, 150, 200, 150]).tolist() for t in EVERY]
    if tool == "mot":
        return {"": "".join(f"{t + 1},7,{','.join(map(str, boxes[t]))},1\n" for t in EVERY)}
    if tool == "csv":
        rows = "".join(f"a,{t},{','.join(map(str, boxes[t]))}\n" for t in EVERY)
        return {"": f"track,frame,x,y,w,h\n{rows}"}
    if tool == "yolo":
        shares = [np.divide(one, [*SIZE, *SIZE]) for one in boxes]
        return yolo_files(lambda t: f"0 {' '.join(map(str, shares[t]))}")

    content = copied(tool)
    people = content["annotations"] if tool == "coco of boxes" else content[::2]
    for t in EVERY:
        people[t]["bbox"] = boxes[t]
    return {"": content}


@pytest.mark.parametrize("tool", BOX_TOOLS)
def test_boxes_that_are_two_corners_are_refused_in_every_format(tool, tmp_path):
    with raw_refuses(
        r"expected c?x c?y w h of each box, found 8 of 8 boxes look like two corners, x y x y"
    ):
        read(write(tmp_path / "k", with_corners(tool)))


def test_boxes_right_of_and_below_their_own_size_are_no_corners(tmp_path):
    lines = [f"{t + 1},7,{350 + t},{250 + t},{80},{200},1" for t in EVERY]
    assert read(write(tmp_path / "k", {"": "\n".join(lines)})).n_persons == N


def test_joints_in_crops_without_boxes_are_refused(tmp_path):
    corner = [[body(t) - [*body(t)[:, :2].min(axis=0) - 3, 0]] * 2 for t in EVERY]
    for people in corner:
        people[1] = people[1] + [1, 0, 0]
    with raw_refuses("16 of 16 people in a frame are at its upper left corner"):
        read(write(tmp_path / "corner", pages(corner)))


def test_somebody_who_stands_at_the_corner_alone_is_read_with_a_note(tmp_path):
    corner = [[body(t) - [*body(t)[:, :2].min(axis=0) - 3, 0]] for t in EVERY]
    found = read(write(tmp_path / "corner", pages(corner)))
    assert found.n_persons == N
    assert found.doubts == [
        "8 of 8 people are at the upper left corner of the image, first in frame 0"
    ]


def test_somebody_who_fills_the_image_from_its_corner_on_is_read(tmp_path):
    near = [[standing("coco", 180, 220, 0.9, 10 + t / 10)] for t in EVERY]
    found = read(write(tmp_path / "k", pages(near)))
    assert found.n_persons == N


@pytest.mark.parametrize("tool", ["openpose", "coco results", "coco", "mmpose inferencer"])
def test_a_joint_at_the_corner_is_none_though_it_has_a_score(tool, tmp_path):
    at_corner = [np.where(np.arange(17)[:, None] == 9, [0, 0, 0.875], body(t)) for t in EVERY]
    if tool == "openpose":
        files = pages([[points] for points in at_corner])
    else:
        content = copied(tool)
        entries = content["annotations"] if tool == "coco" else content
        for entry, points in zip(entries, at_corner, strict=False):
            if tool == "mmpose inferencer":
                entry["instances"][0]["keypoints"] = points[:, :2].tolist()
            else:
                entry["keypoints"] = points.ravel().tolist()
        files = {"": content}
    found = read(write(tmp_path / "k", files))
    scores = np.concatenate(found.keypoints)[..., 2]
    assert not scores[:, 9].any()
    assert (np.delete(scores, 9, axis=1) > 0).all()
    assert "8 joints at (0, 0) not used: no joint is there" in found.notes


def test_only_sure_joints_of_the_body_are_compared_with_boxes(tmp_path):
    guess = np.random.default_rng(0).uniform([600, 0, 0.05], [900, 400, 0.9], (8, 110, 3))
    instances = []
    for t in EVERY:
        joints = standing("coco_feet", 200 + 4 * t, 240)
        joints[11:, :2] += 300  # below the image's border: the network guesses
        joints[11:, 2] = 0.1
        points = np.concatenate([joints, guess[t]])
        instances.append(
            {
                "keypoints": points[:, :2].tolist(),
                "keypoint_scores": points[:, 2].tolist(),
                "bbox": [list(box(t))],
            }
        )
    content = [{"frame_id": t, "instances": [one]} for t, one in enumerate(instances)]
    found = read(write(tmp_path / "k", {"": content}))
    assert not any("box" in text for text in (*found.notes, *found.doubts))
