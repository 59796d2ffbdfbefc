"""BlazePose with planted networks, and on a real clip.

The planted ones see dots: a person is a red one (the middle of the hips), a green one (the end of
the circle, and the nose), and a blue one (the left wrist). A yellow dot is a tree, a magenta one a
part of somebody: the first network sees people in both, the second one sees nobody in a tree, and
returns another circle than it has seen for a part.
"""

import re
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cache
from pipeline.clips.detectors import blaze_pose
from pipeline.clips.detectors.blaze_pose import (
    FILES,
    BlazePose,
    estimate_pose,
    find_people,
    load_networks,
)
from pipeline.errors import MissingAssets
from pipeline.features.streams import blaze
from pipeline.features.streams.blaze import BlazeJoints
from pipeline.files.packages import PackageFile, fetch_files
from pipeline.files.pixels.frames import Video
from pipeline.people.skeletons import BLAZE, convert
from pipeline.testing import StreamContract
from tests.raising import config_refuses

CLIP = PackageFile(
    "sports2d",
    "0.8.34",
    "Sports2D/Demo/demo.mp4",
    "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
)
SIDES = {"left": "right", "right": "left"}
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "part": (255, 0, 255),
}
SQUARES = 1 + 3 + 3 * 7  # of an image of 1280 x 720


def logit(share):
    return np.log(share / (1 - share))


def dots(pixels, colour):
    """(N, 2) middles of the dots, in px; pixels (H, W, 3) in 0..1."""
    same = (np.abs(pixels - np.array(COLOURS[colour]) / 255) < 0.5).all(axis=-1)
    return cv2.connectedComponentsWithStats(same.astype(np.uint8))[3][1:]


def nearest(points, to):
    return points[np.linalg.norm(points - to, axis=1).argmin()]


class Finder:
    """The first network. Of each circle, a second cell has a worse one that is 2 px to the
    right.
    """

    calls = 0

    def __call__(self, pixels):
        Finder.calls += 1
        pixels, values, logits = (
            (pixels + 1) / 2,
            np.zeros((2254, 12), np.float32),
            np.full((2254, 1), -9, np.float32),
        )
        greens = dots(pixels, "green")
        for colour in ("red", "yellow", "part"):
            for dot in dots(pixels, colour):
                above = nearest(greens, dot) if colour == "red" and len(greens) else dot - [0, 20]
                cell = dot.astype(int) // 8
                for worse, number in enumerate(
                    (2 * (cell[1] * 28 + cell[0]) + np.arange(2)).tolist()
                ):
                    points = np.array([dot, above]) - (cell + 0.5) * 8 + [2 * worse, 0]
                    values[number, :8] = [*points[0], 45, 45, *points.ravel()]
                    logits[number] = logit(0.8 - 0.2 * worse)
        return [values, logits]


def landmarks(pixels):
    """The second network: the person whose hips are next to the middle."""
    rows, metres = np.zeros((39, 5), np.float32), np.tile(np.float32([0.1, -1, 0.5]), (39, 1))
    red, green, blue, part = (dots(pixels, colour) for colour in ("red", "green", "blue", "part"))
    presence, middle, rows[:, 3:] = 0.02, np.array([128, 128]), logit(0.9)
    if len(part):
        rows[33, :2], rows[34, :2], presence = (153, 128), (153, 28), 0.99
    elif len(red) and np.linalg.norm(nearest(red, middle) - middle) < 60:
        rows[:, :2] = hips = nearest(red, middle)
        rows[[0, 34], :2], presence = nearest(green, hips), 0.95
        rows[15, :2] = nearest(blue, hips)
        rows[16, 4] = logit(0.1)  # the right wrist is outside the crop
    heat = np.full((64, 64, 39), -20, np.float32)
    return [
        rows.ravel(),
        np.float32([presence]),
        np.zeros((256, 256, 1), np.float32),
        heat,
        metres.ravel(),
    ]


class Interpreter:
    """LiteRT's, of a file that says which network it is; outputs in another order than their
    names.
    """

    def __init__(self, model_content, num_threads):
        self._network, n = {b"finder": (Finder(), 2), b"landmarks": (landmarks, 5)}[model_content]
        self._names = [f"Identity_{i}" if i else "Identity" for i in range(n)]

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0}]

    def get_output_details(self):
        return [{"name": name, "index": i} for i, name in enumerate(self._names)][::-1]

    def set_tensor(self, index, pixels):
        assert pixels.dtype == np.float32
        self._pixels = pixels[0]

    def invoke(self):
        self._outputs = self._network(self._pixels)

    def get_tensor(self, index):
        return self._outputs[index][None]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    (tmp_path / "finder").write_bytes(b"finder")
    (tmp_path / "landmarks").write_bytes(b"landmarks")
    places = dict(zip(FILES["full"], (tmp_path / "finder", tmp_path / "landmarks"), strict=True))
    monkeypatch.setattr(blaze_pose, "fetch_files", lambda *files: [places[file] for file in files])
    monkeypatch.setitem(
        sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=Interpreter)
    )
    monkeypatch.setattr("pipeline.features.streams.blaze._cached_networks", load_networks)


