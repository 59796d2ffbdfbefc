"""Identities of a file are used unless no people can have them: scenes of walkers and runners, filmed
at rates from 5 to 60 frames a second by cameras that stand, pan or shake.
"""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import CORNERS, NO_IDENTITY, Detections
from pipeline.clips.labels.label_content import StatedIdentities
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.identities import used_identities
from tests.pipeline.datasets.by_hand import standing

FIGURE = standing("coco", scale=1)  # 40 px high
HEIGHT_PX = 40.0
PERSON_M = 1.7


def scene(seed, fps, n_people, speed, camera="stands", seconds=8):
    """Frames with the people who are in the image, as rows (number, joints, score): they go to and
    fro at some m/s between 4 and 12 m from the camera, and step aside at random.
    """
    rng = np.random.default_rng([seed, 94])
    n = round(seconds * fps)
    times = np.arange(n) / fps
    depth = rng.uniform(4, 12, n_people)
    way = speed * rng.uniform(0.8, 1.2, n_people) * times[:, None] + rng.uniform(0, 20, n_people)
    width = 0.9 * depth  # m that the image shows
    x = np.abs(way % (2 * width) - width) - width / 2
    px_a_m = 700 / depth
    shift = np.zeros((n, 2))
    if camera == "pans":
        shift[:, 0] = 250 * np.sin(3 * times)  # up to 750 px a second
    if camera == "shakes":
        shift = np.cumsum(rng.normal(0, 60 / fps, (n, 2)), axis=0) + rng.normal(0, 6, (n, 2))
    frames = []
    for t in range(n):
        people = []
        for person in range(n_people):
            place = [640 + x[t, person] * px_a_m[person], 250 + 1.2 * px_a_m[person]] + shift[t]
            scale = PERSON_M * px_a_m[person] / HEIGHT_PX
            if not 0 < place[0] < 1280 or rng.random() < 0.03:
                continue
            joints = FIGURE * [scale, scale, 1] + [*place, 0]
            joints[:, :2] += rng.normal(0, 0.5 * scale, (17, 2))
            joints[rng.random(17) < 0.1, 2] = 0
            people.append((person, joints, rng.uniform(0.5, 1)))
        frames.append(people)
    return frames


def found(frames, number, boxes=False):
    """The detections, with people numbered by a function of a frame's people."""
    at = [t for t, people in enumerate(frames) if people]
    keypoints = [np.stack([joints for _, joints, _ in frames[t]]) for t in at]
    skeleton = "coco"
    if boxes:
        skeleton = CORNERS
        seen = [[joints[joints[:, 2] > 0, :2] for joints in persons] for persons in keypoints]
        corners = [[[p.min(axis=0), p.max(axis=0)] for p in persons] for persons in seen]
        keypoints = [np.insert(np.array(pair), 2, 0.9, axis=-1) for pair in corners]
    identity = [np.array(number(frames[t]), np.int64) for t in at]
    people = ByFrame.join(keypoints)
    no_hands = np.zeros((len(people.rows), 0, 3))
    return Detections(skeleton, np.array(at), people, ByFrame.join(identity), at, no_hands)


def people(frame):
    return [person for person, _, _ in frame]


def ranks(frame):
    return np.argsort(np.argsort([-score for _, _, score in frame]))


def from_left(frame):
    return np.argsort(np.argsort([joints[:, 0].max() for _, joints, _ in frame]))


def judged(detections, fps, stated=None, cuts=()):
    """Whether identities are used, and what the account says."""
    account = VideoAccount("a.mp4", found=detections.n_persons)
    identities = StatedIdentities(stated, SETTING)
    used = used_identities(detections, detections.frame_index / fps, account, identities, cuts)
    return used.detections.identity is not None, account


SETTING = "[videos] identities"


RATES = (5, 10, 15, 25, 60)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("camera", ["stands", "pans", "shakes"])
@pytest.mark.parametrize("speed", [1.4, 4.5])
@pytest.mark.parametrize("boxes", [False, True])
def test_true_identities_are_used_at_all_rates_whoever_runs_and_however_it_is_filmed(
    fps, camera, speed, boxes
):
    for n_people in (2, 5):
        frames = scene(n_people, fps, n_people, speed, camera)
        is_used, account = judged(found(frames, people, boxes), fps)
        assert is_used, account.notes
        assert not account.notes


