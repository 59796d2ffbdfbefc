"""The contract of all detectors, and a drawn person.  python -m pytest"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hog_people import HogPeople

from pipeline.api import Image
from pipeline.testing import DetectorContract


class TestHogPeople(DetectorContract):
    @pytest.fixture
    def detector(self) -> HogPeople:
        return HogPeople(min_score=0.6)

    @pytest.fixture
    def images(self) -> list[Image]:
        """A person 230 px tall, and a small image of nobody."""
        image = np.full((320, 240, 3), 200, np.uint8)
        for start, end, width in (
            ((120, 70), (120, 70), 36),  # head, body, arms, legs
            ((120, 110), (120, 170), 60),
            ((92, 110), (84, 180), 16),
            ((148, 110), (156, 180), 16),
            ((108, 170), (104, 270), 24),
            ((132, 170), (136, 270), 24),
        ):
            cv2.line(image, start, end, (40, 40, 40), width)
        return [image, np.zeros((50, 40, 3), np.uint8)]

    def test_a_person_is_in_the_box_and_has_no_joints(
        self, detector: HogPeople, images: list[Image]
    ) -> None:
        people, nobody = detector.load("cpu")(images)
        ((left, top, right, bottom),) = people.boxes
        assert left < 84 and top < 52 and right > 156 and bottom > 270 and bottom - top < 320
        assert people.keypoints.shape == (1, 0, 3) and len(nobody.boxes) == 0
