"""The contract of all detectors, by networks with known outputs; and real people compared with OpenPose's joints.

The last test needs LiteRT, the wheel that MEDIAPIPE_WHEEL names, and the real samples.  python -m pytest
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blaze_pose import COCO, CROP_SCALE, FILES, BlazePose

from pipeline.api import Image, MissingAssets, Video
from vibe_extensions.contracts import DetectorContract
from vibe_extensions.contracts.detectors import detector_problems

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "openpose"
OPENPOSE = [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11]  # COCO's joints among its 25
WHEEL = os.environ.get("MEDIAPIPE_WHEEL", "")


def logit(share: Any) -> Any:
    return np.log(share / (1 - share))


def finds(pixels: Any) -> list[Any]:
    """One person whose hips are where the square is brightest, and the point above them 20 px to the left."""
    values, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -9, np.float32)
    y, x = np.unravel_index(pixels[..., 0].argmax(), (224, 224))
    if pixels.max() > 0.9:
        cell = (int(y) // 8 * 28 + int(x) // 8) * 2
        hips = np.array([x, y]) - (np.array([x, y]) // 8 + 0.5) * 8
        values[cell] = [*hips, 30, 30, *hips, *(hips - [20, 0]), 0, 0, 0, 0]
        logits[cell] = logit(0.8)
    return [values, logits]


def looks(pixels: Any) -> list[Any]:
    """All points where the crop is brightest, but the second 30 px above, the third 30 px below and to the right."""
    rows = np.zeros((39, 5), np.float32)
    y, x = np.unravel_index(pixels[..., 0].argmax(), (256, 256))
    rows[:, :2], rows[:, 3:] = [x, y], logit(0.6)
    rows[COCO[1], 1] -= 30
    rows[COCO[2], :2] += [30, 30]
    return [rows.ravel(), np.array([0.9], np.float32)]


class TestBlazePose(DetectorContract):
    @pytest.fixture
    def detector(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlazePose:
        """Its wheel's networks are the functions above."""
        with zipfile.ZipFile(tmp_path / "mediapipe.whl", "w") as wheel:
            for name in FILES:
                wheel.writestr(f"mediapipe/modules/{name}", name)
        monkeypatch.setattr("blaze_pose._network", {FILES[0].encode(): finds, FILES[1].encode(): looks}.get)
        return BlazePose(weights=str(tmp_path / "mediapipe.whl"))

    @pytest.fixture
    def images(self) -> list[Image]:
        image = np.zeros((120, 200, 3), np.uint8)
        image[69:72, 99:102] = 255
        return [image, np.zeros((64, 64, 3), np.uint8)]

    @pytest.fixture
    def another_process(self) -> bool:
        return False  # it would not have the patched networks

    def test_joints_are_in_pixels_of_the_image_though_the_crop_is_turned(
        self, detector: BlazePose, images: list[Image]
    ) -> None:
        people, nobody = detector.load("cpu")(images)
        assert people.scores == pytest.approx([0.9])
        middle, above, beside = people.keypoints[0, :3, :2]
        np.testing.assert_allclose(middle, [100, 70], atol=1.5)
        d = 30 * 2 * CROP_SCALE * (20 * 120 / 224) / 256  # px of the image: 30 of the crop; up in it is left here
        np.testing.assert_allclose([above, beside], middle + np.array([[-d, 0], [d, -d]]), atol=0.01)
        np.testing.assert_allclose(people.keypoints[..., 2], 0.6, atol=1e-5)
        assert [part.shape for part in nobody] == [(0, 4), (0,), (0, 17, 3)]

    def test_the_identity_has_the_content_of_the_weights(self, detector: BlazePose) -> None:
        before = detector.identity()
        with zipfile.ZipFile(detector.weights, "w") as wheel:
            for name in FILES:
                wheel.writestr(f"mediapipe/modules/{name}", "other weights")
        assert detector.identity() != before


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no wheel")
    for name in ("a.whl", "absent.whl"):
        with pytest.raises(MissingAssets, match="MediaPipe's wheel"):
            BlazePose(weights=str(tmp_path / name)).identity()


@pytest.mark.skipif(not Path(WHEEL).is_file() or not SAMPLES.is_dir(), reason="MEDIAPIPE_WHEEL names none, or no clip")
def test_real_people_are_where_openpose_finds_them() -> None:
    """PCK at a tenth of a person's height, for people with 8 or more joints by OpenPose."""
    pytest.importorskip("ai_edge_litert")
    frames = range(0, 74, 4)
    images = [frame.image for frame in Video(SAMPLES, "video.avi").read(frames)]
    detector = BlazePose(weights=WHEEL)
    assert detector_problems(detector, images[:1], another_process=False) == []
    n_openpose, n_found, near = 0, 0, list[Any]()
    for frame, people in zip(frames, detector.load("cpu")(images), strict=True):
        file = SAMPLES / f"json/video_{frame:012d}_keypoints.json"
        rows = [np.reshape(one["pose_keypoints_2d"], (25, 3)) for one in json.loads(file.read_text())["people"]]
        truth = [joints[OPENPOSE] for joints in rows if (joints[OPENPOSE, 2] > 0.3).sum() >= 8]
        n_openpose, n_found = n_openpose + len(truth), n_found + len(people.boxes)
        for joints in people.keypoints:
            by_person = [close(joints, person) for person in truth]
            best = max(by_person, key=np.mean)
            near += [best] if best.mean() >= 0.3 else []
    shares = n_found / n_openpose, len(near) / n_found, np.concatenate(near).mean()
    assert (np.array(shares) > [0.3, 0.8, 0.85]).all(), (n_openpose, n_found, len(near), shares)


def close(joints: Any, person: Any) -> Any:
    seen = person[:, 2] > 0.3
    return np.linalg.norm(joints[seen, :2] - person[seen, :2], axis=1) < 0.1 * np.ptp(person[seen, 1])
