"""Large persons from pictures decoded at a fraction of their size: the same place in the picture, less time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline import crops
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.engine.pieces import Frames, Person, Wanted, reduction
from pipeline.pixels.decode import PictureError, decode_reduced
from pipeline.pixels.frames import Pictures

PENN = "penn_action/train"


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows with x, green with y: a crop's value says where it was taken."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x * 250 / width, y * 250 / height, np.full_like(x, 99)], axis=-1).round().astype(np.uint8)


def crop_of(folder: Path, *, reduced: bool, box: tuple[float, float, float, float], scale: float) -> np.ndarray:
    pixels = Frames(Pictures(folder, "{:06d}.jpg"), "a/b", "video", reduced=reduced)
    person = Person(0, box, scale)
    (shown,) = pixels.show(iter([Wanted(0, (person,))]), lambda: None)
    assert shown.crop is not None
    return shown.crop(person)


def shift(folder: Path, picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """(2,): by how much a reduced picture's crop differs from the whole one's, on average, in red and green."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    cv2.imwrite(str(folder / "000000.jpg"), np.ascontiguousarray(picture[..., ::-1]), quality)
    full, reduced = (crop_of(folder, reduced=which, box=box, scale=1.2) for which in (False, True))
    # Where the crop lies within the picture, red and green are straight lines.
    affine, (height, width) = crops.crop_affine(np.array(box), 1.2), picture.shape[:2]
    left, top = np.maximum(np.ceil(affine @ (8.0, 8.0, 1.0)), 0).astype(int)
    right, bottom = np.minimum(np.floor(affine @ (width - 8.0, height - 8.0, 1.0)), 223).astype(int)
    assert (bottom - top) * (right - left) > 10_000
    differs = (full.astype(float) - reduced)[top:bottom, left:right, :2]
    assert np.abs(differs).max() <= 5, "what JPEG does to both"
    mean: np.ndarray = differs.mean(axis=(0, 1))
    return mean


@pytest.mark.parametrize("size", [(1600, 1200), (1601, 1203)])
@pytest.mark.parametrize("side", [460.0, 900.0, 1800.0])
def test_a_reduced_picture_shows_the_same_place(tmp_path: Path, size: tuple[int, int], side: float) -> None:
    box = (777.25, 611.5, side / 1.2, side / 1.2)
    rising = ramp(*size)
    # A displacement shows with the other sign where the lines fall; what rounding does to the colours does not.
    displaced = (shift(tmp_path, rising, box) - shift(tmp_path, 250 - rising, box)) / 2
    a_pixel = 250 / np.array(size)
    assert (np.abs(displaced / a_pixel) < 0.3).all(), (
        "px of the whole picture; OpenCV counts in 32nds of the reduced one"
    )


def person(side: float, scale: float = 1.0, slot: int = 0) -> Person:
    return Person(slot, (800.0, 600.0, side, side), scale)


def test_no_person_is_enlarged_by_it() -> None:
    sides = (100, 447, 448, 895, 896, 1791, 1792, 9999)
    assert [reduction(person(side)) for side in sides] == [1, 1, 2, 2, 4, 4, 8, 8]
    assert reduction(person(400, scale=1.2)) == 2


def test_what_a_person_gets_does_not_depend_on_who_else_is_wanted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "000000.jpg"), noise)
    persons = [person(side, slot=slot) for slot, side in enumerate((300.0, 500.0, 1000.0, 900.0))]

    def cropped(wanted: list[Person]) -> list[np.ndarray]:
        pixels = Frames(Pictures(tmp_path, "{:06d}.jpg"), "a/b", "video", reduced=True)
        (shown,) = pixels.show(iter([Wanted(0, tuple(wanted))]), lambda: None)
        assert shown.crop is not None
        return [shown.crop(one) for one in wanted]

    together, alone = cropped(persons), [cropped([one])[0] for one in persons]
    np.testing.assert_equal(together, alone)


def test_a_picture_is_decoded_at_its_size_rounded_up() -> None:
    data = cv2.imencode(".jpg", ramp(33, 21))[1].tobytes()
    shapes = [decode_reduced(data, times)[0].shape for times in (1, 2, 4, 8)]
    assert shapes == [(21, 33, 3), (11, 17, 3), (6, 9, 3), (3, 5, 3)]
    with pytest.raises(PictureError, match="cut short"):
        decode_reduced(data[:-20], 2)
    png = cv2.imencode(".png", ramp(33, 21))[1].tobytes()
    image, times = decode_reduced(png, 4)
    assert (image.shape, times) == ((21, 33, 3), 1), "a PNG comes whole"


def test_features_of_reduced_pictures_are_another_stream(
    embedded: Any, into: Any, network: Any, tmp_path: Path
) -> None:
    raw, root = embedded.raw("penn_action"), tmp_path / "cache"
    into.convert(root, raw)
    into.extract(root)
    with pytest.raises(PipelineError, match="was extracted otherwise: decode was not set, is reduced"):
        into.extract(root, decode="reduced")
    assert into.extract(root, name="reduced", decode="reduced").computed == 24
    manifest = cache.open(root)[PENN].stream_manifest("reduced")
    assert manifest["identity"]["decode"] == "reduced"
    full, reduced = (into.rows(root, PENN, f"features/{name}") for name in ("resnet50", "reduced"))
    np.testing.assert_equal(reduced, full, "embedded persons are small: nothing is decoded smaller for them")
    with pytest.raises(ConfigError, match="decode 'tiny': expected full or reduced"):
        into.spec(decode="tiny")
    with pytest.raises(ConfigError, match="goes with raw pictures"):
        into.spec(decode="reduced", crops="crops")