def draw(image, hips, *, up, wrist):
    for colour, place in (("red", (0, 0)), ("green", up), ("blue", wrist)):
        radius = round(np.linalg.norm(up) / 12)
        cv2.circle(image, np.add(hips, place).tolist(), radius, COLOURS[colour], -1)
    return image


PEOPLE = (  # hips, end of the circle and wrist from there: upright, lying, small
    ((300, 400), (0, -130), (90, -40)),
    ((900, 300), (110, 0), (30, 60)),
    ((650, 600), (10, -50), (-25, 5)),
)


def street(shift=0):
    image = np.zeros((720, 1280, 3), np.uint8)
    for hips, up, wrist in PEOPLE:
        draw(image, (hips[0] + shift, hips[1]), up=up, wrist=wrist)
    cv2.circle(image, (1200, 500), 12, COLOURS["yellow"], -1)
    cv2.circle(image, (150, 80), 12, COLOURS["part"], -1)
    return image


@pytest.mark.usefixtures("planted")
class Planted:
    """Networks of this process alone."""

    @pytest.fixture
    def another_process(self):
        return False


class TestBlazePose(Planted):
    @pytest.fixture
    def detector(self):
        return BlazePose()

    def test_nobody_is_in_an_empty_image_and_the_same_people_in_a_batch(self, detector):
        detect, image = detector.load("cpu"), street()
        nobody, people = detect([np.zeros_like(image), image])
        assert len(nobody.boxes) == 0
        for part, same in zip(people, detect([image])[0], strict=True):
            assert_allclose(part, same, rtol=1e-3, atol=0.01)

    def test_several_people_are_found_once_each_and_their_joints_are_in_px_of_the_image(
        self, detector
    ):
        (people,) = detector.load("cpu")([street()])
        assert people.scores == pytest.approx([0.95] * 3)
        for hips, up, wrist in PEOPLE:
            number = np.linalg.norm(people.keypoints[:, 11, :2] - hips, axis=1).argmin()
            joints, box = people.keypoints[number], people.boxes[number]
            for joint, place in ((11, (0, 0)), (0, up), (9, wrist)):
                assert_allclose(joints[joint, :2], np.add(hips, place), atol=1.5)
            corners = np.array([hips, np.add(hips, up), np.add(hips, wrist)])
            assert_allclose(box, [*corners.min(axis=0), *corners.max(axis=0)], atol=1.5)
            assert joints[[11, 10], 2] == pytest.approx([0.9, 0.1])

    def test_people_are_followed_by_their_circles_until_they_are_gone(self, detector):
        images = [street(8 * i) for i in range(4)]
        images[2][:, :600] = 0
        Finder.calls = 0
        found = detector.load("cpu")(images, [True, False, False, True])
        assert Finder.calls == 2 * SQUARES
        assert [len(people.boxes) for people in found] == [3, 3, 2, 3]
        hips = sorted(found[2].keypoints[:, 11, 0].tolist())
        assert_allclose(hips, [666, 916], atol=1.5)


def test_a_circle_is_the_mean_of_those_of_one_face_and_lies_about_the_middle_of_its_cell():
    values, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -9, np.float32)
    # of column 5, row 10; of column 2, row 3
    fine, coarse = (10 * 28 + 5) * 2, 1568 + 392 + (3 * 7 + 2) * 6
    for number, score, x in (
        (fine, 0.9, 0),
        (fine + 1, 0.6, 5),
        (coarse, 0.7, 0),
        (coarse + 9, 0.4, 0),
    ):
        values[number, :8], logits[number] = [x, 1, 45, 45, x + 2, 3, x + 4, -20], logit(score)
    (first, one), (second, other) = find_people(
        lambda _: [values, logits], np.zeros((224, 224, 3), np.uint8)
    )
    assert (first, second) == pytest.approx((0.9, 0.7))
    x = 44 + 5 * 0.6 / 1.5
    assert_allclose(one, [[x + 2, 84 + 3], [x + 4, 84 - 20]], atol=1e-4)
    assert_allclose(other, [[80 + 2, 112 + 3], [80 + 4, 112 - 20]], atol=1e-4)


