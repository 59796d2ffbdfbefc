"""Tracks that continue on another person: hand-made walks with planted exchanges."""

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.clips.files import MADE_BY
from pipeline.clips.tracks.switches import find_switches
from pipeline.people.skeletons import joint_names
from tests.pipeline.datasets.by_hand import coco, standing, write_coco, write_video

N = 150
MIDDLE = 75


def walk(speed, x=250.0, height=160, seed=0):
    """N frames (N, 17, 3) of somebody who is at x px in the middle, with a speed in px a frame."""
    rng = np.random.default_rng(seed)
    t = np.arange(N)
    keypoints = np.stack([standing("coco", 0, 0, scale=height / 40)] * N)
    keypoints[..., 0] += (x + speed * (t - MIDDLE))[:, None]
    keypoints[..., 1] += 160
    is_arm_or_leg = np.array(["wrist" in n or "ankle" in n for n in joint_names("coco")])
    keypoints[:, is_arm_or_leg, 0] += 8 * np.sin(t / 4 + seed)[:, None]
    keypoints[..., :2] += rng.normal(0, 1, (N, 17, 2))
    return keypoints


def exchanged(one, other, frame):
    first = np.concatenate([one[:frame], other[frame:]])
    return first, np.concatenate([other[:frame], one[frame:]])


def find(*people, hidden=(), camera=None):
    """The frames that begin another person. hidden: frames without the last person."""
    frames = [np.arange(N) for _ in people]
    frames[-1] = np.setdiff1d(frames[-1], hidden)
    tracks = [(index, one[index]) for index, one in zip(frames, people, strict=True)]
    switches = find_switches(tracks, camera or {})
    return [index[rows].tolist() for index, rows in zip(frames, switches, strict=True)]


@pytest.mark.promise("switches")
@pytest.mark.parametrize("frame", [MIDDLE - 6, MIDDLE, MIDDLE + 4])
@pytest.mark.parametrize("speed", [-1.5, 0.0, 2.5])
def test_two_people_who_are_exchanged_where_they_cross_are_cut_there(frame, speed):
    people = exchanged(walk(1.5, 250), walk(speed, 264, seed=1), frame)
    (first,), (second,) = find(*people)
    assert abs(first - frame) <= 2
    assert abs(second - frame) <= 2


def test_an_exchange_while_one_is_hidden_is_found():
    hidden = range(MIDDLE - 2, MIDDLE + 3)
    first, second = find(*exchanged(walk(1.5), walk(-1.5, seed=1), MIDDLE), hidden=hidden)
    assert len(first) == len(second) == 1
    assert abs(first[0] - MIDDLE) <= 5


def test_a_track_that_continues_on_somebody_else_far_away_is_cut():
    jumping, _ = exchanged(walk(0.5, 150), walk(0.5, 350, height=120, seed=1), MIDDLE)
    assert find(jumping) == [[MIDDLE]]


@pytest.mark.promise("switches")
@pytest.mark.parametrize("speed", [-3.0, -1.5, 0.0, 1.4])
def test_people_who_cross_jump_turn_or_are_detected_badly_once_are_not_cut(speed):
    one, other = walk(1.5), walk(speed, 258, seed=1)
    one[30:44, :, 1] -= 60 * np.sin(np.pi * np.arange(14) / 14)[:, None]  # a jump
    turn = np.clip(np.arange(N) - 110, 0, None)
    one[..., 0] -= (np.minimum(turn, 10) * turn * 0.3)[:, None]  # back, three times as fast
    other[50] += [40, 20, 0]
    assert find(one, other, hidden=range(MIDDLE - 4, MIDDLE + 4)) == [[], []]


def test_the_camera_s_motion_is_no_jump():
    camera = {t: np.array([[1, 0, 40.0 * (t % 20 == 0)], [0, 1, 0], [0, 0, 1]]) for t in range(N)}
    shift = np.cumsum([camera[t][0, 2] * (t > 0) for t in range(N)])
    one, other = walk(1.5), walk(-1.5, seed=1)
    for person in (one, other):
        person[..., 0] += shift[:, None]
    assert find(one, other, camera=camera) == [[], []]


@pytest.mark.parametrize(
    ("option", "by_detect", "is_cut"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_tracks_of_detect_are_cut_with_a_note_and_others_if_asked(
    tmp_path, option, by_detect, is_cut
):
    jumping, _ = exchanged(walk(0.5, 150), walk(0.5, 350, height=120, seed=1), 50)
    write_video(tmp_path / "a.mp4", N, size=(500, 320), step=0)
    labels = coco(jumping)
    for annotation in labels["annotations"]:
        annotation["track_id"] = 7
    description = MADE_BY if by_detect else ""
    write_coco(tmp_path / "keypoints/a.mp4.json", labels, description=description)
    report = Accounting()
    reader = datasets.get("videos", cut_at_switches=option)
    tracks = list(reader.tracks(tmp_path, "train", report=report))
    (account,) = report
    account.check()
    frames = {track.name.split("/")[-1]: track.frame_index.tolist() for track in tracks}
    if is_cut:
        assert frames == {"7": [*range(50)], "7-1": [*range(50, N)]}
    else:
        assert frames == {"7": [*range(N)]}
    notes = [note for note in account.notes if "another person" in note]
    assert notes == ["tracks cut at 1 place where they continue on another person"] * is_cut


def test_two_people_are_exchanged_in_a_crowd_as_if_they_were_alone():
    pair = exchanged(walk(1.5, 250), walk(-1.5, 264, seed=1), MIDDLE)
    apart = [walk(0.5, 250 + 400 * k, seed=k) for k in range(2, 22)]
    in_crowd = find(*apart, *pair)
    assert in_crowd[-2:] == find(*pair) != [[], []]
    assert in_crowd[:-2] == [[]] * 20
