"""Exports of annotation tools: names of joints and pictures as CVAT, Roboflow and others write
them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.files.formats.detections import read_detections
from pipeline.files.formats.joint_spellings import joint_called
from pipeline.skeletons import joint_names
from tests.pipeline.files.test_detections import COCO_NAMES, SIZE, N, coco_object


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("RHip", "rhip"),
        ("left-shoulder", "lshoulder"),
        ("Left Shoulder", "lshoulder"),
        ("leftKnee", "lknee"),
        ("r_wrist", "rwrist"),
        ("LBigToe", "OP LBigToe"),
        ("right_small_toe", "OP RSmallToe"),
        ("Nose", "nose"),
        ("tail", None),
    ],
)
def test_a_joint_is_known_in_any_usual_spelling(name: str, ours: str | None) -> None:
    assert joint_called(name) == ours


def test_names_of_one_letter_for_a_side_give_the_same_joints(tmp_path: Path) -> None:
    content = coco_object()
    spelled = [name.replace("left_", "L").replace("right_", "R") for name in COCO_NAMES]
    content["categories"] = [{"id": 1, "name": "person", "keypoints": spelled}]
    file = tmp_path / "clip.json"
    file.write_text(json.dumps(content))
    found = read_detections(file, "clip", lambda: [SIZE])
    assert found.skeleton == "coco"
    assert found.keypoints[0].shape[-2:] == (len(joint_names("coco")), 3)


def test_frames_of_roboflow_are_those_of_the_original_names(tmp_path: Path) -> None:
    content = coco_object()
    for t, image in enumerate(content["images"]):
        image["file_name"] = f"frame_{t:06d}_jpg.rf.a1b2c3d4e5f60718.jpg"
        image["extra"] = {"name": f"frame_{t + 40:06d}.jpg"}
    file = tmp_path / "clip.json"
    file.write_text(json.dumps(content))
    assert np.array_equal(
        read_detections(file, "clip", lambda: [SIZE]).frame_index, np.arange(N) + 40
    )