@pytest.mark.parametrize("fps", [10, 15, 25, 60])
@pytest.mark.parametrize("n_people", [2, 6, 12])
@pytest.mark.parametrize("boxes", [False, True])
def test_ranks_by_score_are_no_identities(fps, n_people, boxes):
    frames = scene(7, fps, n_people, 1.4, "shakes")
    is_used, account = judged(found(frames, ranks, boxes), fps)
    assert not is_used
    (note,) = account.notes
    assert note.startswith("identities are not used: people change places in ")


def standing_apart(n_frames, numbers, n_people=2):
    """People who stand 100 px apart. numbers: of a frame -> the people's identities."""
    rng = np.random.default_rng(0)
    places = 100 * np.arange(n_people)[:, None, None] + [300, 0, 0]
    persons = [FIGURE + places + rng.normal(0, 0.5, (n_people, 17, 3)) * [1, 1, 0]] * n_frames
    identity = [np.array(numbers(t)) for t in range(n_frames)]
    at = np.arange(n_frames)
    no_hands = np.zeros((n_frames * n_people, 0, 3))
    return Detections("coco", at, ByFrame.join(persons), ByFrame.join(identity), at, no_hands)


def exchanged(steps):
    """Two people's numbers, exchanged in each of these frames."""
    return lambda t: [1, 2] if sum(step <= t for step in steps) % 2 == 0 else [2, 1]


@pytest.mark.parametrize("fps", [10, 25])
@pytest.mark.parametrize(
    ("n_frames", "n_changes", "is_used"), [(20, 19, True), (21, 5, False), (21, 4, True)]
)
def test_who_changes_places_in_over_a_fifth_of_twenty_steps_is_nobody(
    fps, n_frames, n_changes, is_used
):
    detections = standing_apart(n_frames, exchanged(range(1, n_changes + 1)))
    was_used, account = judged(detections, fps)
    assert was_used == is_used
    assert bool(account.assumed) == (n_frames == 20)
    if not is_used:
        (note,) = account.notes
        expected = "identities are not used: people change places in 5 frames, first in 1. "
        assert note == f"{expected}People are linked; {SETTING} = file uses them"


@pytest.mark.parametrize("missing", [2, 30])
def test_gaps_are_no_steps_in_which_people_change_places(missing):
    """The same two people, who stand elsewhere after each gap."""
    detections = standing_apart(60, exchanged(range(3, 60, 3)))
    frame_index = np.arange(60) + missing * 5 * (np.arange(60) // 3)
    is_used, account = judged(replace(detections, frame_index=frame_index), 25)
    assert (is_used, account.notes) == (True, [])


def test_people_who_change_places_at_a_scene_cut_are_filmed_from_the_other_side():
    cuts = [*range(4, 100, 4)]
    is_used, account = judged(standing_apart(100, exchanged(cuts)), 25, cuts=cuts)
    assert (is_used, account.notes, account.assumed) == (True, [], {})
    assert not judged(standing_apart(100, exchanged(cuts)), 25)[0]


@pytest.mark.parametrize(("fps", "is_noted"), [(60, True), (24, True), (23, False), (10, False)])
def test_few_changes_are_one_line_where_steps_are_short(fps, is_noted):
    detections = standing_apart(100, exchanged([30, 50, 51]))
    is_used, account = judged(detections, fps)
    assert is_used
    line = "identities: people change places in 3 frames, first in 30; "
    assert account.notes == [f"{line}{SETTING} = link does not use them"] * is_noted


def test_people_who_have_no_joint_in_common_with_the_frame_before_have_not_changed_places():
    """Of one, head and legs are seen in turn."""
    detections = standing_apart(60, lambda t: [1, 2])
    keypoints = detections.keypoints.rows.reshape(60, 2, 17, 3).copy()
    keypoints[::2, 0, :9, 2] = 0
    keypoints[1::2, 0, 9:, 2] = 0
    seen = replace(detections, keypoints=ByFrame.join([*keypoints]))
    assert judged(seen, 25)[1].notes == []


@pytest.mark.parametrize("fps", [25, 50])
def test_identities_of_people_who_are_seen_in_part_are_used(fps):
    """Of each, the face alone in a tenth of the frames."""
    rng = np.random.default_rng(3)
    frames = scene(5, fps, 4, 3)
    for frame in frames:
        for _, joints, _ in frame:
            if rng.random() < 0.1:
                joints[5:, 2] = 0
    is_used, account = judged(found(frames, people), fps)
    assert (is_used, account.notes) == (True, [])


def crossing(seed, fps, n_people=2):
    """People who walk past each other at other depths, for 8 s, of whom nobody is missed."""
    rng = np.random.default_rng(seed)
    frames = []
    scale = rng.uniform(2.5, 5, n_people)
    start = rng.uniform(200, 500, n_people)
    speed = rng.uniform(80, 120, n_people)  # px a second
    for t in range(round(8 * fps)):
        x = 640 + (start - speed * t / fps) * (-1) ** np.arange(n_people)
        figures = [FIGURE * [s, s, 1] + [at, 300, 0] for s, at in zip(scale, x, strict=True)]
        noise = rng.normal(0, 1, (n_people, 17, 2))
        for figure, of_figure in zip(figures, noise, strict=True):
            figure[:, :2] += of_figure
        frames.append([(n, figure, rng.uniform(0.5, 1)) for n, figure in enumerate(figures)])
    return frames


@pytest.mark.parametrize("fps", RATES)
def test_people_who_stay_side_by_side_may_be_numbered_from_left_to_right(fps):
    frames = crossing(1, fps)[: round(2 * fps)]
    for number in (from_left, people):
        is_used, account = judged(found(frames, number), fps)
        assert (is_used, account.notes) == (True, [])


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("n_people", [2, 3])
def test_people_who_cross_are_used_as_the_file_says(fps, n_people):
    """From left to right, a number changes to another person, who is seldom far away."""
    for seed in range(4):
        frames = crossing(seed, fps, n_people)
        assert judged(found(frames, from_left), fps)[0]
        is_used, account = judged(found(frames, people), fps)
        assert (is_used, account.notes) == (True, [])


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (lambda t: [5, 5], "everybody has the same one"),
        (lambda t: [2 * t, 2 * t + 1], "each is used once"),
        (lambda t: [1, 2] if t else [1, NO_IDENTITY], "1 of 12 detections have none"),
    ],
)
def test_identities_that_nobody_can_have_are_one_line(numbers, why):
    is_used, account = judged(standing_apart(6, numbers), 25)
    line = f"identities are not used: {why}. People are linked; {SETTING} = file uses them"
    assert (is_used, account.notes, account.assumed) == (False, [line], {})


