"""BlazePose, for several people, in LiteRT on the CPU.  [pixels -> raw keypoints, features] ->
tracks

Bazarevsky et al. 2020 (arXiv 2006.10204). The constants are those of MediaPipe's graphs
pose_detection and pose_landmark. Two networks:

    finder      finds people in a square, each as a circle
    landmarks   finds 39 points in a square around a circle, turned upright: 33 of the body, two of
                the circle, and four unused ones

A circle (2, 2) is two points: its centre, in the middle of the person's hips, and a point on it,
straight above the centre if the person stands. Its radius is as far as the body reaches.

MediaPipe follows one person. This detector finds several in a key frame:

    _squares            cut overlapping squares of three sizes from the image, whose side is the
                        image's longer side, its shorter side, or half of that
    find_people         candidates in each square: a score and a circle
    _settle             check a candidate: compute the pose in its circle, then in the circle that
                        the network returned, and so on. The circle of a real person soon holds
                        still; that of a tree or of part of a person moves on
    _people             joints, boxes and scores, without duplicates

In the frames after it, the pose is computed in each person's circle of the frame before. As in
MediaPipe, the area outside the image is black for the first network, and repeats the image's edge
for the second one. Coordinates are OpenCV's: (0, 0) is a pixel's centre.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple

import cv2
import numpy as np

from pipeline.clips.detectors import Detect, People
from pipeline.clips.detectors.two_parts import FollowingDetector, distinct, run_chains
from pipeline.errors import ConfigError, missing_package
from pipeline.files.packages import PackageFile, fetch_files
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Doubles, Float32s
from pipeline.processes import cores

Weights = Literal["lite", "full", "heavy"]

LICENCE: Final = "Apache-2.0"  # of both packages; the files themselves state none
_WHEEL: Final = partial(PackageFile, "mediapipe", "0.10.21")
_NPM: Final = partial(PackageFile, "@mediapipe/pose", "0.5.1675469404")
_NPM_FINDER: Final = _NPM(
    "package/pose_solution_packed_assets.data",
    "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
)
# option `weights` -> files of the finder and of the landmarks
FILES: Final[dict[str, tuple[PackageFile, PackageFile]]] = {
    "lite": (
        _NPM_FINDER,
        _NPM(
            "package/pose_landmark_lite.tflite",
            "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        ),
    ),
    "full": (
        _WHEEL(
            "mediapipe/modules/pose_detection/pose_detection.tflite",
            "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ),
        _WHEEL(
            "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        ),
    ),
    "heavy": (
        _NPM_FINDER,
        _NPM(
            "package/pose_landmark_heavy.tflite",
            "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        ),
    ),
}
FINDER_SIDE: Final = 224  # px, side of the square that the finder takes
LANDMARKS_SIDE: Final = 256  # px, side of the square that the landmarks take
CELLS: Final = ((28, 2), (14, 2), (7, 6))  # the finder's grids: cells per side, outputs per cell
SAME_FACE: Final = 0.3  # least intersection over union of boxes of one face
MARGIN: Final = 1.25  # side of the landmarks' square / diameter of the circle
N_POINTS: Final = 33  # of the body
COCO_POINTS: Final = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
HEAT_SIDE: Final = 64  # cells along a side of a heat map
REACH: Final = 4  # cells on each side of a point that refine it, by MediaPipe 0.10.21's results
SURE: Final = 0.5  # least score of a face, and least value of a heat map that refines a point
SAME_CENTRE: Final = 0.25  # radii: centres of circles of one person are nearer
STILL: Final = 0.08  # radii: a circle that moves and grows by less holds still
MOST_ESTIMATES: Final = 4  # most poses that are computed until a circle holds still


class Pose(NamedTuple):
    """The second network's result for a circle."""

    presence: float  # probability that there is a person, 0..1
    # (33, 3) px, px, confidence 0..1: the lower of two probabilities, visible and in the square
    points: Doubles
    # (33, 4) m from the middle of the hips (x right, y down, z away from the camera), and the
    # probability of being visible, 0..1
    joints: Doubles
    circle: Doubles  # (2, 2) px, the person's circle, in which to look in the next frame


class _FramePeople(NamedTuple):
    """The P people of a frame, and where to look for them in the next one."""

    people: People
    circles: Doubles  # (P, 2, 2) px


