"""RTMPose by ONNX Runtime, on graphs whose outputs are planted: constants, or computed from what
the picture shows.

The graphs find blobs of light: the detector puts a box about the centroid of a picture's, the pose
network joints about that of a crop's. So every number of the way from picture to network and back
is known in closed form.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pipeline.clips import detectors
from pipeline.clips.detectors import graphs as onnx_graphs
from pipeline.clips.detectors import rtmpose
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.clips.labels.detections import read_results
from pipeline.steps.detection.plan import plan_detection
from tests.pipeline.clips.blobs import (
    CONFIDENCES,
    CROP,
    HALF,
    SHIFTS,
    SIDE,
    blob_detector,
    blob_pose,
    constant,
    scene,
)
from tests.pipeline.clips.bright import write_clip
from tests.pipeline.datasets.by_hand import encode
from tests.raising import config_refuses

CPU = "CPUExecutionProvider"


@pytest.fixture(scope="module")
def find(graphs):
    function = RTMPose(**graphs).load("cpu")
    return lambda image: function([image])[0]


# --------------------------------------------------------------------------------------------------
# coordinates


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(*[st.integers(50, 120)] * 2), at=st.tuples(*[st.floats(0.35, 0.65)] * 2))
def test_a_person_is_where_the_picture_shows_it_to_a_tenth_of_a_pixel(find, size, at):
    centre = np.array(at) * (np.array(size) - 1)
    people = find(scene(size, tuple(centre)))
    assert people.scores == pytest.approx([0.9])
    # of the letterbox, which has whole pixels
    scale = np.floor(np.array(size) * SIDE / max(size) + 0.5) / size
    (box,) = people.boxes
    half = np.array([HALF, 2 * HALF]) / scale
    corners = np.stack([centre - half, centre + half]) + 0.5
    assert_allclose(box, np.clip(corners, 0, size).ravel(), atol=0.1)
    px = min(CROP / (1.25 * (box[2:] - box[:2])))  # of the crop, a pixel of the picture
    expected = centre + SHIFTS[:, None] / px
    assert_allclose(people.keypoints[0, :, :2], expected, atol=0.1)
    assert_allclose(people.keypoints[0, :, 2], np.minimum(CONFIDENCES, 1), atol=0.01)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(33, 700), st.integers(33, 700)),
    low=st.tuples(*[st.floats(-0.2, 0.7)] * 2),
    side=st.tuples(*[st.floats(0.25, 0.9)] * 2),
)
def test_planted_boxes_and_joints_come_back_in_the_pictures_pixels(size, low, side):
    """Closed forms, in float64: letterbox and back, the box's crop and back; at the border, too."""
    scaled = [int(one * min(SIDE / size[0], 64 / size[1]) + 0.5) for one in size]
    true = np.array([*(np.array(low) * size), *((np.array(low) + side) * size)])
    padded, scale = rtmpose._letterbox(np.full((*size[::-1], 3), 200, np.uint8), (SIDE, 64))
    assert padded.shape == (64, SIDE, 3)
    assert (padded[: scaled[1], : scaled[0]] == 200).all()
    assert (padded[scaled[1] :] == 114).all()
    assert (padded[:, scaled[0] :] == 114).all()
    assert_allclose(true * np.tile(np.array(scaled) / size, 2) / np.tile(scale, 2), true)
    (affine,) = rtmpose._crop_affines(true[None], CROP)
    corners = np.array([[true[0], true[1], 1], [true[2], true[3], 1]]) @ affine.T
    sides = corners[1] - corners[0]
    assert_allclose((corners[0] + corners[1]) / 2, np.array(CROP) / 2)
    assert_allclose((sides * 1.25 / CROP).max(), 1)
    assert sides[0] / sides[1] == pytest.approx((true[2] - true[0]) / (true[3] - true[1]))
    bins = np.array([[3, 383], [0, 511], [200, 17]])
    across, down = np.zeros((1, 3, 384)), np.zeros((1, 3, 512))
    across[0, range(3), bins[:, 0]], down[0, range(3), bins[:, 1]] = (
        [0.5, 0.25, 0.75],
        [0.4, 0.8, 0.9],
    )
    points = rtmpose._read_joints(across, down, affine[None])[0].astype(np.float64)
    back = np.hstack([points[:, :2], np.ones((3, 1))]) @ affine.T
    assert_allclose(back, bins / 2, atol=0.01)
    assert_allclose(points[:, 2], [0.4, 0.25, 0.75])


