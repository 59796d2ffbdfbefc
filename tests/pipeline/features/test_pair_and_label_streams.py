"""Our streams of pairs and of labels, `homography` and `pose_2d`, without an extraction: options, numbers, flags."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CropPolicy
from pipeline import homography, skeletons
from pipeline.errors import ConfigError
from pipeline.features import streams
from pipeline.features.streams import Machine
from pipeline.synthetic import calibration_crops

# ------------------------------------------------------------------------------------------------- homography


def textured(seed: int) -> np.ndarray:
    """(224, 224, 3) uint8 of noise on all scales."""
    rng, picture = np.random.default_rng(seed), np.full((224, 224, 3), 128, np.float32)
    for octave in range(6):
        noise = rng.standard_normal((224 >> octave, 224 >> octave, 3)).astype(np.float32)
        picture += (4 + 2 * octave) * cv2.resize(noise, (224, 224), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    picture: np.ndarray = calibration_crops(1)[0]
    return picture


OPTIONS: list[dict[str, Any]] = [{}, {"flow": "lk"}, {"fit": "plain"}, {"finest_scale": 0}, {"rounds": 3}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_row_is_the_homography_of_its_pair_without_the_identity(options: Any, crop: np.ndarray) -> None:
    stream, later = streams.get("homography", **options), np.roll(crop, (2, -3), (0, 1))
    row = stream.pair(crop, later)
    assert (row.shape, row.dtype, stream.dtype, row[8]) == ((stream.dim,), np.float32, "float32", 0)
    passed = {"method" if name == "fit" else name: value for name, value in options.items()}
    expected, known = homography.between(crop, later, **passed)
    assert known
    np.testing.assert_array_equal(row, (expected - np.eye(3)).astype(np.float32).ravel())
    # x' = x - 3 px and y' = y + 2 px of 112 px
    np.testing.assert_allclose(row[[2, 5]], [-3 / 112, 2 / 112], atol=2e-3)


def test_a_stream_of_before_rounds_were_an_option_had_three() -> None:
    older = {"kind": "homography", "version": 1, "flow": "dis", "fit": "robust", "finest_scale": 1}
    stream = streams.of_identity(older)
    assert stream == streams.get("homography", rounds=3)
    assert stream.identity() == older


def test_a_crop_beside_the_picture_shows_no_motion_that_could_be_known(crop: np.ndarray) -> None:
    stream, black = streams.get("homography"), np.zeros_like(crop)
    for earlier, later in ((black, black), (crop, black), (black, crop)):
        assert stream.pair(earlier, later) is None


def test_its_identity_has_its_options_and_not_the_computer_it_was_computed_on() -> None:
    stream = streams.get("homography", flow="lk", fit="plain", crop=CropPolicy(size=256))
    options = {"flow": "lk", "fit": "plain", "finest_scale": 1, "rounds": 10}
    assert stream.identity() == {"kind": "homography", "version": 1, **options, "crop": {"size": 256}}
    for one in (stream, streams.get("homography", parts=5, rounds=7), streams.get("homography", region="person")):
        assert streams.of_identity(json.loads(json.dumps(one.identity()))) == one
    assert stream.provenance["opencv"] == cv2.__version__
    assert stream.provenance["cpu_features"]
    assert not stream.provenance["stand_in"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "brox"}, "flow 'brox': expected one of dis, lk"),
        ({"fit": "ransac"}, "fit 'ransac': expected one of robust, plain"),
        ({"finest_scale": 3}, "finest scale 3: expected 0 to 2"),
        ({"flow": "lk", "finest_scale": 0}, "is for flow dis"),
        ({"region": "body"}, "region 'body': expected one of crop, person"),
        ({"parts": 4}, "parts 4: expected one of 1, 5"),
        ({"parts": 5, "region": "person"}, "leave out region"),
        ({"parts": 5, "fit": "plain"}, "fit plain: counts every point of the crop once"),
        ({"rounds": 101}, "rounds 101: expected 0 to 100"),
        ({"crop": CropPolicy(size=91)}, "crop of 91 px: expected at least 92 px at finest_scale 1"),
        ({"crop": CropPolicy(size=256, region=(256, 192))}, "crop with a region"),
    ],
)
def test_options_without_a_meaning_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        streams.get("homography", **options)


JOINTS = skeletons.joint_names("spin49")
STANDING = {  # x, y of a person in front view, its left side at larger x; torso 4 wide and 6 high
    "nose": (0, -9), "lshoulder": (2, -6), "rshoulder": (-2, -6), "lelbow": (3, -3), "relbow": (-3, -3),
    "lwrist": (3, 0), "rwrist": (-3, 0), "lhip": (1, 0), "rhip": (-1, 0), "lknee": (1, 5), "rknee": (-1, 5),
    "lankle": (1, 10), "rankle": (-1, 10),
}  # fmt: skip

BODY = {  # by part: the lines of a standing person that a picture is drawn of, in the order of the 45 numbers
    "torso": ("lshoulder lhip", "rshoulder rhip", "lshoulder rhip", "rshoulder lhip", "nose lshoulder"),
    "left leg": ("lhip lknee", "lknee lankle"), "right leg": ("rhip rknee", "rknee rankle"),
    "left arm": ("lshoulder lelbow", "lelbow lwrist"), "right arm": ("rshoulder relbow", "relbow rwrist"),
}  # fmt: skip


def of_crop(xy: Any) -> np.ndarray:
    """STANDING's places -> [-1, 1] of a crop."""
    return np.array(xy) * [0.13, 0.08]