@pytest.mark.parametrize("turn", [0, 90, 210])
def test_a_person_is_seen_upright_and_turned_back(turn):
    # of the person
    right, down = (
        np.array([np.cos(a), np.sin(a)]) for a in (np.radians(turn), np.radians(turn + 90))
    )
    hips = np.array([200, 150])
    image = draw(
        np.zeros((300, 400, 3), np.uint8), hips, up=np.rint(-90 * down).astype(int), wrist=(30, 20)
    )
    pose = estimate_pose(landmarks, image, np.array([hips, hips - 90 * down]))
    assert_allclose(pose.points[[23, 0, 15], :2], [hips, hips - 90 * down, (230, 170)], atol=1)
    assert_allclose(pose.circle, [hips, hips - 90 * down], atol=1)
    assert_allclose(pose.joints, np.tile([*(0.1 * right - down), 0.5, 0.9], (33, 1)), atol=1e-6)


def test_outside_the_image_the_second_network_sees_the_repeated_edge():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    seen = []

    def network(pixels):
        seen.append(pixels)
        return landmarks(pixels)

    circle = np.array([[5.0, 50.0], [20.0, 10.0]])  # reaches beyond the left and the lower edge
    estimate_pose(network, image, circle)
    margin = 100
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    estimate_pose(network, padded, circle + margin)
    assert_allclose(*seen, atol=2 / 255)


def test_a_heat_map_refines_a_point_where_it_is_sure_and_at_most_4_cells_away():
    heat = np.full((64, 64, 39), -30, np.float32)
    rows = np.zeros((39, 5), np.float32)
    rows[:, :2] = 100  # cell 25, 25
    heat[26, 27, 0] = logit(0.8)  # row, column
    heat[25, 26, 0] = logit(0.4)
    heat[25, 28, 1] = logit(0.45)  # not sure
    heat[25, 30, 2] = logit(0.9)  # 5 cells away
    heat[29, 21, 5] = logit(0.9)
    rows[3, :2] = [1, 6]
    heat[1, 0, 3] = logit(0.9)  # at the border
    rows[4, :2] = [-1, 2]
    heat[0, 0, 4] = logit(0.9)  # outside

    def network(pixels):
        return [
            rows.ravel(),
            np.float32([1]),
            np.zeros((256, 256, 1)),
            heat,
            np.zeros(117, np.float32),
        ]

    upright = np.array([[128, 128], [128, 128 - 256 / 2.5]])  # whose square is the image
    refined = estimate_pose(network, np.zeros((256, 256, 3), np.uint8), upright).points[:6, :2]
    assert_allclose(
        refined[0], 4 * (0.8 * np.array([27, 26]) + 0.4 * np.array([26, 25])) / 1.2, atol=1e-4
    )
    assert_allclose(refined[1:], [[100, 100], [100, 100], [0, 4], [-1, 2], [84, 116]], atol=1e-4)


class TestBlazeJoints(Planted, StreamContract):
    @pytest.fixture
    def stream(self):
        return BlazeJoints()

    def test_a_row_has_the_joints_of_the_person_in_the_middle_in_the_axes_of_the_image(
        self, stream
    ):
        black = np.zeros((720, 1280, 3), np.uint8)
        # lies, head to the right
        frame = draw(black.copy(), (920, 530), up=(70, 0), wrist=(20, 40))
        draw(frame, (840, 440), up=(0, -30), wrist=(9, 9))
        box = {"bbox": np.float32([928, 528, 200, 200]), "crop_scale": np.float64(1.28)}
        box["kp_2d"] = np.zeros((49, 3), np.float32)
        row = stream.computed([frame], box)
        assert_allclose(row.reshape(33, 4), np.tile([1, 0.1, 0.5, 0.9], (33, 1)), atol=0.02)
        nobody = stream.computed([black], box).reshape(33, 4)
        assert (nobody[:, 3] == 0).all() and np.isfinite(nobody).all()


