"""The streams of bytes, pairs and labels against what can be computed by hand.  python -m pytest"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_streams import Change, InBox, Thumbnail

from pipeline.errors import ConfigError
from pipeline.features.streams import Machine


def test_a_thumbnail_has_the_mean_colours_of_its_parts() -> None:
    crop = np.zeros((224, 224, 3), np.uint8)
    crop[:112, :112] = 200, 100, 50
    data = np.frombuffer(Thumbnail(side=2).encode(crop), np.uint8)
    found = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(found, [[[200, 100, 50], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    with pytest.raises(ConfigError, match="side 0: expected 1 to 64 px"):
        Thumbnail(side=0)


def test_a_change_is_counted_in_its_part_whatever_its_sign() -> None:
    previous = np.full((224, 224, 3), 100, np.uint8)
    current = previous.copy()
    current[:56, 56:112], current[168:, 168:] = 130, 60
    expected = np.zeros(16)
    expected[[1, 15]] = 30, 40
    np.testing.assert_allclose(Change().pair(previous, current), expected)
    assert Change().pair(previous, 0 * current) is None


def test_keypoints_are_placed_in_the_box() -> None:
    kp_2d, bbox = np.zeros((2, 49, 3), np.float32), np.array([[50, 60, 20, 40]] * 2, np.float32)
    kp_2d[0, 7] = 60, 40, 0.5  # the box's upper right corner
    placed, known = InBox().load(Machine(), None)({"kp_2d": kp_2d, "bbox": bbox})
    expected = np.zeros((2, 49, 2))
    expected[0, 7] = 1, -1
    np.testing.assert_array_equal(placed, expected.reshape(2, 98))
    assert known.tolist() == [True, False]