def test_a_person_is_found_once_the_surest_first():
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 9], [100, 0, 110, 10], [0, 0, 10, 4], [5, 50, 6, 51]], float
    )
    scores = np.array([0.5, 0.9, 0.95, 0.6, 0.1])
    keep = rtmpose._suppress_overlaps(boxes, scores, min_score=0.3, max_overlap=0.45)
    assert keep.tolist() == [2, 1, 3]  # of the second's overlaps, 0.9 is too much and 4 / 9 is not
    assert rtmpose._suppress_overlaps(boxes, scores, min_score=0.3, max_overlap=0.4).tolist() == [
        2,
        1,
    ]
    assert (
        rtmpose._suppress_overlaps(boxes, scores * 0, min_score=0.3, max_overlap=0.4).tolist() == []
    )


def test_colours_and_scales_are_those_of_the_training():
    image = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    yolox, rtmdet = (
        rtmpose._detector_input(image, normalised=flag)[0, :, 0, 0] for flag in (False, True)
    )
    assert_allclose(yolox, [30, 20, 10])
    assert_allclose(
        rtmdet, [(30 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395]
    )
    affines = rtmpose._crop_affines(np.array([[1.0, 1, 3, 3]]), (8, 8))
    pose = rtmpose._pose_input(image, affines, (8, 8))[0, :, 4, 4]
    assert_allclose(pose, rtmdet[::-1], rtol=1e-6)


# -----------------------------------------------------------------------------------------------
# what a user meets


def test_people_are_the_same_in_a_batch_as_alone_and_nobody_is_in_an_empty_image(graphs):
    detect = detectors.get("rtmpose", **graphs).load("cpu")
    images = [scene((97, 131), (40, 60)), np.full((97, 131, 3), 128, np.uint8)]
    alone, (nobody,) = (detect([image]) for image in images)
    (people, empty) = detect(images)
    for part, same in zip(people, alone[0], strict=True):
        assert_allclose(part, same, rtol=1e-3, atol=0.01)
    assert len(people.boxes) and not len(nobody.boxes) and not len(empty.boxes)


def test_people_of_a_crowd_are_computed_by_any_graph_of_poses(graphs, tmp_path):
    """One whose batch is fixed at 1 gives the same; more people than go together are all there."""
    x, y = (grid.ravel() * 20.0 for grid in np.meshgrid(range(5), range(5)))
    dets = np.stack([x, y, x + 15, y + 15, np.linspace(0.9, 0.5, 25)], axis=1)[None]
    crowd = constant(
        tmp_path / "yolox_crowd.onnx", {"dets": dets, "labels": np.zeros((1, 25), np.int64)}
    )
    poses = [graphs["weights"], str(blob_pose(tmp_path / "one.onnx", batch=1))]
    image = scene((SIDE, SIDE), (50, 50), sigma=20)
    batched, single = (
        RTMPose(weights=pose, detector=str(crowd)).load("cpu")([image])[0] for pose in poses
    )
    assert batched.keypoints.shape == (25, 17, 3)
    assert_allclose(batched.keypoints, single.keypoints, atol=1e-3)
    assert_allclose(batched.scores, np.linspace(0.9, 0.5, 25), rtol=1e-6)


def test_a_box_outside_of_the_picture_is_no_person(graphs, tmp_path):
    """Half of a wide picture's letterbox is padding."""
    dets = np.array([[[5, 60, 40, 90, 0.9], [90, 10, 99, 30, 0.8], [97, 10, 99, 30, 0.7]]])
    detector = constant(
        tmp_path / "yolox.onnx", {"dets": dets, "labels": np.zeros((1, 3), np.int64)}
    )
    people = RTMPose(weights=graphs["weights"], detector=str(detector)).load("cpu")(
        [scene((192, 96), (50, 50))]
    )[0]
    assert_allclose(people.boxes, [[180, 20, 192, 60]])
    assert np.isfinite(people.keypoints).all()


def test_rtmdets_input_is_normalised_by_its_name_or_the_option(graphs, tmp_path):
    detector = blob_detector(tmp_path / "rtmdet_nano.onnx", normalised=True)
    image = scene((SIDE, SIDE), (50, 50))
    by_name = RTMPose(weights=graphs["weights"], detector=str(detector))
    assert len(by_name.load("cpu")([image])[0].boxes) == 1
    identity = by_name.identity()
    unnamed = detector.rename(tmp_path / "end2end.onnx")
    with config_refuses("family=yolox"):
        RTMPose(weights=graphs["weights"], detector=str(unnamed)).identity()
    said = RTMPose(weights=graphs["weights"], detector=str(unnamed), family="rtmdet")
    assert said.identity() == identity
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(unnamed, "20230831/rtmdet_nano/end2end.onnx")
        archive.writestr("20230831/rtmdet_nano/pipeline.json", "{}")
    zipped = RTMPose(weights=graphs["weights"], detector=str(tmp_path / "a.zip"))
    assert zipped.identity() == identity


def test_a_device_that_is_not_there_is_refused_and_one_that_is_not_used_named(
    graphs, monkeypatch, capsys
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with config_refuses("onnxruntime-gpu"):
        RTMPose(**graphs).load("cuda")
    RTMPose(**graphs).load("auto")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU]
    )
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        config_refuses("cuda:1"),
    ):
        RTMPose(**graphs).load("cuda:1")  # an onnxruntime that says so, and cannot
    monkeypatch.setattr(onnx_graphs, "GPUS", Path("/"))
    onnx_graphs._warn_of_cpu.cache_clear()
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        RTMPose(**graphs).load("auto")  # two graphs
    assert capsys.readouterr().err.count("the CPU, although this machine has a GPU") == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with config_refuses(r"onnxruntime.*vibe-pipeline\[clips\]"):
        RTMPose(**graphs).load("cpu")


