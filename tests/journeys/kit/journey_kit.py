"""What the journeys install: a detector and a stream that cost nothing.  clips -> [keypoints],
crops -> [features]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.api import Detector, NumberStream, People

# Of COCO's 17 joints in a person's box: across and down it, as shares of its sides.
ACROSS = [0.5, 0.46, 0.54, 0.42, 0.58, 0.3, 0.7, 0.2, 0.8, 0.2, 0.8, 0.4, 0.6, 0.4, 0.6, 0.4, 0.6]
DOWN = [0.1, 0.07, 0.07, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1]
PLACES = np.column_stack([ACROSS, DOWN])


@dataclass(frozen=True)
class Red(Detector):
    """Everything red is one person."""

    min_pixels: int = 50

    name: ClassVar[str] = "red"

    def load(self, device):
        return lambda images: [self._people(image) for image in images]

    def _people(self, image):
        y, x = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 110) & (image[..., 2] < 110))
        if len(x) < self.min_pixels:
            return People(*(np.zeros((0, *form), np.float32) for form in ((4,), (), (17, 3))))
        low, high = np.array([x.min(), y.min()], float), np.array([x.max() + 1, y.max() + 1], float)
        joints = np.concatenate([low + PLACES * (high - low), np.ones((17, 1))], axis=1)
        box = np.concatenate([low, high])[None].astype(np.float32)
        return People(box, np.full(1, 0.9, np.float32), joints[None].astype(np.float32))


@dataclass(frozen=True)
class RedBoxes(Red):
    """The same without joints."""

    name: ClassVar[str] = "red_boxes"

    def _people(self, image):
        people = super()._people(image)
        return people._replace(keypoints=people.keypoints[:, :0])


class Grid:
    """Means over 4 x 4 parts of a crop, each colour's."""

    lanes = 1
    provenance: Mapping[str, Any] = {"stand_in": False, "network": "means"}

    def __init__(self, machine):
        self.batch_size = machine.batch_size or 8

    def adopt(self, memory): ...

    def release(self): ...

    def __call__(self, crops):
        means = crops.reshape(len(crops), 4, 56, 4, 56, 3).mean(axis=(2, 4))
        features = means.reshape(len(crops), -1).astype(np.float32)
        return features / np.float32(255)


@dataclass(frozen=True, kw_only=True)
class Means(NumberStream):
    """48 numbers a crop."""

    kind: ClassVar[str] = "means"
    dim: ClassVar[int] = 48

    def load(self, machine, recorded):
        return Grid(machine)
