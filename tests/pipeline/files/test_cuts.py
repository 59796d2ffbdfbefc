import cv2
import numpy as np
import pytest

from pipeline.files.pixels.cuts import cuts, cuts_of, difference, histogram
from pipeline.files.pixels.frames import Video
from tests.pipeline.datasets.by_hand import encode


def picture(hue, shift=0):
    """(90, 160, 3): a bright square on a dark ground of another hue."""
    hsv = np.full((90, 160, 3), (hue, 200, 80), np.uint8)
    hsv[20:60, 30 + shift : 70 + shift] = ((hue + 60) % 180, 200, 220)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def test_pictures_of_the_same_colours_do_not_differ_and_of_others_do():
    here, moved, there = (
        histogram(image) for image in (picture(10), picture(10, 40), picture(100))
    )
    assert here.sum() == pytest.approx(1)
    assert difference(here, moved) == pytest.approx(0, abs=0.02)
    assert difference(here, there) == pytest.approx(1, abs=0.02)


def test_a_difference_that_stands_out_is_a_cut():
    quiet = [0.9, *[0.02] * 30]  # nothing comes before the first frame
    assert cuts(quiet) == []
    quiet[15] = 0.4
    assert cuts(quiet) == [15]
    quiet[18] = 0.5  # a short shot: both of its ends are
    assert cuts(quiet) == [15, 18]
    assert cuts([]) == cuts([0.9]) == []


def test_a_fast_pan_is_no_cut():
    assert cuts([0.02] * 20 + [0.3, 0.35, 0.28, 0.31] + [0.02] * 20) == []


def test_of_a_video_file(tmp_path):
    encode(
        tmp_path / "v.mp4", [picture(10 if t < 23 else 100, t % 5)[..., ::-1] for t in range(40)]
    )
    assert cuts_of(Video(tmp_path, "v.mp4"), 40) == [23]
