"""Identities of a file are people, or places in a list: scenes of walkers and runners, filmed at
rates from 5 to 60 frames a second by cameras that stand, pan or shake.
"""

import numpy as np
import pytest

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import CORNERS, Detections
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
    return Detections(skeleton, np.array(at), ByFrame.of(keypoints), ByFrame.of(identity), at)


def people(frame):
    return [person for person, _, _ in frame]


def ranks(frame):
    return np.argsort(np.argsort([-score for _, _, score in frame]))


def from_left(frame):
    return np.argsort(np.argsort([joints[:, 0].max() for _, joints, _ in frame]))


def judged(detections, fps):
    """Whether identities are used, and what the account says."""
    account = VideoAccount("a.mp4")
    used = used_identities(detections, detections.frame_index / fps, account)
    return used.identity is not None, account


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


# at slower rates, people who run move as far as those from left to right jump
PLACES = [(ranks, 10), (ranks, 15), (ranks, 25), (ranks, 60)]
PLACES += [(from_left, 25), (from_left, 60)]


@pytest.mark.parametrize(("place", "fps"), PLACES)
@pytest.mark.parametrize("boxes", [False, True])
def test_places_in_a_list_are_no_identities(place, fps, boxes):
    frames = scene(7, fps, 6, 1.4, "shakes")
    is_used, account = judged(found(frames, place, boxes), fps)
    assert not is_used
    (note,) = account.notes
    assert note.startswith("identities are not used: they are places in a list (")


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
@pytest.mark.parametrize("n_people", [2, 3])
def test_a_list_from_left_to_right_is_told_by_people_who_cross_at_all_rates(fps, n_people):
    for seed in range(4):
        frames = crossing(seed, fps, n_people)
        assert not judged(found(frames, from_left), fps)[0]
        assert judged(found(frames, people), fps)[0]


@pytest.mark.parametrize("fps", RATES)
def test_true_identities_from_left_to_right_of_people_who_do_not_cross_are_used(fps):
    frames = crossing(1, fps)[: round(2 * fps)]
    for number in (from_left, people):
        assert judged(found(frames, number), fps)[0]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("anew", [[0, 2], [2, 3]], ids=["one is lost", "after a scene cut"])
def test_people_who_are_numbered_anew_keep_identities_that_rise_from_left_to_right(fps, anew):
    """Two people who do not cross: 1 is on the left."""
    frames = crossing(1, fps)[: round(2 * fps)]
    middle = len(frames) // 2
    before = {id(frame) for frame in frames[:middle]}

    def number(frame):
        identities = [0, 1] if id(frame) in before else anew
        return [identities[1 - person] for person, _, _ in frame]

    assert from_left(frames[0]).tolist() == [1, 0]
    is_used, account = judged(found(frames, number), fps)
    assert is_used, account.notes


def test_too_few_steps_to_tell_are_an_assumption_unless_nobody_could_be_exchanged():
    frames = scene(3, 5, 5, 1.4)  # detections are 0.2 s apart
    is_used, account = judged(found(frames, ranks), 5)
    assert is_used
    assert [what[:21] for what in account.assumed] == ["the file's identities"]
    alone = scene(3, 25, 1, 1.4)
    is_used, account = judged(found(alone, people), 25)
    assert is_used
    assert (account.notes, account.assumed) == ([], {})
