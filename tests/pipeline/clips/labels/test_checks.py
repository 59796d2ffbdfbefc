"""Checks of people: what is sure refuses a file, what is doubtful is noted, and whoever does what a
message advises gets right rows.
"""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.clips.labels import checks
from pipeline.clips.labels.checks import LOOK, find_cause
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_content import Stated
from pipeline.datasets.shared.in_pixels import require_pixels
from pipeline.errors import RawDataError
from tests.pipeline.clips.labels.made_detections import write
from tests.pipeline.clips.labels.made_people import COCO, in_order, motion, results
from tests.raising import raw_refuses

SIZE = np.array([1280, 720])


@pytest.fixture
def read(tmp_path):
    """Read the people of a file's content, in a clip of SIZE, in the order coco if it is stated."""

    def read(content, order=None):
        file = write(tmp_path / "clip.json", {"": content})
        stated = Stated(StatedOrder(order, "[videos] joints"))
        return read_detections(file, "clip", lambda: [tuple(SIZE)], stated)

    return read


def people():
    """(T, 17, 3) of people who move, in the order coco."""
    return in_order(motion()[::3], COCO)


def corners(points):
    """Upper left corner and size, (T, 2) each, of boxes around people with a margin."""
    low = points[..., :2].min(axis=1) - 5
    return low, points[..., :2].max(axis=1) + 5 - low


def with_boxes(points, boxes_of=None):
    """Results of people with the boxes of others."""
    content = results(points)
    for entry, *box in zip(
        content, *corners(points if boxes_of is None else boxes_of), strict=True
    ):
        entry["box"] = np.concatenate(box).tolist()
    return content


# --------------------------------------------------------------------------------------------------
# causes

# text of a cause -> what somebody has done wrong, and the edit that the message advises: of joints
# (T, 17, 3), the upper left corners of their boxes (T, 1, 2), and the numbers in the message
CAUSES = {
    "in shares of the image": (
        lambda points, low: points / [*SIZE, 1],
        r"Multiply x \(and w\) by (\d+), y \(and h\) by (\d+)\.",
        lambda points, low, width, height: points * [width, height, 1],
    ),
    "y before x": (
        lambda points, low: points[..., [1, 0, 2]],
        r"Write x before y, and w before h\.",
        lambda points, low: points[..., [1, 0, 2]],
    ),
    "y from the bottom of the image": (
        lambda points, low: points * [1, -1, 1] + [0, SIZE[1], 0],
        r"Write (\d+) - y: y counts from the top of the image\.",
        lambda points, low, height: points * [1, -1, 1] + [0, height, 0],
    ),
    "in pixels from the corner of the box": (
        lambda points, low: points - np.append(low, 0 * low[..., :1], axis=-1),
        r"Add the upper left corner of its box to each joint\.",
        lambda points, low: points + np.append(low, 0 * low[..., :1], axis=-1),
    ),
    r"840 joints are at \((-1), (-1)\)": (
        lambda points, low: np.where(HAS_NO_LEG, [-1, -1, 0.9], points),
        r"Write 0 as x, y and score of joints that are not there\.",
        lambda points, low, x, y: points * (points[..., :2] != (x, y)).any(axis=-1, keepdims=True),
    ),
}
HAS_NO_LEG = np.array([name.endswith(("wrist", "knee", "ankle")) for name in COCO])[:, None]
EXPECTED = {r"840 joints are at \((-1), (-1)\)": lambda points: np.where(HAS_NO_LEG, 0, points)}


def test_each_cause_that_a_message_may_name_has_an_edit_here():
    tree = ast.parse(inspect.getsource(checks.find_cause))
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List)]
    assert len(lists[0].elts) == len(CAUSES)


@pytest.mark.parametrize("cause", CAUSES)
def test_whoever_does_what_a_message_advises_gets_right_rows(cause, read):
    right = people()
    low = corners(right)[0][:, None]
    spoil, advice, edit = CAUSES[cause]
    wrong = spoil(right, low)
    with raw_refuses(f"{cause}. {advice}$") as caught:
        read(with_boxes(wrong, right))
    found = re.search(f"{cause}. {advice}$", str(caught.value))
    edited = edit(wrong, low, *map(int, found.groups()))
    expected = EXPECTED.get(cause, lambda points: points)(right)
    read_again = read(with_boxes(edited, right))
    assert (read_again.notes, read_again.doubts) == ([], [])
    np.testing.assert_allclose(np.concatenate(read_again.keypoints), expected, atol=1e-6)


