"""Bodies over pictures: where they are, how opaque, what hides what."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.show.bodies import AMBIENT, TO_LIGHT, BodyPainter, SeenBody

FACES = np.array([[0, 1, 2], [0, 2, 3]])  # a square, seen from the front: anticlockwise


def square(left, top, right, bottom, colour=(1.0, 1.0, 1.0), depth=5.0):
    pixels = np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
    verts = np.column_stack([pixels / 100, np.zeros(4)])  # faces the camera, which looks along z
    return SeenBody(verts, pixels, np.full(4, depth), colour)


def test_a_square_covers_its_pixels_with_its_colour_and_no_others():
    image = np.full((60, 80, 3), 40, np.uint8)
    painted = BodyPainter(FACES).paint(
        image, [square(19.5, 9.5, 59.5, 39.5, (0.5, 1.0, 0.0))], opacity=1.0
    )
    light = AMBIENT + (1 - AMBIENT) * max(0.0, -float(TO_LIGHT[2]))  # its normal is -z
    inside = painted[11:39, 21:59]
    assert_allclose(
        inside.reshape(-1, 3), np.tile([127.5 * light, 255 * light, 0], (28 * 38, 1)), atol=1.5
    )
    outside = painted.copy()
    outside[9:41, 19:61] = 40
    assert (outside == 40).all()
    assert (image == 40).all()


@pytest.mark.parametrize("opacity", [0.0, 0.25, 0.75])
def test_a_half_transparent_body_lets_the_picture_through(opacity):
    image = np.full((60, 80, 3), 200, np.uint8)
    solid = (
        BodyPainter(FACES).paint(image, [square(10, 10, 50, 50)], opacity=1.0)[30, 30].astype(float)
    )
    found = BodyPainter(FACES).paint(image, [square(10, 10, 50, 50)], opacity=opacity)[30, 30]
    assert_allclose(found, opacity * solid + (1 - opacity) * 200, atol=1)


def test_the_last_one_is_on_top_and_one_larger_than_the_picture_fills_it():
    red, green = square(0, 0, 40, 40, (1, 0, 0)), square(20, 20, 60, 60, (0, 1, 0))
    painted = BodyPainter(FACES).paint(np.zeros((60, 80, 3), np.uint8), [red, green], opacity=1.0)
    assert painted[30, 30, 0] == 0
    assert painted[30, 30, 1] > 0
    assert painted[10, 10, 0] > 0
    larger = BodyPainter(FACES).paint(
        np.zeros((48, 64, 3), np.uint8), [square(-90, -90, 200, 200)], opacity=1.0
    )
    assert (larger > 0).all()


@pytest.mark.parametrize(
    "body",
    [
        square(200, 10, 240, 50),  # beside the picture
        square(10, 10, 50, 50, depth=-5.0),  # behind the camera
        square(10, 10, 50, 50)._replace(pixels=np.full((4, 2), np.nan)),
    ],
    ids=["beside", "behind", "not finite"],
)
def test_what_is_not_in_the_picture_changes_nothing(body):
    image = np.full((60, 80, 3), 40, np.uint8)
    assert_array_equal(BodyPainter(FACES).paint(image, [body]), image)


def test_pixels_that_a_body_covers_by_half_are_half_as_bright_on_all_sides():
    # its edges run through the middle of pixels, which are at whole numbers
    body = square(20, 10, 60, 40)
    painted = (
        BodyPainter(FACES)
        .paint(np.zeros((60, 80, 3), np.uint8), [body], opacity=1.0)[..., 0]
        .astype(float)
    )
    inside = painted[25, 40]
    for edge in (painted[25, 20], painted[25, 60], painted[10, 40], painted[40, 40]):
        assert abs(edge - inside / 2) <= 1
    assert painted[25, 19] == painted[25, 61] == painted[9, 40] == painted[41, 40] == 0
