"""Perceptual hashes of images, to find images of test splits in a training split.  raw -> [tracks]

`sample_pictures` hashes a few images of each video of a split; `nearest` finds the most similar
hash in another split's. A hash has 63 bits: the signs of an image's lowest frequencies, by the
cosine transform, relative to their median (Zauner, Implementation and Benchmarking of Perceptual
Image Hash Functions, 2010). It does not depend on the image's size and compression. `leaks
--pictures` uses it.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.files.pixels import sources
from pipeline.processes import Failed
from pipeline.processes.ordered import ordered_map

SIDE: Final = 32  # px, to which an image is reduced before its transform
LOW: Final = 8  # lowest frequencies a side that make the hash: 63 bits without the mean
ALIKE: Final = 8  # most bits in which two hashes of one image differ; of two scenes, about 31 do
FLAT: Final = 4.0  # standard deviation of grey levels, 0 to 255, below which a hash is noise
AT_ONCE: Final = 4096  # hashes that are compared with as many others at once

Hashes = NDArray[np.uint64]


class SampledPictures(NamedTuple):
    """Hashes of N images that were sampled from the videos of a split."""

    hashes: Hashes  # (N,)
    labels: tuple[str, ...]  # (N,) "frame 12 of 0001"
    unknown: str  # why all or some videos have no hashes; "" if all have


def sample_pictures(
    split: cache.Split, raw: Path | None, n: int, workers: int, progress: Progress = silent
) -> SampledPictures:
    """Hash up to `n` images of each video of a split, in supervised processes.

    raw: the dataset's raw folder now; None: as recorded.
    """
    recorded = split.provenance.get("raw")
    if recorded and raw is None:
        raw = Path(str(recorded))
    no_hashes = np.empty(0, np.uint64)
    samples = _choose_samples(split, n)
    if not samples:
        return SampledPictures(no_hashes, (), "there are no images")
    if raw is None or not raw.is_dir():
        why = f"raw folder {raw or ''} not found: name it with --raw"
        return SampledPictures(no_hashes, (), why)
    hashes = list[int]()
    labels = list[str]()
    n_unread = 0  # videos
    results = ordered_map(functools.partial(_hashes, raw), samples, workers)
    for index, result in enumerate(results):
        video = samples[index].video
        if isinstance(result, Failed) or not result:
            n_unread += 1
        else:
            hashes += result.values()
            labels += [f"frame {frame} of {video}" for frame in result]
        progress(index + 1, len(samples), video)
    unknown = ""
    if n_unread:
        videos = f"{count(len(samples), 'video')} of {split.name}"
        unknown = f"{n_unread:,} of {videos} are unreadable or blank"
    return SampledPictures(np.array(hashes, np.uint64), tuple(labels), unknown)


class _VideoFrames(NamedTuple):
    """The frames of one video to hash."""

    video: str  # name
    source: str  # where its images are below the raw folder, for `sources.parse`
    frames: list[int]


def _choose_samples(split: cache.Split, n: int) -> list[_VideoFrames]:
    """Choose up to `n` frames of each video that has images, evenly over its first track."""
    samples = []
    videos, first = np.unique(split.tracks.video, return_index=True)
    for number, track in zip(videos.tolist(), first.tolist(), strict=True):
        video = split.videos[number]
        if not video.source:
            continue
        start = int(split.tracks.start[track])
        stop = int(split.tracks.stop[track])
        inner = np.linspace(start, stop - 1, n + 2)[1:-1]  # without the track's two ends
        rows = np.unique(inner.astype(np.int64)).tolist()
        frames = [int(split.rows("frame_index", row, row + 1)[0]) for row in rows]
        samples.append(_VideoFrames(video.name, video.source, frames))
    return samples


def _hashes(raw: Path, sample: _VideoFrames) -> dict[int, int]:
    """Hash a video's frames: frame -> hash, without unreadable and nearly blank frames."""
    by_frame: dict[int, int] = {}
    try:
        for frame in sources.parse(raw, sample.source).read(sample.frames):
            if frame.image is not None:
                bits = picture_hash(frame.image)
                if bits is not None:
                    by_frame[frame.index] = bits
    except PipelineError:
        return {}
    return by_frame


def picture_hash(image: NDArray[Any]) -> int | None:
    """The 63 bits of an image, as a number; None for a nearly blank one.

    image: (H, W, 3) uint8, colours in any order.
    """
    grey = cv2.resize(
        image.mean(axis=2, dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA
    )
    if grey.std() < FLAT:
        return None
    low = cv2.dct(grey)[:LOW, :LOW].reshape(-1)[1:]  # (63,): without the mean, which comes first
    bits = np.append(False, low > np.median(low))  # (64,)
    return int(np.packbits(bits).view(">u8")[0])


def nearest(hashes: Hashes, others: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the nearest of the other hashes for each hash.

    hashes (N,), others (M,) -> (N,) index of the nearest other, and (N,) number of bits in which it
    differs; 64 if there are no others.
    """
    rows = np.zeros(len(hashes), np.int64)
    bits = np.full(len(hashes), 64)
    for start, first in itertools.product(
        range(0, len(hashes), AT_ONCE), range(0, len(others), AT_ONCE)
    ):
        part = slice(start, start + AT_ONCE)
        block = others[first : first + AT_ONCE]
        differing = np.bitwise_count(hashes[part, None] ^ block)  # (up to AT_ONCE, AT_ONCE)
        nearest_row = differing.argmin(axis=1)
        fewest = np.take_along_axis(differing, nearest_row[:, None], axis=1)[:, 0]
        rows[part] = np.where(fewest < bits[part], nearest_row + first, rows[part])
        bits[part] = np.minimum(fewest, bits[part])
    return rows, bits