@dataclass(frozen=True)
class BlazePose(FollowingDetector):
    """Finds people and 17 joints of each by BlazePose, with few people in a frame.

    Weights are from MediaPipe's wheel (full) or npm (lite, heavy).
    """

    weights: Weights = "full"  # lite, full or heavy
    min_score: float = 0.5  # minimum score of a person, and of the pose in its crop, 0 to 1

    name: ClassVar[str] = "blaze_pose"
    version: ClassVar[int] = 2  # the image's edge is repeated, and 9 x 9 cells refine a point

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in FILES or not 0 <= self.min_score <= 1:
            options = f"weights {self.weights!r}, min_score {self.min_score}"
            raise ConfigError(
                f"{options}: expected {', '.join(FILES)}, and a number from 0 to 1",
                "weights",
                "min_score",
            )

    @property
    def downloads(self) -> bool:
        return not all(file.cached_path.is_file() for file in FILES[self.weights])

    def identity(self) -> dict[str, Any]:
        files = FILES[self.weights]
        fetch_files(*files)
        digests = [file.sha256 for file in files]
        return super().identity() | {"sha256": digests}

    def terms(self) -> list[dict[str, str]]:
        return terms(self.weights)

    def load(self, device: str) -> Detect:  # noqa: ARG002 - runs on the CPU
        finder = _Finder(self.min_score, *load_networks(self.weights))
        threads = ThreadPoolExecutor(cores(0), thread_name_prefix="blaze")

        def search(images: Sequence[Image]) -> list[_FramePeople]:
            return list(threads.map(finder.search, images))

        def follow(images: Sequence[Image], before: Sequence[_FramePeople]) -> list[_FramePeople]:
            return list(threads.map(finder.follow, images, before))

        def detect(images: Sequence[Image], keys: Sequence[bool] = ()) -> list[People]:
            return [frame.people for frame in run_chains(search, follow, images, keys)]

        return detect


_standard_error: Final = threading.Lock()


class _LiteNetwork:
    """A network in LiteRT. Threads may share it: each has its own interpreter, on one core."""

    def __init__(self, file: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise missing_package("BlazePose", "ai-edge-litert", "clips") from error
        self._load = partial(Interpreter, model_content=file.read_bytes(), num_threads=1)
        self._thread = threading.local()  # of each thread: its interpreter, `network`

    def __call__(self, pixels: Array) -> list[Float32s]:
        """Compute the outputs for an image (H, W, 3), without their batch axis.

        Outputs are in the order of their names: Identity, Identity_1, ...
        """
        if not hasattr(self._thread, "network"):
            with _silence_info():
                self._thread.network = self._load()
                self._thread.network.allocate_tensors()
        network = self._thread.network
        (expected,) = network.get_input_details()
        batch = pixels[None].astype(np.float32)
        network.set_tensor(expected["index"], batch)
        network.invoke()
        outputs = sorted(network.get_output_details(), key=lambda output: str(output["name"]))
        return [network.get_tensor(output["index"])[0] for output in outputs]


@contextmanager
def _silence_info() -> Iterator[None]:
    """Leave out the lines that LiteRT, which has no setting for it, writes about its delegate."""
    with _standard_error, os.fdopen(os.memfd_create("litert"), "w+b") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            os.write(2, b"".join(line for line in file if not line.startswith(b"INFO: ")))


def load_networks(weights: str) -> tuple[_LiteNetwork, _LiteNetwork]:
    """Load the finder and the landmarks, downloading their files if needed.

    Raises MissingAssets without their files, ConfigError without LiteRT.
    """
    finder, landmarks = map(_LiteNetwork, fetch_files(*FILES[weights]))
    return finder, landmarks


def terms(weights: str) -> list[dict[str, str]]:
    """SHA-256, licence and source of both networks' files (`Detector.terms`)."""
    return [
        {
            "sha256": file.sha256,
            "licence": LICENCE,
            "source": f"{file.package} {file.version}, {file.path}",
        }
        for file in FILES[weights]
    ]


def find_people(
    network: _LiteNetwork, square: Image, min_score: float = SURE
) -> list[tuple[float, Doubles]]:
    """Find the people in a square image (224, 224, 3): (score, circle (2, 2) px), best first.

    The network also returns a box of each face. Outputs whose faces overlap are one person, whose
    circle is the mean of theirs, weighted by the scores.
    """
    values, logits = network(square / np.float32(127.5) - 1)
    scores = _sigmoid(logits[:, 0])
    n_people = int((scores >= min_score).sum())
    order = np.argsort(-scores, kind="stable")[:n_people]
    # six pairs per output: middle and size of the face, two of the circle, two unused points
    pairs = values.reshape(-1, 6, 2).astype(np.float64)
    pairs[:, [0, 2, 3]] += _cells()[:, None]
    middle = pairs[:, 0]
    size = pairs[:, 1]
    circles = pairs[:, 2:4]
    low = middle - size / 2
    high = middle + size / 2
    area = size.prod(axis=1)
    people = []
    while len(order):
        best = order[0]
        shared_low = np.maximum(low[order], low[best])
        shared_high = np.minimum(high[order], high[best])
        shared = np.maximum(shared_high - shared_low, 0).prod(axis=1)
        union = area[order] + area[best] - shared
        is_same = shared > SAME_FACE * union
        is_same[0] = True  # a face without area, too
        outputs = order[is_same]
        circle = np.average(circles[outputs], axis=0, weights=scores[outputs])
        people.append((float(scores[best]), circle))
        order = order[~is_same]
    return people


def estimate_pose(network: _LiteNetwork, image: Image, circle: Doubles) -> Pose:
    """Compute the pose of the person in a circle (2, 2) px of an image.

    Outside the image, its edge is repeated.
    """
    side = LANDMARKS_SIDE
    up = circle[1] - circle[0]
    if np.linalg.norm(up) < 1:
        up = np.array([0, -1])
    radius = float(np.linalg.norm(up))
    # of the square's turn, clockwise on the screen
    sin = up[0] / radius
    cos = -up[1] / radius
    turn = np.array([[cos, sin], [-sin, cos]])

    # px of the image -> px of the square
    scale = side / (2 * MARGIN * radius)
    linear = scale * turn
    shift = side / 2 - linear @ circle[0]
    affine = np.column_stack([linear, shift])
    edge = cv2.BORDER_REPLICATE
    pixels = cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_LINEAR, borderMode=edge)
    points, presence, _, heat, metres = network(pixels / np.float32(255))

    # (39, 5): x, y, depth, and two logits: visible, inside the square
    rows = points.reshape(-1, 5).astype(np.float64)
    in_square = _refine(rows[:, :2], heat)
    xy = (in_square - shift) @ np.linalg.inv(linear).T
    visible, inside = _sigmoid(rows[:N_POINTS, 3:]).T
    confidence = np.minimum(visible, inside)

    about_z = np.eye(3)
    about_z[:2, :2] = turn
    joints = metres.reshape(-1, 3)[:N_POINTS] @ about_z  # back into the image's axes
    return Pose(
        presence=float(presence.item()),
        points=np.column_stack([xy[:N_POINTS], confidence]),
        joints=np.column_stack([joints, visible]),
        circle=xy[N_POINTS : N_POINTS + 2],
    )


