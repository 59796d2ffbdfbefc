import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.people.boxes import crop_affine, crop_person, normalise_keypoints


def smooth_dot(x, y):
    """A picture with a Gaussian blob whose centre is exactly (x, y), pixel (i, j) having its centre
    at x = j, y = i.
    """
    v, u = np.mgrid[:240, :320]
    blob = 255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 3**2))
    return np.repeat(blob[..., None], 3, axis=2).astype(np.uint8)


def centroid(picture):
    weight = picture[..., 0].astype(float)
    v, u = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return float((u * weight).sum() / weight.sum()), float((v * weight).sum() / weight.sum())


@pytest.mark.promise("problems of 3DPW")
@pytest.mark.parametrize(("x", "y"), [(150.0, 110.0), (160.25, 130.5)])
@pytest.mark.parametrize("side", [90, 172.3])
def test_a_dot_in_the_picture_is_found_where_its_keypoint_goes(x, y, side):
    bbox = np.array([152.0, 117.5, side, side])
    crop = crop_person(smooth_dot(x, y), bbox)
    kp_2d = normalise_keypoints(np.array([[x, y, 1.0]]), bbox)
    expected = (kp_2d[0, :2] + 1) * 224 / 2
    assert centroid(crop) == pytest.approx(tuple(expected), abs=0.15)
    # Mirrored, its normalised x changes its sign, as readers take it.
    mirrored = crop_person(smooth_dot(x, y), bbox, mirrored=True)
    assert centroid(mirrored) == pytest.approx(((1 - kp_2d[0, 0]) * 224 / 2, expected[1]), abs=0.15)


def test_a_crop_shifted_by_whole_pixels_is_a_cut():
    picture = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    crop = crop_person(picture, np.array([112 + 20, 112 + 30, 224, 224]), scale=1)
    assert_array_equal(crop, picture[30 : 30 + 224, 20 : 20 + 224])


def test_doubling_resamples_bilinearly():
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[:, 1::2] = 100  # columns alternate 0, 100
    crop = crop_person(picture, np.array([56, 56, 112, 112]), scale=1)
    # between two columns their mean
    assert_array_equal(crop[100, :4, 0], [0, 50, 100, 50])


def test_keypoints_keep_their_confidence_and_the_input_is_left_alone():
    kp_2d = np.array([[[50, 60, 0.4], [76, 60, 0]]], np.float32)
    bbox = np.array([[50, 60, 40, 40]], np.float32)
    out = normalise_keypoints(kp_2d, bbox)
    assert_allclose(out, [[[0, 0, 0.4], [1, 0, 0]]], atol=1e-6)
    assert out.dtype == np.float32
    assert_array_equal(kp_2d[0, 0], np.float32([50, 60, 0.4]))
    whole_px = normalise_keypoints(np.array([[[50, 60, 1], [63, 60, 0]]]), bbox)
    assert_allclose(whole_px, [[[0, 0, 1], [0.5, 0, 0]]], atol=1e-6)


@given(
    st.floats(-1000, 3000), st.floats(-1000, 3000), st.floats(2, 2000), st.floats(0.5, 2),
    st.floats(-1000, 3000), st.floats(-1000, 3000),
)  # fmt: skip
def test_normalising_is_the_crops_map_rescaled(cx, cy, side, scale, x, y):
    bbox = np.array([cx, cy, side, side])
    mapped = crop_affine(bbox, scale) @ [x, y, 1]
    out = normalise_keypoints(np.array([[x, y, 1.0]]), bbox, scale)
    assert_allclose(out[0, :2], 2 * mapped / 224 - 1, rtol=1e-9, atol=1e-9)
    assert_allclose(
        out[0, :2], 2 * (np.array([x, y]) - [cx, cy]) / (side * scale), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("bbox", [(1e9, 1e9, 100, 100), (50, 50, 1e9, 1e9), (400, 50, 100, 100)])
def test_a_huge_or_distant_box_gives_a_black_crop(bbox):
    assert not crop_person(np.full((100, 100, 3), 200, np.uint8), np.array(bbox)).any()


def test_a_picture_that_only_the_margin_reaches_is_shown():
    # The box begins at x = 102, the crop of 1.3 times its side at 96; the last pixel is 99: (99 -
    # 96) / 52 of 224 px.
    crop = crop_person(np.full((100, 100, 3), 200, np.uint8), np.array([122.0, 50, 40, 40]))
    assert (crop[112, :13, 0] == 200).all()
    assert not crop[112, 18:].any()


def test_a_very_large_box_still_shows_the_picture_small_and_in_place():
    crop = crop_person(
        np.full((2000, 2000, 3), 200, np.uint8), np.array([1000.0, 1000, 22400, 22400]), scale=1
    )
    lit = np.argwhere(crop[..., 0])
    assert_allclose(lit.mean(axis=0), [112, 112], atol=0.6)
    assert len(lit) == 20 * 20


@pytest.mark.parametrize("bbox", [(0, 0, 0, 0), (np.nan, 0, 5, 5), (0, 0, np.inf, np.inf)])
def test_a_box_without_area_is_refused(bbox):
    with pytest.raises(ValueError, match="no crop has box"):
        crop_person(np.zeros((5, 5, 3), np.uint8), np.array(bbox))


@pytest.mark.parametrize(
    "picture", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_what_is_no_colour_picture_is_refused(picture):
    with pytest.raises(ValueError, match="uint8 RGB image"):
        crop_person(picture, np.array([2, 2, 4, 4]))