BEHIND = {  # wrong files in which something else than the file says is seen, and no cause is named
    "y from the bottom": lambda points: points * [1, -1, 1] + [0, SIZE[1], 0],
    "all x, then all y, then all scores": lambda points: points.swapaxes(1, 2).reshape(-1, 17, 3),
    "score first": lambda points: points[..., [2, 0, 1]],
    "knees for ankles": lambda points: points[:, [*range(13), 15, 16, 13, 14]],
}


@pytest.mark.parametrize("wrong", BEHIND)
@pytest.mark.parametrize("order", [None, "coco"])
def test_a_message_without_a_cause_says_what_is_seen_and_names_one_command(wrong, order, read):
    points = BEHIND[wrong](people())
    try:
        found = read(results(points), order)
    except RawDataError as error:
        message = str(error)
        seen = message.partition("found ")[2]
        assert re.match(r"(joints that cannot be in it: )?\d+ of \d+ (people|boxes)", seen)
        assert message.endswith(LOOK)
        assert "State" not in message
    else:
        assert found.doubts, "neither refused nor noted"


# --------------------------------------------------------------------------------------------------
# refusals of boxes


def boxes(low, size):
    """Results of boxes alone, (T, 2) each."""
    return [
        {"image_id": f"{t}.jpg", "category_id": 1, "bbox": [*map(float, (*low[t], *size[t]))]}
        for t in range(len(low))
    ]


def walk(*, image=(1920, 1080), n=120, horizon=0.4, x=(-2.0, -0.5), seed=0):
    """Boxes of somebody who walks towards a still camera: upper left corners, sizes (T, 2) px."""
    rng = np.random.default_rng(seed)
    focal = rng.uniform(0.6, 1.0) * image[0]
    z = np.linspace(rng.uniform(6, 15), rng.uniform(2, 4), n)
    at = np.linspace(*x, n)
    size = np.stack([0.55 * focal / z, 1.75 * focal / z], axis=1)
    foot = horizon * image[1] + focal * rng.uniform(1.2, 4) / z
    low = np.stack([image[0] / 2 + focal * at / z - size[:, 0] / 2, foot - size[:, 1]], axis=1)
    return low, size


def test_whoever_writes_x_before_y_as_advised_gets_right_boxes_without_joints(read):
    low, size = corners(people() + np.array([500, 0, 0]))
    wrong = [low[:, ::-1], size[:, ::-1]]

    def read_in_pixels(numbers):
        found = read(boxes(*numbers))
        rows = found.keypoints.rows
        place = Path("clip.json")
        require_pixels(place, rows, tuple(SIZE), skeleton=found.skeleton, find_cause=find_cause)
        return found

    with raw_refuses(r": y before x\. Write x before y, and w before h\.$"):
        read_in_pixels(wrong)
    found = read_in_pixels([numbers[:, ::-1] for numbers in wrong])
    assert found.doubts == []
    expected = np.stack([low, low + size], axis=1)
    np.testing.assert_allclose(found.keypoints.rows[..., :2], expected, atol=1e-3)


@pytest.mark.parametrize("share", [0.4, 0])
def test_a_few_flat_boxes_and_boxes_of_zeros_are_not_refused(share, read):
    low, size = corners(people())
    size[: int(share * len(size)), 0] = 0.5
    assert read(boxes(low, size)).n_persons == len(size)
    content = with_boxes(people())
    for entry in content:
        entry["box"] = [0, 0, 0, 0]
    assert read(content).n_persons == len(size)


def test_boxes_of_two_corners_are_refused_with_one_box_in_a_hundred_that_is_none(read):
    low, size = corners(people() + np.array([300, 0, 0]))
    second = low + size
    second[70, 0] = low[70, 0] - 1
    with raw_refuses("139 of 140 boxes look like two corners"):
        read(boxes(low, second))
    second[:3, 0] = low[:3, 0] - 1
    assert read(boxes(low, second)).doubts


