"""Left and right that a detector has exchanged: hand-made walks with planted exchanges."""

import re

import numpy as np
import pytest

from benchmarks.motions import record
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.clips.files import MADE_BY
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.sides import put_sides_right
from pipeline.datasets.shared.clips.people import Rules, people
from pipeline.errors import RawDataError
from pipeline.people.skeletons import convert, opposite_joints
from tests.pipeline.datasets.by_hand import coco, write_coco, write_video

N = 120
OPPOSITE = opposite_joints("coco")
ARMS, LEGS = [7, 8, 9, 10], [13, 14, 15, 16]
STRETCHES = ([7], [30, 31], [50, *range(60, 85)], [118, 119])


def walk(width=40.0, swing=4.0):
    """N frames (N, 17, 3) px of somebody 180 px tall who walks 2 px a frame. width: between the
    shoulders; swing: of hands and feet, to and fro.
    """
    height = [-70, -74, -74, -72, -72, -50, -50, -20, -20, 5, 5, 0, 0, 45, 45, 90, 90]
    side = np.array([0, 0.1, -0.1, 0.3, -0.3, *[0.5, -0.5] * 3, *[0.3, -0.3] * 3])
    ends = np.array([0, 0, 0, 0, 0, 0, 0, -0.5, 0.5, -1, 1, 0, 0, 0.5, -0.5, 1, -1])
    t = np.arange(N)[:, None]
    x = 200 + 2 * t + width * side + swing * ends * np.sin(t / 4)
    y = np.broadcast_to(200 + np.array(height), x.shape)
    noise = np.random.default_rng(0).normal(0, 1.0, (N, 17, 2))
    return np.concatenate([np.stack([x, y], axis=-1) + noise, np.full((N, 17, 1), 0.9)], axis=-1)


def exchange(keypoints, frames, joints):
    changed = keypoints.copy()
    for joint in joints:
        changed[frames, joint] = keypoints[frames, OPPOSITE[joint]]
    return changed


def put_right(keypoints, fps=25.0):
    """Of a still camera."""
    frames = np.arange(len(keypoints))
    return put_sides_right(keypoints.copy(), frames, frames / fps, "coco", {})[:3]


@pytest.mark.promise("detected sides")
@pytest.mark.parametrize("frames", STRETCHES, ids=lambda frames: f"{len(frames)} frames")
@pytest.mark.parametrize("joints", [range(17), ARMS, LEGS], ids=["all", "arms", "legs"])
def test_exchanged_sides_are_put_right_and_no_other_frame_changes(frames, joints):
    true = walk()
    found, is_exchanged, _ = put_right(exchange(true, frames, joints))
    np.testing.assert_array_equal(found[:, 5:], true[:, 5:])  # eyes and ears are close together
    assert np.flatnonzero(is_exchanged).tolist() == list(frames)


def test_a_walk_that_is_seen_from_the_side_stays_as_detected():
    """Legs and arms cross at every step; the shoulders are a few px apart."""
    true = walk(width=10.0, swing=35.0)
    found, *_ = put_right(true)
    np.testing.assert_array_equal(found[:, 5:], true[:, 5:])


SPIN = "spin, 2 turns/s"


@pytest.mark.promise("detected sides")
@pytest.mark.parametrize(
    ("motion", "fps"),
    [
        *((SPIN, fps) for fps in (60, 25, 20)),
        *(("walk, 90 degrees", fps) for fps in (25, 12.5, 10, 5)),
        *(("run past", fps) for fps in (15, 12.5)),
        ("turn about in 0.5 s", 12.5),
        ("legs cross", 10),
    ],
)
def test_people_whom_nobody_exchanged_stay_as_detected_at_any_rate(motion, fps):
    clip = record(motion, fps, seed=0)
    found, is_exchanged, is_undecided = put_right(clip.keypoints, fps)
    np.testing.assert_array_equal(found[:, 5:], clip.keypoints[:, 5:])
    assert not is_exchanged.any()
    assert not is_undecided.any()


def test_what_somebody_may_do_between_two_frames_decides_nothing():
    """In 0.2 s a person turns about, and hands and feet get to each other's places."""
    true = walk()
    for fps in (25, 5):
        found, is_exchanged, _ = put_right(exchange(true, [30, 31], range(17)), fps)
        assert is_exchanged.any() == (fps == 25)
    np.testing.assert_array_equal(found, exchange(true, [30, 31], range(17)))


@pytest.mark.parametrize("n_exchanged", [50, 70])
def test_of_a_person_half_of_whose_frames_are_exchanged_none_changes_and_they_are_counted(
    n_exchanged,
):
    """From motion alone, 42 % and 58 % look the same."""
    detected = exchange(walk(), np.arange(n_exchanged), range(5, 17))
    found, is_exchanged, is_undecided = put_right(detected)
    np.testing.assert_array_equal(found, detected)
    assert not is_exchanged.any()
    assert is_undecided.sum() == 50


