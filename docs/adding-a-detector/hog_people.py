"""People by OpenCV's histograms of gradients, without joints.  pixels -> [people] -> tracks

Dalal and Triggs, CVPR 2005. OpenCV has the weights.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np

from pipeline.api import Detect, Detector, Image, People

LEAST: Final = np.array([128, 64])  # px, height and width that the detector needs


@dataclass(frozen=True)
class HogPeople(Detector):
    """Boxes of people who stand."""

    min_score: float = 0.5  # of a person

    name: ClassVar[str] = "hog_people"
    version: ClassVar[int] = 1

    def load(self, device: str) -> Detect:  # noqa: ARG002 - runs on the CPU
        network = cv2.HOGDescriptor()
        network.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector()))
        return lambda images: [self.people(network, image) for image in images]

    def people(self, network: cv2.HOGDescriptor, image: Image) -> People:
        """People in one image (H, W, 3)."""
        below, right = np.maximum(LEAST - image.shape[:2], 0)
        padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        found, margins = network.detectMultiScale(padded, winStride=(8, 8))
        sides = np.array(found, np.float32).reshape(-1, 4)
        corners = np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]])
        boxes = np.clip(corners, 0, np.tile(image.shape[1::-1], 2)).astype(np.float32)
        scores = (1 / (1 + np.exp(-np.array(margins).reshape(-1)))).astype(np.float32)
        sure = (scores >= self.min_score) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return People(boxes[sure], scores[sure], np.zeros((sure.sum(), 0, 3), np.float32))