def drawn(part: str, thickness: int) -> np.ndarray:
    """(224, 224) where a part of the standing person is seen."""
    shown = np.zeros((224, 224), np.uint8)
    for line in BODY[part]:
        ends = [tuple(np.rint((of_crop(STANDING[name]) + 1) * 112 - 0.5).astype(int).tolist()) for name in line.split()]
        cv2.line(shown, *ends, 255, thickness)
    return shown


def moved(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """By (x, y) px."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    return np.asarray(cv2.warpAffine(picture, matrix, (224, 224), borderMode=cv2.BORDER_REFLECT), np.uint8)


def scene(seed: int, shifts: dict[str, np.ndarray], thickness: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two crops of a person before a background at rest, whose parts have moved by (x, y) px; later keypoints."""
    earlier = textured(seed)
    later = earlier.copy()
    for number, (part, shift) in enumerate(shifts.items(), 1):
        shown, texture = drawn(part, thickness), textured(100 * seed + number)
        later[shown > 0] = texture[shown > 0]
        before = moved(shown, -shift) > 127
        earlier[before] = moved(texture, -shift)[before]
    return earlier, later, labels(**{name: tuple(of_crop(xy)) for name, xy in STANDING.items()})[0]


def shift_of(row: np.ndarray, part: str) -> np.ndarray:
    """(2,) px: by how much nine numbers move a part, on average."""
    y, x = np.nonzero(drawn(part, 5))
    at = homography.normalise(np.stack([x, y], axis=1), 224, 224)
    return np.asarray((homography.transfer(row.reshape(3, 3) + np.eye(3), at) - at).mean(axis=0) * 112)


def test_the_person_is_found_to_move_where_the_background_fills_most_of_the_crop() -> None:
    """By 5 px, before a background at rest, which the whole crop's homography follows."""
    for seed in range(3):
        shift = 5 * np.array([np.cos(seed), np.sin(seed)])
        earlier, later, kp_2d = scene(seed, dict.fromkeys(BODY, shift), 21)
        crop, person = streams.get("homography"), streams.get("homography", region="person")
        assert np.linalg.norm(shift_of(crop.pair(earlier, later), "torso")) < 1
        row = person.pair(earlier, later, kp_2d=kp_2d)
        assert row.shape == (9,)
        assert np.linalg.norm(shift_of(row, "torso") - shift) < 0.5


def test_each_of_five_parts_has_its_own_motion() -> None:
    """Of 3 px: found to 0.2 px in the median, at full resolution; a part without keypoints is 0."""
    stream, off = streams.get("homography", parts=5, finest_scale=0), []
    assert (stream.dim, stream.columns, stream.needs) == (45, ("kp_2d",), ("frame_index", "bbox", "kp_2d"))
    for seed in range(3):
        angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, 5)
        shifts = {part: 3 * np.array([np.cos(a), np.sin(a)]) for part, a in zip(BODY, angles, strict=True)}
        earlier, later, kp_2d = scene(seed, shifts, 17)
        rows = stream.pair(earlier, later, kp_2d=kp_2d).reshape(5, 9)
        off += [np.linalg.norm(shift_of(row, part) - shifts[part]) for row, part in zip(rows, BODY, strict=True)]
    assert np.median(off) < 0.3
    assert max(off) < 1
    kp_2d[[JOINTS.index(name) for name in ("lelbow", "OP LElbow")]] = 0
    without = stream.pair(earlier, later, kp_2d=kp_2d).reshape(5, 9)
    assert not without[3].any()
    assert all(without[part].any() for part in (0, 1, 2, 4))
    for options in ({"parts": 5}, {"region": "person"}):
        assert streams.get("homography", **options).pair(earlier, later, kp_2d=0 * kp_2d) is None


