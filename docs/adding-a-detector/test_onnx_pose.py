"""The detector with a network whose output is known, and the contract of all detectors.  python -m pytest"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx_pose import OnnxPose

from vibe_extensions.contracts import DetectorContract

JOINTS = np.column_stack([np.linspace(200, 300, 17), np.linspace(100, 300, 17), np.full(17, 0.75)])  # px of 640


class Network:
    """One person in a bright picture, found twice, and a doubtful one, whatever the picture."""

    score = 0.0

    def setInput(self, blob: Any) -> None:  # noqa: N802 - OpenCV's name
        assert blob.shape == (1, 3, 640, 640)
        assert blob.max() <= 1
        self.score = float(blob.max() > 0.9)

    def forward(self) -> Any:
        box, joints = [250, 200, 100, 200], JOINTS.ravel()
        return np.array(
            [[*box, 0.875 * self.score, *joints], [*box, 0.625 * self.score, *joints], [500, *box[1:], 0.25, *joints]]
        ).T[None]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda _: Network())
    (tmp_path / "pose.onnx").write_bytes(b"weights")
    return tmp_path / "pose.onnx"


def test_people_are_in_pixels_of_the_image_each_once(weights: Path) -> None:
    find = OnnxPose(weights=str(weights)).load("cpu")
    for people in find([np.full((240, 320, 3), 255, np.uint8)] * 3):
        assert people.scores == pytest.approx([0.875])
        np.testing.assert_allclose(people.keypoints[0], JOINTS * [0.5, 0.5, 1], atol=0.01)


class TestContract(DetectorContract):
    @pytest.fixture
    def detector(self, weights: Path) -> OnnxPose:
        return OnnxPose(weights=str(weights))

    @pytest.fixture
    def images(self) -> list[np.ndarray]:
        return [np.full((48, 64, 3), 255, np.uint8), np.full((64, 64, 3), 255, np.uint8)]

    @pytest.fixture
    def another_process(self) -> bool:
        return False  # it would not have the network that `weights` patches in


def test_nobody_is_no_error(weights: Path) -> None:
    find = OnnxPose(weights=str(weights), min_score=0.9).load("cpu")
    (people,) = find([np.zeros((48, 64, 3), np.uint8)])
    assert [part.shape for part in people] == [(0, 4), (0,), (0, 17, 3)]


def test_the_weights_content_is_part_of_its_identity(weights: Path) -> None:
    before = OnnxPose(weights=str(weights)).identity()
    weights.write_bytes(b"others")
    assert OnnxPose(weights=str(weights)).identity() != before