class _Finder:
    """Finds the people in an image: anew (`search`), or from the frame before (`follow`)."""

    def __init__(self, min_score: float, finder: _LiteNetwork, landmarks: _LiteNetwork) -> None:
        self._min_score = min_score
        self._finder = finder
        self._landmarks = landmarks

    def search(self, image: Image) -> _FramePeople:
        candidates = []
        for square, zoom, corner in _squares(image):
            for score, circle in find_people(self._finder, square, self._min_score):
                candidates.append((score, (circle + corner) / zoom))
        candidates.sort(key=lambda candidate: -candidate[0])

        poses: list[Pose] = []
        for _, circle in candidates:
            pose = self._settle(image, circle, poses)
            if pose is not None:
                poses.append(pose)
        return self._people(image, poses)

    def follow(self, image: Image, before: _FramePeople) -> _FramePeople:
        poses = [estimate_pose(self._landmarks, image, circle) for circle in before.circles]
        return self._people(image, poses)

    def _settle(self, image: Image, circle: Doubles, others: Sequence[Pose]) -> Pose | None:
        """Compute the pose of a candidate again and again, until its circle holds still.

        None if it does not within MOST_ESTIMATES poses, if no person is there, or if the circle is
        that of one of `others`.
        """
        for _ in range(MOST_ESTIMATES):
            for earlier_pose in others:
                distance, _ = _compare(earlier_pose.circle, circle)
                if distance < SAME_CENTRE:
                    return None
            pose = estimate_pose(self._landmarks, image, circle)
            if pose.presence < self._min_score:
                return None
            if max(_compare(circle, pose.circle)) < STILL:
                return pose
            circle = pose.circle
        return None

    def _people(self, image: Image, poses: Sequence[Pose]) -> _FramePeople:
        """Make a person of each pose with sufficient presence, without duplicates.

        Joints outside the image get confidence 0.
        """
        size = np.array(image.shape[1::-1])
        present = []
        for pose in poses:
            in_image = np.clip(pose.points[:, :2], 0, size)
            extent = np.ptp(in_image, axis=0)
            if pose.presence >= self._min_score and (extent >= 1).all():
                present.append(pose)

        points = np.array([pose.points for pose in present], np.float32)
        points = points.reshape(-1, N_POINTS, 3)
        xy = points[..., :2]
        is_inside = (xy >= 0) & (xy < size)
        points[..., 2] *= is_inside.all(axis=-1)
        body = np.clip(xy, 0, size).astype(np.float32)
        boxes = np.hstack([body.min(axis=1), body.max(axis=1)])
        scores = np.array([pose.presence for pose in present], np.float32)
        people = People(boxes, scores, points[:, COCO_POINTS])
        chosen = distinct(people)
        circles = np.array([pose.circle for pose in present]).reshape(-1, 2, 2)
        return _FramePeople(People(*(values[chosen] for values in people)), circles[chosen])