# ---------------------------------------------------------------------------------------------------- pose_2d

OPENPOSE = {name: f"OP {name.title() if name == 'nose' else name[0].upper() + name[1:].title()}" for name in STANDING}
SIZE = np.hypot(3, 6)  # px, from one shoulder to the other side's hip
EXPECTED = np.array(list(STANDING.values())) / (2 * SIZE)


def labels(**points: tuple[float, float]) -> np.ndarray:
    """(1, 49, 3) of these points, the others missing; `OP_LHip` for a name with a space."""
    kp = np.zeros((1, 49, 3), np.float32)
    for name, (x, y) in points.items():
        kp[0, JOINTS.index(name.replace("_", " "))] = x, y, 1
    return kp


def computed(kp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 13, 2) and (N,)."""
    values, known = streams.get("pose_2d").load(Machine(), None)({"kp_2d": kp})
    assert (values.shape, values.dtype, known.dtype) == ((len(kp), 26), np.float32, np.bool_)
    return values.reshape(-1, 13, 2), known


def test_a_standing_person_is_normalised_by_hips_and_torso() -> None:
    values, known = computed(labels(**STANDING))
    assert known.all()
    np.testing.assert_allclose(values[0], EXPECTED, atol=1e-7)


@given(
    kp=st.lists(st.floats(-100, 100, width=32), min_size=26, max_size=26),
    scale=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
)
def test_place_and_size_do_not_matter(kp: list[float], scale: float, shift: tuple[float, float]) -> None:
    points = np.array(kp).reshape(13, 2) + 20 * np.array(list(STANDING.values()))  # of no less than a few px
    first, second = (
        labels(**{name: tuple(point) for name, point in zip(STANDING, of, strict=True)})
        for of in (points, points * scale + shift)
    )
    (before, known), (after, also) = computed(first), computed(second)
    assert known.all() and also.all()
    np.testing.assert_allclose(after, before, atol=1e-5 * (1 + 1000 / scale))  # float32 labels, far from 0


@pytest.mark.parametrize("missing", ["nose", "lwrist", "rankle"])
def test_a_missing_keypoint_is_0_and_moves_no_other(missing: str) -> None:
    values, known = computed(labels(**{name: xy for name, xy in STANDING.items() if name != missing}))
    expected = EXPECTED.copy()
    expected[list(STANDING).index(missing)] = 0
    assert known.all()
    np.testing.assert_allclose(values[0], expected, atol=1e-7)


@pytest.mark.parametrize("missing", ["lshoulder", "rshoulder", "lhip", "rhip"])
def test_without_both_hips_and_shoulders_nothing_is_known(missing: str) -> None:
    values, known = computed(labels(**{name: xy for name, xy in STANDING.items() if name != missing}))
    assert not known.any()
    assert not values.any()


def test_a_torso_of_no_size_is_not_known_and_no_row_depends_on_another() -> None:
    point = labels(**dict.fromkeys(STANDING, (5, 5)))
    values, known = computed(np.concatenate([point, labels(**STANDING), labels()]))
    assert known.tolist() == [False, True, False]
    np.testing.assert_allclose(values, [0 * EXPECTED, EXPECTED, 0 * EXPECTED], atol=1e-7)


def test_openpose_s_points_count_where_a_dataset_does_not_label_the_usual_ones() -> None:
    openpose = {OPENPOSE[name].replace(" ", "_"): xy for name, xy in STANDING.items()}
    np.testing.assert_array_equal(computed(labels(**openpose))[0], computed(labels(**STANDING))[0])
    elsewhere = {name: (x + 1, y) for name, (x, y) in openpose.items()}
    np.testing.assert_array_equal(computed(labels(**elsewhere, **STANDING))[0], computed(labels(**STANDING))[0])


def test_its_identity_is_kind_and_version_alone_and_it_reads_one_column() -> None:
    stream: Any = streams.get("pose_2d")
    assert stream.identity() == {"kind": "pose_2d", "version": 1}
    assert streams.of_identity(stream.identity()) == stream
    assert stream.columns == ("kp_2d",)
    assert stream.load(Machine(), None).provenance == {"stand_in": False}