def test_a_turning_camera_and_missing_frames_hide_no_exchange():
    """The camera moves by the shoulders' width in each frame, so that a still camera would take
    each right shoulder for the left one of the frame before.
    """
    true = walk()
    shift = 30.0
    camera = {t: np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1.0]]) for t in range(1, N)}
    true[..., 0] += shift * np.arange(N)[:, None]
    rows = np.delete(np.arange(N), [20, 21, 22, 59])
    frames = np.arange(50, 75)
    keypoints = exchange(true, frames, range(17))[rows]
    found, *_ = put_sides_right(keypoints, rows, rows / 25, "coco", camera)
    np.testing.assert_array_equal(found[:, 5:], true[rows, 5:])


def test_unseen_joints_and_a_single_frame_decide_nothing():
    keypoints = walk()
    keypoints[:, 5:] = 0  # only the face
    for few in (keypoints, walk()[:1], walk()[:0]):
        found, is_exchanged, _ = put_right(few)
        np.testing.assert_array_equal(found, few)
        assert not is_exchanged.any()


RIGHT = ["left and right put right: person 0 in 2 of 120 frames"]
UNDECIDED = ["sides undecided in 50 frames, which stay as detected"]


@pytest.mark.parametrize(
    ("n_exchanged", "option", "by_detect", "notes"),
    [
        (2, None, True, RIGHT),
        (2, None, False, []),
        (2, True, False, RIGHT),
        (2, False, True, []),
        (50, None, True, UNDECIDED),
    ],
)
def test_sides_of_keypoints_by_detect_are_put_right_and_of_other_tools_if_asked(
    tmp_path, n_exchanged, option, by_detect, notes
):
    true = walk()
    detected = exchange(true, np.arange(30, 30 + n_exchanged), range(5, 17))
    write_video(tmp_path / "a.mp4", N, size=(500, 320), step=0)
    description = MADE_BY if by_detect else ""
    write_coco(tmp_path / "keypoints/a.mp4.json", coco(detected), description=description)
    report = Accounting()
    reader = datasets.get("videos", put_sides_right=option)
    (track,) = reader.tracks(tmp_path, "train", report=report)
    (account,) = report
    expected = true if notes == RIGHT else detected
    found = convert(track.kp_2d.astype(np.float64), source="spin49", target="coco")
    np.testing.assert_allclose(found[:, 5:, :2], expected[track.frame_index, 5:, :2], atol=0.01)
    assert [note for note in account.notes if re.search("left and right|sides", note)] == notes


@pytest.mark.parametrize(("ticks", "is_right"), [(1, True), (8, False)])
def test_a_clip_of_uneven_times_is_put_right_by_its_clock(ticks, is_right):
    """At 40 ticks a second: 1 / 40 s from frame to frame, or 0.2 s, in which anybody turns."""
    true = walk()
    detected = exchange(true, [30, 31], range(5, 17))
    frames = np.arange(N)
    start = np.arange(N + 1)
    identity = ByFrame(np.zeros(N, np.int64), start)
    keypoints = ByFrame(detected.copy(), start)
    no_hands = np.zeros((N, 0, 3))
    detections = Detections("coco", frames, keypoints, identity, frames.tolist(), no_hands)
    rules = Rules(min_frames=1, put_sides_right=True)
    account = VideoAccount("a.mp4")
    (person,) = people(detections, account, rules, max_gap=40, clock=ticks * frames, fps=40.0)
    expected = true if is_right else detected
    np.testing.assert_allclose(person.keypoints[:, 5:], expected[:, 5:])


@pytest.mark.parametrize(
    "camera", [[0] * 8, [1e300, 0, 0, 0, 1, 0, 1e300, 0], [1, 0, 1.5, 0, 1, 0, 0, 0]]
)
def test_a_motion_that_no_camera_has_is_refused_with_its_frame(tmp_path, camera):
    write_video(tmp_path / "a.mp4", N, size=(500, 320), step=0)
    labels = coco(walk())
    labels["images"][41]["camera"] = camera
    write_coco(tmp_path / "keypoints/a.mp4.json", labels, description=MADE_BY)
    with pytest.raises(RawDataError, match=r"a\.mp4\.json: 'frame 41: camera': .* detect` again"):
        list(datasets.get("videos").tracks(tmp_path, "train"))


def test_each_person_s_share_of_exchanged_sides_is_noted(tmp_path):
    """Two people, of whom one is exchanged in two frames: the other one's track has none."""
    true = walk()
    other = true + np.array([250, 0, 0]) * (true[..., 2:] > 0)
    labels = coco(exchange(true, [30, 31], range(17)))
    more = coco(other)["annotations"]
    labels["annotations"] = [
        {**person, "id": i, "track_id": 1 + (i >= N)}
        for i, person in enumerate([*labels["annotations"], *more])
    ]
    write_video(tmp_path / "a.mp4", N, size=(800, 320), step=0)
    write_coco(tmp_path / "keypoints/a.mp4.json", labels, description=MADE_BY)
    report = Accounting()
    assert len([*datasets.get("videos").tracks(tmp_path, "train", report=report)]) == 2
    (account,) = report
    (note,) = [note for note in account.notes if "left and right" in note]
    assert note == "left and right put right: person 1 in 2 of 120 frames"
