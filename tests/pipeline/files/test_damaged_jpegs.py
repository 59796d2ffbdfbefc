"""Damage inside JPEGs is noticed, and sound JPEGs have OpenCV's pixels. More images:
benchmarks/jpegs.py.
"""

import io

import cv2
import numpy as np
import pytest

from benchmarks.jpegs import (
    END,
    LIMITED,
    count_damage,
    decode_by_opencv,
    draw,
    opencv,
    require_sound,
    scan_of,
    sound_files,
)
from pipeline.files.pixels.decode import PictureError, decode

SIZE = (320, 240)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [draw(rng, *SIZE) for _ in range(3)]


def test_of_jpegs_that_come_out_wrong_at_most_two_in_a_hundred_pass(images):
    counts = count_damage(images[:2], LIMITED, np.random.default_rng(1))
    n_wrong = counts.wrong.total()
    assert n_wrong > 500
    assert counts.passed.total() <= 0.02 * n_wrong


def test_sound_jpegs_of_all_encoders_have_the_pixels_of_opencv(images):
    for name, data in sound_files(images, np.random.default_rng(2)):
        require_sound(name, data)


def test_bits_of_cmyk_are_those_of_opencv():
    pillow = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 4), np.uint8)
    written = io.BytesIO()
    pillow.fromarray(noise, "CMYK").save(written, "JPEG", quality=100)
    require_sound("CMYK", written.getvalue())


@pytest.mark.parametrize("byte", [b"\0", b"\x5a"])
def test_equal_bytes_before_the_end_are_filling_and_unequal_ones_are_damage(images, byte):
    data = opencv()(images[0])
    for n_bytes in (8, 100, 5000):
        filled = data[:-2] + byte * n_bytes + END
        require_sound(f"{n_bytes} bytes", filled)
    for surplus in (bytes(range(100)), bytes(50) + b"\1" + byte * 50):
        with pytest.raises(PictureError, match="extraneous bytes before marker 0xd9") as caught:
            decode(data[:-2] + surplus + END)
        assert caught.value.kind == "picture_damaged"


def test_filling_does_not_hide_damage(images):
    """libjpeg tells its last warning only, and a scan may end in what has overwritten it."""
    filling = bytes(1000)
    data = opencv(cv2.IMWRITE_JPEG_RST_INTERVAL, 8)(images[0])
    scan = scan_of(data)
    middle = (scan.start + scan.stop) // 2
    inside = data[:middle] + bytes(1000) + data[middle + 1000 : -2] + filling + END
    at_the_end = data[: -2 - 3000] + bytes(3000) + END
    for damaged in (inside, at_the_end):
        assert decode_by_opencv(damaged).shape == images[0].shape
        with pytest.raises(PictureError):
            decode(damaged)
