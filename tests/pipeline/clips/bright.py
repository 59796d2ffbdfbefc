"""A detector that costs nothing, and clips for it: people are where a picture is bright."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.clips.detectors import Detector, People
from pipeline.processes.settings import DetectionResources
from pipeline.steps.detection.plan import plan_detection
from pipeline.steps.detection.run import detect_planned
from tests.pipeline.datasets.by_hand import encode


def detect_clips(raw, out, detector, **resources):
    return detect_planned(plan_detection(raw, out, detector), DetectionResources(**resources))


class Killed(Exception):
    """Stands for a kill in the midst of a clip."""


@dataclass(frozen=True)
class Bright(Detector):
    """One person, whose 17 joints are all in the middle of the bright columns."""

    shift: float = 0.0

    name = "bright"
    calls: ClassVar[list[int]] = []
    most = 10**9  # pictures before it is killed

    def load(self, device):
        return lambda images: [self.people(image) for image in images]

    def people(self, image):
        if len(self.calls) >= self.most:
            raise Killed
        self.calls.append(image.shape[1])
        x = float(np.flatnonzero(image[10, :, 1] > 128).mean()) + self.shift
        joints = np.tile(np.array([x, 10, 0.9], np.float32), (17, 1))
        return People(
            np.array([[x - 5, 0, x + 5, 20]], np.float32), np.array([0.8], np.float32), joints[None]
        )


def write_clip(file, n=20, first=20, cut=10**9, width=96):
    """Frame t is bright around column `first` + t; from `cut` on the rest is red."""
    images = [
        np.full((64, width, 3), (0, 0, 120) if t >= cut else (120, 0, 0), np.uint8)
        for t in range(n)
    ]
    for t, image in enumerate(images):
        image[:, first + t - 4 : first + t + 5] = 255
    encode(file, images)
