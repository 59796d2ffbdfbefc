"""What `bench-features` decodes: a split's own pixels, or pictures made for it.  tracks -> [crops -> features]

Either way jobs without end, as an extraction has them; each frame of a job is decoded once for all its persons.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.errors import PipelineError
from pipeline.features.engine.jobs import RUN_ROWS, Job
from pipeline.features.engine.pieces import Frames, Pixels
from pipeline.pixels.frames import Image, Pictures
from pipeline.track import CROP_SCALE

SIZES: Final = ((640, 480), (1920, 1080))  # (width, height) px of pictures that are made
QUALITY: Final = 90  # of their JPEG
PATTERN: Final = "{:06d}.jpg"
IN_ORDER_ROWS: Final = (
    8 * RUN_ROWS
)  # of a video, which can only be decoded from its start: enough that opening is cheap


def of_split(split: Split, pixels_of: Callable[[int], Pixels]) -> Iterator[Job]:
    """Parts of the split's videos, shuffled, again and again. `pixels_of`: number of a video -> its pixels.

    Raises PipelineError for a split without pictures, or without tracks.
    """
    if "bbox" not in split.columns:
        raise PipelineError(f"{split.name}: motion alone, without pictures: there is nothing to decode")
    if not len(split.tracks):
        raise PipelineError(f"{split.name}: has no tracks: there is nothing to decode")
    rng = np.random.default_rng(0)
    video = split.tracks.video
    for number in itertools.count():
        drawn = int(rng.choice(video))  # a video with more tracks is more of the work
        yield _part(split, number, np.flatnonzero(video == drawn), pixels_of(drawn), rng)


def _part(split: Split, number: int, tracks: NDArray[np.intp], pixels: Pixels, rng: np.random.Generator) -> Job:
    """Some of a video's rows: from its start where it has to be decoded in order, else from anywhere."""
    spans = [(int(split.tracks.start[track]), int(split.tracks.stop[track])) for track in tracks]
    rows = np.concatenate([np.arange(*span) for span in spans])
    bbox = np.concatenate([split.rows("bbox", *span) for span in spans])
    scale = np.concatenate(
        [np.full(b - a, split.tracks.crop_scale[t]) for t, (a, b) in zip(tracks, spans, strict=True)]
    )
    frame = rows if pixels.by_row else np.concatenate([split.rows("frame_index", *span) for span in spans])
    order = np.lexsort((rows, frame))
    if pixels.in_order:
        order = order[:IN_ORDER_ROWS]
    else:
        start = int(rng.integers(max(1, len(order) - RUN_ROWS + 1)))
        order = order[start : start + RUN_ROWS]
    return _job(number, pixels, rows[order], frame[order], bbox[order], scale[order])


def of_pictures(pixels: Frames, n_pictures: int, size: tuple[int, int], *, persons: int = 1) -> Iterator[Job]:
    """`n_pictures` of `size` (width, height) px with as many persons each, again and again."""
    frame = np.repeat(np.arange(n_pictures), persons)
    for number in itertools.count():
        bbox = boxes(len(frame), size, seed=number)
        yield _job(number, pixels, np.arange(len(frame)), frame, bbox, np.full(len(frame), CROP_SCALE))


def _job(
    number: int,
    pixels: Pixels,
    rows: NDArray[np.int64],
    frame: NDArray[np.int64],
    bbox: NDArray[np.float32],
    scale: NDArray[np.float64],
) -> Job:
    """One that nobody's shards wait for, of pixels that are not compared with those that were converted."""
    return Job(number, pixels, rows, frame, bbox, scale, first=False, goes_on=False, shards=())


def boxes(n: int, size: tuple[int, int], *, seed: int) -> NDArray[np.float32]:
    """(n, 4) square cxcywh px: persons of 30% to 80% of the picture's height."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(0.3, 0.8, n) * size[1]
    x, y = rng.uniform(0.3, 0.7, (2, n))
    return np.stack([x * size[0], y * size[1], side, side], axis=1).astype(np.float32)


def write_pictures(folder: Path, size: tuple[int, int], n: int) -> Pictures:
    """`n` JPEG files of `size` (width, height) px, about as many bytes each as photographs have."""
    folder.mkdir(parents=True)
    for number, image in enumerate(textured(size, seed) for seed in range(n)):
        options: Sequence[int] = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
        cv2.imwrite(str(folder / PATTERN.format(number)), image, options)
    return Pictures(folder, PATTERN)


def textured(size: tuple[int, int], seed: int) -> Image:
    """(height, width, 3) noise on all scales, the coarser the stronger, as in photographs."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave, strength in enumerate(STRENGTHS):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = rng.standard_normal(shape, np.float32) * strength
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)  # of noise at 1, 2, 4, ... px, in grey levels of 255
