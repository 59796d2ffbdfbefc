"""Exports of annotation tools: names of joints and pictures as CVAT, Roboflow and others write
them.
"""

import numpy as np
import pytest

from pipeline.errors import RawDataError
from pipeline.people.joint_spellings import joint_called
from pipeline.people.skeletons import joint_names
from tests.pipeline.clips.labels.made_detections import N, coco_object, read, write
from tests.pipeline.datasets.by_hand import standing


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("RHip", "rhip"),
        ("Left-Shoulder", "lshoulder"),
        ("leftKnee", "lknee"),
        ("r_wrist", "rwrist"),
        ("LBigToe", "OP LBigToe"),
        ("right_small_toe", "OP RSmallToe"),
        ("Nose", "nose"),
        ("tail", None),
    ],
)
def test_a_joint_is_known_in_any_usual_spelling(name, ours):
    assert joint_called(name) == ours


def test_frames_of_roboflow_are_those_of_the_original_names(tmp_path):
    content = coco_object()
    for t, image in enumerate(content["images"]):
        image["file_name"] = f"frame_{t:06d}_jpg.rf.a1b2c3d4e5f60718.jpg"
        image["extra"] = {"name": f"frame_{t + 40:06d}.jpg"}
    found = read(write(tmp_path / "clip.json", {"": content}))
    assert found.frame_index.tolist() == list(range(40, 40 + N))


# --------------------------------------------------------------------------------------------------
# CVAT


def test_people_between_cvats_key_frames_are_told(tmp_path):
    content = coco_object()
    for t, entry in enumerate(content["annotations"]):
        entry["attributes"] = {"track_id": 3, "keyframe": t % 4 == 0, "occluded": False}
    detections = read(write(tmp_path / "clip.json", {"": content}))
    assert {int(one) for frame in detections.identity for one in frame} == {3}
    told = f"{N - N // 4} of {N} people are between CVAT's key frames: interpolated, not labelled"
    assert told in detections.notes


def test_tracks_that_cvat_wrote_without_joints_are_named(tmp_path):
    content = coco_object()
    content["annotations"][5] |= {"keypoints": [], "attributes": {"track_id": 3}}
    with pytest.raises(RawDataError, match=r"older versions of CVAT"):
        read(write(tmp_path / "clip.json", {"": content}))


# --------------------------------------------------------------------------------------------------
# Sports2D


LEG = ("Hip", "Knee", "Ankle", "BigToe", "SmallToe", "Heel")
ARM = ("Shoulder", "Elbow", "Wrist")
HALPE_26 = ["Hip", *(f"{side}{joint}" for side in "RL" for joint in LEG), "Neck", "Head", "Nose"]
HALPE_26 += [f"{side}{joint}" for side in "RL" for joint in ARM]


def joint_px(t, j):
    """Of somebody who stands, and walks 4 px a frame."""
    name = {"Hip": "MidHip", "Head": "headtop"}.get(HALPE_26[j], HALPE_26[j]).lower()
    names = [joint.removeprefix("OP ").lower() for joint in joint_names("halpe_26")]
    x, y, _ = standing("halpe_26", 100 + 4 * t, 150, scale=3)[names.index(name)]
    return float(x), float(y)


def trc(rows, rate=30.0):
    """A file as Sports2D 0.8 writes it: Units m, though in px."""
    joints = "\t\t\t".join(HALPE_26)
    return (
        "PathFileType\t4\t(X/Y/Z)\twalk_Sports2D_px_person00.trc\n"
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\t"
        "OrigNumFrames\n"
        f"{rate}\t{rate}\t{N}\t{len(HALPE_26)}\tm\t{rate}\t0\t{N}\n"
        f"Frame#\tTime\t{joints}\t\t\t\n"
        "\t\tX1\tY1\tZ1\n" + rows
    )


def trc_rows(first, rate, scale=1.0):
    """Rows from the frame `first` on, numbered from 0. In row 2 the nose is missing, in row 3
    everybody.
    """
    rows = []
    for t in range(N):
        values = []
        for j in range(len(HALPE_26)):
            x, y = joint_px(first + t, j)
            values += [f"{scale * x}", f"{scale * y}", "0.0"]
        if t == 2:
            nose = 3 * HALPE_26.index("Nose")
            values[nose : nose + 3] = ["", "", ""]
        if t == 3:
            values = ["0.0"] * len(values)
        rows.append("\t".join([str(t), f"{(first + t) / rate:.3f}", *values]))
    return "\n".join(rows) + "\n"


PERSON = "walk_Sports2D_px_person0"


@pytest.mark.parametrize("rate", [30.0, 29.97, 240.0])
def test_frames_of_sports2d_are_counted_by_time(tmp_path, rate):
    people = {f"{PERSON}{k}.trc": trc(trc_rows(40 + 4 * k, rate), rate) for k in (0, 1)}
    metres = {"walk_Sports2D_m_person00.trc": trc(trc_rows(40, rate, scale=0.01))}
    detections = read(write(tmp_path / "walk", people | metres))
    expected = {0: {*range(40, 48)} - {43}, 1: {*range(44, 52)} - {47}}
    for identity, frames in expected.items():
        seen = [
            int(frame)
            for frame, identities in zip(detections.frame_index, detections.identity, strict=True)
            if identity in identities
        ]
        assert set(seen) == frames

    ankle = list(detections.skeleton).index("lankle")
    nose = list(detections.skeleton).index("nose")
    j = HALPE_26.index("LAnkle")
    np.testing.assert_allclose(detections.keypoints[0][0, ankle], [*joint_px(40, j), 1])
    assert detections.keypoints[2][0, nose].tolist() == [0, 0, 0]  # missing
    assert "joints of TRC files have no confidence: 1 where there is a joint" in detections.remarks
    # the only line about a tool with more joints than are read
    assert detections.unread == {"joints not read": dict.fromkeys(("Hip", "Neck", "Head"), 14)}


def test_one_file_of_sports2d_is_a_clips_file(tmp_path):
    assert read(write(tmp_path / "walk.trc", {"": trc(trc_rows(0, 30))})).n_persons == N - 1


def test_a_trc_file_without_a_number_is_another_person_than_number_0(tmp_path):
    names = (f"{PERSON}0.trc", "walk_Sports2D_px_child.trc")
    files = dict.fromkeys(names, trc(trc_rows(0, 30)))
    detections = read(write(tmp_path / "walk", files))
    assert [*detections.names] == ["0", "walk_Sports2D_px_child"]
    assert sorted(detections.identity[0].tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (trc(trc_rows(0, 30, scale=0.01)), "found positions in space, or in m. Take Sports2D's"),
        (trc("0\t0.0\t1\t2\n"), "'line 6': expected 68 fields, found 4 fields"),
        (trc(trc_rows(0, 30), rate=0), "'line 3': expected frames per second, found 0"),
        (
            trc(trc_rows(0, 60)),
            "'Time': expected one row a frame, found two of frame 1 at 30 frames a second",
        ),
        ("PathFileType\n", "expected a TRC file: text, with five lines of header, found 1 lines"),
        (trc("0\t\t" + "\t".join(["1"] * 66)), "'Time': expected a time in s in each row"),
    ],
)
def test_other_and_damaged_trc_files_are_refused(tmp_path, text, words):
    file = write(tmp_path / "walk.trc", {"": text})
    with pytest.raises(RawDataError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