@pytest.mark.parametrize("numbers", [lambda t: [7], lambda t: [7 + t]])
def test_one_person_of_one_frame_has_any_identity(numbers):
    is_used, account = judged(standing_apart(1, numbers, n_people=1), 25)
    assert (is_used, account.notes, account.assumed) == (True, [], {})


def test_an_identity_that_two_frames_have_is_used():
    """Of people of whom a tracker loses nearly all: 10 identities, 11 detections."""
    detections = standing_apart(11, lambda t: [max(t, 1)], n_people=1)
    assert judged(detections, 25)[0]


def test_too_few_steps_to_tell_are_an_assumption_unless_nobody_could_be_exchanged():
    frames = scene(3, 5, 5, 1.4)  # detections are 0.2 s apart
    is_used, account = judged(found(frames, ranks), 5)
    assert is_used
    what = "the file's identities (fewer than 20 steps can be checked)"
    assert account.assumed == {what: SETTING}
    alone = scene(3, 25, 1, 1.4)
    is_used, account = judged(found(alone, people), 25)
    assert is_used
    assert (account.notes, account.assumed) == ([], {})


@pytest.mark.parametrize(
    "numbers", [lambda t: [5, 5], exchanged(range(100)), lambda t: [2 * t, 2 * t + 1]]
)
def test_what_is_stated_of_identities_is_done_without_a_word(numbers):
    for stated in ("file", "person"):
        is_used, account = judged(standing_apart(100, numbers), 25, stated)
        assert (is_used, account.notes, account.assumed, account.dropped) == (True, [], {}, {})
    is_used, account = judged(standing_apart(100, lambda t: [1, 2]), 25, "link")
    assert (is_used, account.notes, account.assumed, account.dropped) == (False, [], {}, {})


def test_of_stated_identities_people_without_one_are_dropped():
    detections = standing_apart(40, lambda t: [1, 2] if t % 4 else [1, NO_IDENTITY])
    account = VideoAccount("a.mp4")
    stated = StatedIdentities("file", SETTING)
    used = used_identities(detections, detections.frame_index / 25, account, stated)
    assert account.dropped == {"no_identity": 10}
    assert [len(numbers) for numbers in used.detections.identity] == [1, 2, 2, 2] * 10
    nobody = replace(standing_apart(40, lambda t: [1, 2]), identity=None)
    account = VideoAccount("a.mp4")
    used = used_identities(nobody, nobody.frame_index / 25, account, stated)
    assert (account.dropped, used.detections.n_persons) == ({"no_identity": 80}, 0)