@pytest.mark.promise("detected sides")
def test_joints_in_metres_have_the_sides_of_the_row_and_their_own_where_it_tells_nothing(
    monkeypatch,
):
    """12 of the 33 points in the image decide; a person who is seen from the side has both sides at
    one place.
    """
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(100, 300, (33, 2)), np.ones(33)])
    joints = rng.uniform(size=(33, 4))
    pose = blaze_pose.Pose(presence=1.0, points=points, joints=joints, circle=np.eye(2))
    monkeypatch.setattr(blaze, "_cached_networks", lambda weights: (None, None))
    monkeypatch.setattr(blaze, "find_people", lambda network, image: [])
    monkeypatch.setattr(blaze, "estimate_pose", lambda network, frame, circle: pose)
    swapped = [re.sub("left|right", lambda side: SIDES[side[0]], name) for name in BLAZE]
    other_side = [BLAZE.index(name) for name in swapped]
    image = np.zeros((400, 400, 3), np.uint8)
    box = {"bbox": np.float32([200, 200, 250, 250]), "crop_scale": np.float64(1.2)}
    coco = np.zeros((1, 17, 3))
    for order, expected in (
        (points, joints),
        (points[other_side], joints[other_side]),
        ((points + points[other_side]) / 2, joints),
        (0 * points, joints),
    ):
        coco[0, 5:] = order[[*range(11, 17), *range(23, 29)]]
        kp_2d = convert(coco, source="coco", target="spin49")[0]
        kp_2d[:, :2] = (kp_2d[:, :2] - 200) / 150  # in the crop, as streams read it
        row = BlazeJoints().computed([image], box | {"kp_2d": kp_2d})
        assert_array_equal(row.reshape(33, 4), expected.astype(np.float32))


def test_wrong_options_name_the_right_ones():
    for wrong in ({"weights": "pretrained"}, {"min_score": 2}):
        with config_refuses("lite, full, heavy, and a number from 0 to 1"):
            BlazePose(**wrong)
    with config_refuses("lite, full, heavy"):
        BlazeJoints(weights="pretrained")


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("ai_edge_litert")
    try:
        fetch_files(*FILES["full"])
        return fetch_files(CLIP)[0]
    except MissingAssets as error:
        pytest.skip(str(error))


@pytest.fixture
def clips(clip, tmp_path, monkeypatch):
    """The clip in `clips` of the working folder."""
    (tmp_path / "clips").mkdir()
    shutil.copy(clip, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_two_real_people_are_tracked_and_have_joints_in_metres(clips, tmp_path, ran):
    for words in (
        "prepare videos --raw clips --cache c --detector blaze_pose --every 5",
        "extract videos/train --cache c --stream blaze_joints --kind blaze_joints",
    ):
        ran(*words.split())
    split = cache.open(tmp_path / "c")["videos/train"]
    rows = split.read(split.windows(1, 1), stream="blaze_joints", fields=["features"])[
        "features"
    ].reshape(-1, 33, 4)
    lengths = sorted((split.tracks.stop - split.tracks.start).tolist())
    assert lengths[-2] >= 150 and len(rows) >= 340
    assert len(lengths) <= 3  # one of them somersaults: his track may break
    seen = rows[rows[..., 3].max(axis=1) > 0]
    assert len(seen) > 0.95 * len(rows)
    thighs = np.linalg.norm(seen[:, 23, :3] - seen[:, 25, :3], axis=1)
    assert 0.33 < np.median(thighs) < 0.45
    # ankles below, head above
    assert np.median(seen[:, 27, 1]) > 0.5 > 0 > -0.3 > np.median(seen[:, 0, 1])
    assert_allclose(seen[:, 23:25, :3].mean(axis=1), 0, atol=0.02)


@pytest.mark.slow
def test_a_person_who_is_cut_below_has_mediapipe_s_joints(clip):
    """MediaPipe 0.10.21's graph pose_landmark_cpu on this image: its circle, and what it printed
    for it.
    """
    (frame,) = Video(clip.parent, clip.name).read([10])
    image = np.ascontiguousarray(frame.image[100:330, 440:840])
    hips = np.array([0.5091461 * 400, 0.6360134 * 230])
    radius = 1.1140810 * 400 / 2.5
    up = radius * np.array([np.sin(0.0375838), -np.cos(0.0375838)])
    pose = estimate_pose(load_networks("full")[1], image, np.array([hips, hips + up]))
    chosen = [0, 15, 16, 27, 28]  # nose, wrists, and the ankles, which are 36 px below the image
    metres = """
    -0.0199 -0.6333 -0.2494
    0.5449 -0.1745 -0.1821
    -0.5671 -0.1676 -0.1167
    0.0216 0.4964 0.2719
    -0.0710 0.5043 0.2732
    """
    metres = np.float64(metres.split()).reshape(5, 3)
    assert_allclose(pose.joints[chosen, :3], metres, atol=0.006)
    px = "208.17 7.09 342.78 127.58 78.85 120.84 212.82 266.77 188.00 271.11"
    px = np.float64(px.split()).reshape(5, 2)
    assert_allclose(pose.points[chosen[:3], :2], px[:3], atol=0.5)
    # what no pixel shows moves by a pixel with the version of LiteRT
    assert_allclose(pose.points[chosen[3:], :2], px[3:], atol=1.5)
