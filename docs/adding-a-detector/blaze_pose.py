"""BlazePose, computed by LiteRT, with the weights in MediaPipe's wheel.  pixels -> [people] -> tracks

Bazarevsky et al. 2020 (arXiv 2006.10204). The numbers are those of MediaPipe's graphs pose_detection and pose_landmark.
A first network finds people by the middle of their hips and a point above it. A second one finds 39 points in a square
around these, turned upright. MediaPipe follows one person; this detector searches squares of each image.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.api import Detect, Detector, Image, MissingAssets, People

Network = Callable[[NDArray[Any]], list[NDArray[np.float32]]]

FILES: Final = ("pose_detection/pose_detection.tflite", "pose_landmark/pose_landmark_full.tflite")  # in the wheel
SIDE, CROP_SIDE = 224, 256  # px that the networks take
GRIDS: Final = ((28, 2), (14, 2), (7, 6))  # cells along a side, and outputs of each
CROP_SCALE: Final = 1.25
COCO: Final = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]  # among BlazePose's points


@dataclass(frozen=True)
class BlazePose(Detector):
    """`weights`: MediaPipe's wheel (tried with 0.10.21), which need not be installed."""

    weights: str = ""
    min_score: float = 0.5  # of both networks
    max_overlap: float = 0.3  # of boxes of the first one: intersection over union

    name: ClassVar[str] = "blaze_pose"
    version: ClassVar[int] = 1

    def files(self) -> list[bytes]:
        """The content of FILES. Raises MissingAssets without such a wheel."""
        try:
            with zipfile.ZipFile(self.weights) as wheel:
                return [wheel.read(f"mediapipe/modules/{name}") for name in FILES]
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            message = f"weights {self.weights!r}: expected MediaPipe's wheel, found {error}: --weights FILE.whl"
            raise MissingAssets(message) from error

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": sha256(b"".join(self.files())).hexdigest()}

    def below(self, folder: Path) -> Self:
        return replace(self, weights=str(folder / self.weights))

    def load(self, device: str) -> Detect:  # noqa: ARG002 - runs on the CPU
        find, look = map(_network, self.files())
        return lambda images: [self.people(find, look, image) for image in images]

    def people(self, find: Network, look: Network, image: Image) -> People:
        """People in one image (H, W, 3)."""
        rows = np.concatenate([self.candidates(find, image, square) for square in _squares(image)])
        best = cv2.dnn.NMSBoxes(rows[:, 1:5].tolist(), rows[:, 0].tolist(), self.min_score, self.max_overlap)
        persons = [_points(look, image, row[5:7], row[7:]) for row in rows[np.array(best, np.int64).reshape(-1)]]
        persons = [(score, points) for score, points in persons if score >= self.min_score]
        if not persons:
            return People(*(np.zeros((0, *shape), np.float32) for shape in ((4,), (), (17, 3))))
        scores, keypoints = np.array([score for score, _ in persons], np.float32), np.stack([row for _, row in persons])
        size = np.array(image.shape[1::-1])
        far = np.abs(keypoints[..., :2] - size / 2) > 0.9 * max(image.shape)  # guesses of joints outside the image
        keypoints[..., 2] *= ~far.any(axis=-1)
        corners = np.hstack([keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)])
        boxes = np.clip(corners, 0, np.tile(size, 2)).astype(np.float32)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return People(boxes[visible], scores[visible], keypoints[visible])

    def candidates(self, find: Network, image: Image, square: tuple[float, float, float]) -> NDArray[np.float64]:
        """(N, 9): score, x y of a box's corner, its width and height, the hips' middle, the point above, in px."""
        x, y, side = square
        affine = np.array([[SIDE / side, 0, -x * SIDE / side], [0, SIDE / side, -y * SIDE / side]])
        scaled = cv2.warpAffine(image, affine, (SIDE, SIDE), flags=cv2.INTER_AREA)
        values, logits = find(scaled / np.float32(127.5) - 1)
        scores = _sigmoid(logits[:, 0])
        sure = scores >= self.min_score
        pairs = values[sure].reshape(-1, 6, 2) / SIDE  # centre, size, four points
        pairs[:, [0, 2, 3, 4, 5]] += _cells()[sure, None]
        points = pairs * side + [[x, y], [0, 0], *[[x, y]] * 4]
        corner = points[:, 0] - points[:, 1] / 2
        return np.column_stack([scores[sure], corner, *points[:, 1:4].swapaxes(0, 1)])


def _squares(image: Image) -> list[tuple[float, float, float]]:
    """Left, top and side of the largest squares that cover the image and overlap by half or more."""
    height, width = image.shape[:2]
    side, more = min(height, width), abs(height - width)
    starts = np.linspace(0, more, 1 - (-2 * more // side))
    return [(start, 0, side) if width > height else (0, start, side) for start in starts]


def _cells() -> NDArray[np.float64]:
    """(2254, 2) the middle of each output's cell, as a share of the square."""
    grids = [np.repeat(np.indices((n, n))[::-1].reshape(2, -1).T + 0.5, times, axis=0) / n for n, times in GRIDS]
    return np.concatenate(grids)


def _points(look: Network, image: Image, hips: Any, above: Any) -> tuple[float, NDArray[np.float32]]:
    """A person's score, and COCO's joints (17, 3) in px of the image."""
    up = above - hips
    length = max(float(np.linalg.norm(up)), 1.0)
    scale = CROP_SIDE / (2 * CROP_SCALE * length)
    cos, sin = np.array([-up[1], up[0]]) / length
    turn = scale * np.array([[cos, sin], [-sin, cos]])
    shift = CROP_SIDE / 2 - turn @ hips
    crop = cv2.warpAffine(image, np.column_stack([turn, shift]), (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR)
    points, score = look(crop / np.float32(255))[:2]
    rows = points.reshape(-1, 5)[COCO].astype(np.float64)  # x, y, depth, and two logits: visible, inside the crop
    joints = np.column_stack([(rows[:, :2] - shift) @ np.linalg.inv(turn).T, _sigmoid(rows[:, 3:].min(axis=1))])
    return float(score[0]), joints.astype(np.float32)


def _sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))


def _network(content: bytes) -> Network:
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_content=content)
    network.allocate_tensors()
    outputs = sorted(network.get_output_details(), key=lambda output: output["name"])  # Identity, Identity_1, ...

    def call(pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
        network.set_tensor(network.get_input_details()[0]["index"], pixels[None].astype(np.float32))
        network.invoke()
        return [network.get_tensor(output["index"])[0] for output in outputs]

    return call