def approaching():
    """People who walk towards the camera, 150 to 300 px high, seen from the front."""
    points = people()
    middle = points[..., :2].mean(axis=1, keepdims=True)
    scale = np.linspace(0.4, 0.8, len(points))[:, None, None]
    place = np.linspace([200, 150], [420, 300], len(points))[:, None]
    points[..., :2] = (points[..., :2] - middle) * scale + place
    return points


def test_boxes_beside_joints_whose_size_follows_the_place_are_two_corners(read):
    points = approaching()
    low, size = corners(points)
    content = with_boxes(points)
    assert read(content).doubts == []
    for entry, *box in zip(content, low, low + size, strict=True):
        entry["box"] = np.concatenate(box).tolist()
    with raw_refuses("140 of 140 boxes look like two corners"):
        read(content)
    seen = "140 of 140 boxes may be two corners, x y x y, first in frame 0"
    assert seen in read(boxes(low, low + size)).doubts


@pytest.mark.parametrize("x", [(-4, -1), (-2, 0), (0, 1), (-0.5, -0.5)])
@pytest.mark.parametrize("horizon", [-0.3, 0.0, 0.3, 0.6])
def test_boxes_of_somebody_who_walks_towards_the_camera_are_not_refused(horizon, x, read):
    for seed in range(20):
        low, size = walk(image=tuple(SIZE), horizon=horizon, x=x, seed=seed)
        low = np.maximum(low, 0)
        size = np.minimum(low + size, SIZE) - low
        is_seen = (size > 5).all(axis=1)
        if is_seen.any():
            assert read(boxes(low[is_seen], size[is_seen])).n_persons == is_seen.sum()


# --------------------------------------------------------------------------------------------------
# notes


def without_arms(points):
    return np.where(np.isin(np.arange(17), [7, 8, 9, 10])[:, None], [1, 1, 0.9], points)


NOTED = {
    "names moved by one": ("noses are over", lambda points: np.roll(points, 1, axis=1)),
    "missing joints at (1, 1)": (
        "have joints at one place",
        lambda points: np.concatenate([points[:120], without_arms(points[120:])]),
    ),
    "on their heads": (
        "have their hips above their shoulders",
        lambda points: points * [1, -1, 1] + [0, 720, 0],
    ),
    "of a tenth of the size": ("are smaller than 32 px", lambda points: points * [0.1, 0.1, 1]),
}


@pytest.mark.parametrize("kind", NOTED)
def test_what_is_doubtful_is_noted_with_the_number_of_people_and_the_first(kind, read):
    words, spoil = NOTED[kind]
    found = read(results(spoil(people())), "coco")
    assert any(
        re.match(rf"\d+ of \d+ people.* ?{words}.*, first in frame \d+$", text)
        for text in found.doubts
    )
    assert found.n_persons == 140


def test_everybody_twice_is_noted(read):
    content = results(people())
    shifted = results(people() + np.array([2, 2, 0]))
    doubts = read([*content, *shifted]).doubts
    assert doubts == ["280 of 280 people are covered by another one of the frame, first in frame 0"]
    apart = results(people() + np.array([250, 0, 0]))
    assert read([*content, *apart]).doubts == []


def test_joints_on_a_grid_have_no_place_far_from_the_others(read):
    """As networks without refinement give them."""
    points = people()
    points[..., :2] = np.round(points[..., :2] / 32) * 32
    assert not any("one place" in text for text in read(results(points), "coco").doubts)


def test_boxes_wider_than_high_and_scores_above_1_are_noted(read):
    low, size = corners(people())
    content = boxes(low, size[:, ::-1])
    for entry in content:
        entry["score"] = 3.5
    doubts = read(content).doubts
    assert "140 of 140 boxes are wider than high, first in frame 0" in doubts
    assert "140 of 140 boxes have a score above 1, first in frame 0" in doubts


def test_right_people_have_no_doubt(read):
    for content in (results(people()), with_boxes(people()), boxes(*corners(people()))):
        assert read(content).doubts == []