# --------------------------------------------------------------------------------------------------
# commands


def test_clips_are_detected_by_the_command(graphs, tmp_path, types, types_json):
    encode(tmp_path / "raw/a.avi", [scene((120, 96), (40 + 4 * frame, 45)) for frame in range(6)])
    of_graphs = f"--weights {graphs['weights']} --set rtmpose.detector={graphs['detector']}"
    detect = f"detect RAW --out TMP/keypoints --device cpu --detector rtmpose {of_graphs}"
    types(detect, "6 persons in 6 frames")
    results = read_results(tmp_path / "keypoints/a.avi.json")
    x = [keypoints[0][8, 0] for keypoints in results.keypoints]
    assert_allclose(x, 40 + 4 * np.arange(6), atol=0.5)
    info = json.loads((tmp_path / "keypoints/a.avi.json").read_text())["info"]
    assert info["options"] == RTMPose(**graphs).identity()
    assert info["weights"] == RTMPose(**graphs).terms()
    types(detect, "1 clip up to date")
    assert types_json(f"{detect} --set rtmpose.min_score=0.95")["persons"] == 0
    prepare = "prepare videos --raw RAW --cache CACHE --set rtmpose.weights=no.onnx"
    types(prepare, "Or name another --detector", code=2)


def test_the_printed_command_detects_again_with_the_same_options(tmp_path, graphs, types):
    place = tmp_path / "raw", tmp_path / "out", RTMPose(**graphs, every=2)
    write_clip(tmp_path / "raw/a.mp4", 3)
    types(plan_detection(*place).retry_command.partition(" -m pipeline ")[2])
    assert plan_detection(*place).up_to_date
