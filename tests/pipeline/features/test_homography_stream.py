"""The stream `homography` without an extraction: its numbers, what is not known, its identity."""

import json

import cv2
import numpy as np
import pytest

from cache import CropPolicy
from pipeline.api import calibration_crops
from pipeline.features import streams


@pytest.fixture(scope="module")
def crop():
    return calibration_crops(1)[0]


def test_a_crop_beside_the_picture_shows_no_motion_that_could_be_known(crop):
    stream, black = streams.get("homography"), np.zeros_like(crop)
    for earlier, later in ((black, black), (crop, black), (black, crop)):
        assert stream.pair(earlier, later) is None


def test_its_identity_has_its_method_and_not_the_computer_it_was_computed_on():
    stream = streams.get("homography", crop=CropPolicy(size=256))
    method = {"flow": "dis", "fit": "robust", "finest_scale": 1, "rounds": 10}
    identity = {"kind": "homography", "version": 1, **method, "crop": {"size": 256}}
    assert stream.identity() == identity
    assert streams.of_identity(json.loads(json.dumps(identity))) == stream
    # made today, its version is today's
    assert streams.of_identity(identity | {"version": 0}) == stream
    assert streams.of_identity(identity | {"rounds": 3}) is None, "another method"
    assert streams.of_identity(identity | {"region": "person"}) is None, "another method"
    assert stream.provenance["opencv"] == cv2.__version__
    assert stream.provenance["cpu_features"]
    assert not stream.provenance["stand_in"]