def _compare(circle: Doubles, other: Doubles) -> tuple[float, float]:
    """(distance of two circles' centres, difference of their radii), in radii of the smaller."""
    radius = float(np.linalg.norm(circle[1] - circle[0]))
    other_radius = float(np.linalg.norm(other[1] - other[0]))
    unit = max(min(radius, other_radius), 1)
    distance = float(np.linalg.norm(circle[0] - other[0]))
    return distance / unit, abs(radius - other_radius) / unit


def _squares(image: Image) -> Iterator[tuple[Image, Doubles, Array]]:
    """Yield the squares in which people are searched, of three scales of the image.

    Each is (square (224, 224, 3), its scale (x, y), its corner in the scaled image (x, y) px).
    """
    size = np.array(image.shape[1::-1])
    longer = int(size.max())
    shorter = int(size.min())
    n = FINDER_SIDE
    for side in dict.fromkeys((longer, shorter, shorter / 2)):
        scaled_size = np.maximum(np.rint(size * n / side), 1)
        width, height = scaled_size.astype(int).tolist()
        scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        zoom = np.array([width, height]) / size
        left = max(0, n - width) // 2
        top = max(0, n - height) // 2
        right = max(0, n - width - left)
        bottom = max(0, n - height - top)
        padding = (top, bottom, left, right)
        padded: Any = cv2.copyMakeBorder(scaled, *padding, cv2.BORDER_CONSTANT)
        for y in _starts(padded.shape[0]):
            for x in _starts(padded.shape[1]):
                square = padded[y : y + n, x : x + n]
                yield square, zoom, np.array([x - left, y - top])


def _starts(length: int) -> list[int]:
    """Where squares begin along a side of `length` px.

    They are at most half a square apart, and the last one ends where the side ends.
    """
    last = length - FINDER_SIDE
    n_steps = -(-2 * last // FINDER_SIDE)  # rounded up
    starts: list[int] = np.linspace(0, last, 1 + n_steps, dtype=int).tolist()
    return starts


def _cells() -> Doubles:
    """The centre of the cell of each of the finder's outputs, (2254, 2) px."""
    grids = []
    for n, n_outputs in CELLS:
        row, column = np.indices((n, n)).reshape(2, -1)
        middles = np.column_stack([column, row]) + 0.5
        grids.append(np.repeat(middles, n_outputs, axis=0) / n)
    return np.concatenate(grids) * FINDER_SIDE


def _refine(xy: Doubles, heat: Float32s) -> Doubles:
    """Refine points, (39, 2) px of the square, by their heat maps (64, 64, 39).

    A point moves to the weighted mean of its heat map's cells within REACH, if one of these is at
    least SURE and the point is inside the square.
    """
    cell_px = LANDMARKS_SIDE // HEAT_SIDE
    cell = np.floor(xy / cell_px).astype(np.int64)
    offsets = np.arange(-REACH, REACH + 1)
    near = cell[:, None] + offsets[:, None]  # (39, 9, 2) columns and rows
    inside = (near >= 0) & (near < HEAT_SIDE)
    in_map = np.clip(near, 0, HEAT_SIDE - 1)
    columns = in_map[:, None, :, 0]  # (39, 1, 9)
    rows = in_map[:, :, None, 1]  # (39, 9, 1)
    point = np.arange(len(xy))[:, None, None]

    weights = _sigmoid(heat[rows, columns, point])  # (39, 9, 9)
    in_column = inside[:, None, :, 0]
    in_row = inside[:, :, None, 1]
    weights *= in_row & in_column
    total = weights.sum(axis=(1, 2))
    x = (weights * columns).sum(axis=(1, 2))
    y = (weights * rows).sum(axis=(1, 2))
    at_least_sure = np.maximum(total, SURE)[:, None]
    middle = np.column_stack([x, y]) / at_least_sure

    is_inside = inside[:, REACH].all(axis=1)
    is_sure = (weights.max(axis=(1, 2)) >= SURE) & is_inside
    return np.where(is_sure[:, None], middle * cell_px, xy)


def _sigmoid(logits: Array) -> Doubles:
    bounded = np.clip(logits.astype(np.float64), -100, 100)
    return 1 / (1 + np.exp(-bounded))
