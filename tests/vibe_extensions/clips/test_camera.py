"""The camera's motion in the files of `detect`: a view that moves over noise by a known number of pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from pipeline.datasets.people import pixel_camera
from pipeline.detect import Detect, Detector, People
from pipeline.files.formats.detections import read_results
from pipeline.homography import transfer
from tests.vibe_extensions.clips.detecting import detect_clips
from vibe_extensions.clips.detection.decoders import ClipDecoding


@dataclass(frozen=True)
class Nobody(Detector):
    name: ClassVar[str] = "nobody"

    def load(self, device: str) -> Detect:
        return lambda images: (
            [People(*(np.zeros((0, *form), np.float32) for form in ((4,), (), (17, 3))))] * len(images)
        )


def test_still_things_move_against_the_camera(tmp_path: Path) -> None:
    # The view moves by 8 px a frame to the right, from frame 6 on.
    noise = np.random.default_rng(0).uniform(0, 255, (48, 112, 3)).astype(np.uint8)
    scene = cv2.resize(noise, (448, 192), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "raw").mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "raw/a.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 25, (320, 192))
    for t in range(12):
        writer.write(scene[:, 8 * max(t - 5, 0) :][:, :320])
    writer.release()
    detect_clips(tmp_path / "raw", tmp_path / "out", Nobody())
    camera = read_results(tmp_path / "out/a.avi.json").camera
    assert sorted(camera) == list(range(6, 12)), "none where the camera is still"
    at = np.array([[40.0, 30], [300, 150]])
    for matrix in pixel_camera(camera, 320, 192).values():
        np.testing.assert_allclose(transfer(matrix, at), at - [8, 0], atol=0.7)
    whole, begun = (ClipDecoding(tmp_path / "raw", 12)(("a.avi", start)).frames for start in (0, 8))
    assert [one.camera for one in begun] == [one.camera for one in whole[8:]], "a process that begins in the clip"
