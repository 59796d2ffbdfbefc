"""The crop policy: boxes that follow from seed, copy, track and frame alone."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cache import CropPolicy, Jitter

BOX = np.float32([100, 200, 50, 60])


def boxes(policy, name="a/0", n=2):
    return policy.boxes(
        np.tile(BOX, (n, 1)), np.full(n, 1.3), policy.seeds([name]).repeat(n), np.arange(n)
    )


def test_the_usual_policy_and_one_of_zero_ranges_give_the_box_itself():
    for policy in (
        CropPolicy(),
        CropPolicy(jitter=Jitter(copy=1, trans_px=0, scale_log2=0, flip=0)),
    ):
        found, mirrored = boxes(policy, n=3)
        assert_array_equal(found, np.tile(BOX, (3, 1)))
        assert found.dtype == np.float32
        assert not mirrored.any()


def test_a_whole_track_is_mirrored_or_not_and_half_of_them_are():
    policy = CropPolicy(jitter=Jitter(copy=2))
    keys = policy.seeds(f"video/{i}" for i in range(4000))
    mirrored = policy.boxes(
        np.tile(BOX, (4000, 5, 1)), np.ones((4000, 1)), keys[:, None], np.arange(5)[None]
    )[1]
    assert (mirrored == mirrored[:, :1]).all()
    assert abs(mirrored[:, 0].mean() - 0.5) < 0.04


def test_the_numbers_stay_what_they_are():
    """Caches hold features of these boxes: another generator would silently move every label."""
    found, mirrored = boxes(CropPolicy(scale=1.1, jitter=Jitter(copy=1, seed=3)), n=2)
    assert_allclose(found, EXPECTED, rtol=1e-6)
    assert mirrored.tolist() == [True, True]
    found, mirrored = boxes(CropPolicy(jitter=Jitter(copy=2)), "a/1", n=2)
    assert_allclose(found, OF_ANOTHER_COPY, rtol=1e-6)
    assert mirrored.tolist() == [False, False]


EXPECTED = [[100.27781, 199.79883, 63.971294, 76.76555], [104.13599, 194.01866, 62.87077, 75.44492]]
OF_ANOTHER_COPY = [
    [106.03868, 199.19432, 55.57771, 66.69325],
    [97.00144, 197.19241, 58.49591, 70.19509],
]


def test_policies_survive_json_and_text():
    policy = CropPolicy.parse("size:256 region:256x192 scale:1.2 jitter:4 seed:9 flip:0.25")
    assert policy == CropPolicy(
        size=256, region=(256, 192), scale=1.2, jitter=Jitter(copy=4, seed=9, flip=0.25)
    )
    assert CropPolicy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy
    assert CropPolicy.parse(str(policy)) == policy
    assert str(policy) == "size:256 region:256x192 scale:1.2 jitter:4 flip:0.25 seed:9"
    assert str(CropPolicy()) == ""
    assert CropPolicy().as_dict() == {}
    assert CropPolicy.from_dict({}) == CropPolicy.parse("") == CropPolicy()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("size:4", "size"),
        ("size:224 size:256", "each once"),
        ("seed:1", "jitter:COPY"),
        ("jitter:0", "copy"),
        ("region:300x10", "region"),
        ("scale:0", "scale"),
        ("jitter:1 flip:2", "probability"),
        ("colour:1", "size, region"),
        ("size:big", "big"),
    ],
)
def test_wrong_policies_are_refused(text, word):
    with pytest.raises(ValueError, match=word):
        CropPolicy.parse(text)
