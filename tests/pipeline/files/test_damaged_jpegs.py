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
from pipeline.files.pixels.decode import PictureError, decode, picture_size

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


def test_what_phones_append_is_no_damage(images):
    """A second image, in MPO files, or a video; also behind filling."""
    encode = opencv()
    first = encode(images[0])
    filled = first[:-2] + bytes(12) + END
    appended = {
        "image": encode(images[1]),
        "filled image": filled,
        "cut image": encode(images[1])[:1000],
        "video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    }
    for name, rest in appended.items():
        require_sound(name, first + rest)
        require_sound(f"filling and {name}", filled + rest)


def with_false_numbers(data):
    """As some phones and programs write them: the end of the spectrum is 0, JFIF's version 2.01."""
    start_of_scan = data.index(b"\xff\xda")
    spectrum = start_of_scan + 2 + int.from_bytes(data[start_of_scan + 2 : start_of_scan + 4])
    version = data.index(b"JFIF\0") + 5
    return {
        "spectrum": data[: spectrum - 3] + bytes(3) + data[spectrum:],
        "version": data[:version] + b"\2\1" + data[version + 2 :],
    }


def test_false_numbers_that_change_no_pixel_are_no_damage_and_hide_none(images):
    data = opencv()(images[0])
    scan = scan_of(data)
    middle = (scan.start + scan.stop) // 2
    for name, false in with_false_numbers(data).items():
        require_sound(name, false)
        assert picture_size(false) == SIZE
        with pytest.raises(PictureError, match="Corrupt JPEG data"):
            decode(false[:middle] + bytes(1000) + false[middle + 1000 :])


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
