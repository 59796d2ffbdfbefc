"""What benchmarks/features.py extracts from: pictures and videos made up, and a split of persons in them in a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from cache import SplitWriter, TrackRows, VideoEntry
from pipeline.pixels import sources
from pipeline.pixels.frames import Pictures
from pipeline.track import CROP_SCALE

FRAMES: Final = 100  # of a video, and so many files there are of a size: each video of the split shows them once more
FPS: Final = 30.0
QUALITY: Final = 90  # of JPEG
PATTERN: Final = "{:06d}.jpg"
STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)  # of noise at 1, 2, 4, ... px, in grey levels of 255
STEP: Final = 4  # px from a video's frame to the next: the camera moves


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of pixels."""

    name: str
    size: tuple[int, int]  # (width, height) px
    persons: int
    video: bool = False

    @property
    def spec(self) -> str:
        """The pixel source below the raw folder."""
        width, height = self.size
        place = f"{width}x{height}"
        return f"video:{place}.mp4" if self.video else f"pictures:{place}/{PATTERN}+0"


VGA, HD = (640, 480), (1920, 1080)
CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", VGA, 1),
    "vga4": Case("640 x 480 JPEG, 4 persons", VGA, 4),
    "hd1": Case("1920 x 1080 JPEG, 1 person", HD, 1),
    "hd4": Case("1920 x 1080 JPEG, 4 persons", HD, 4),
    "video1": Case("640 x 480 MPEG-4, 1 person", VGA, 1, video=True),
    "video4": Case("640 x 480 MPEG-4, 4 persons", VGA, 4, video=True),
}
TINY: Final = Case("64 x 48 JPEG, 1 person", (64, 48), 1)  # where only memory is measured


def raw_of(work: Path) -> Path:
    return work / "raw"


def cache_of(work: Path) -> Path:
    return work / "cache"


def split_of(key: str) -> str:
    """The split of a case."""
    return f"{key}/train"


def make(work: Path, key: str, case: Case, n_crops: int) -> int:
    """The case's pixels, where they are not there already, and its split of about so many crops. Returns how many."""
    _write_pixels(raw_of(work), case)
    source = sources.parse(raw_of(work), case.spec)
    pixels, (width, height) = source.digest(), case.size
    n_frames = max(1, n_crops // case.persons)
    columns, made_of = ("frame_index", "bbox"), {"raw": str(raw_of(work))}
    with SplitWriter(cache_of(work), split_of(key), columns=columns, plan="made up", provenance=made_of) as writer:
        writer.begin()
        for number, start in enumerate(range(0, n_frames, FRAMES)):
            name, frames = f"{number:06d}", np.arange(min(FRAMES, n_frames - start))
            tracks = [
                TrackRows(
                    name=f"{name}/{person}",
                    video=name,
                    step=1,
                    fps=FPS,
                    crop_scale=CROP_SCALE,
                    columns={
                        "frame_index": frames,
                        "bbox": boxes(len(frames), case.size, seed=number * case.persons + person),
                    },
                )
                for person in range(case.persons)
            ]
            entry = VideoEntry(name=name, source=case.spec, pixels=pixels, width=width, height=height)
            writer.append(entry, tracks)
        writer.commit({"stand_in": True})
    return int(cache.open(cache_of(work))[split_of(key)].manifest["rows"])


def bytes_of(work: Path, case: Case) -> int:
    """Of a picture's file, or of a video's frame, in the middle."""
    place = sources.parse(raw_of(work), case.spec).place
    if case.video:
        return place.stat().st_size // FRAMES
    return int(np.median([file.stat().st_size for file in place.iterdir()]))


def _write_pixels(raw: Path, case: Case) -> None:
    source = sources.parse(raw, case.spec)
    if source.place.exists():
        return
    if isinstance(source, Pictures):
        write_pictures(source.place, case.size, FRAMES)
    else:
        _write_video(source.place, case.size)


def _write_video(file: Path, size: tuple[int, int]) -> None:
    """A camera that moves over a still picture, with some noise of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    scene = textured((width + STEP * FRAMES, height), seed=0)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    for number in range(FRAMES):
        noise = rng.integers(-4, 5, (height, width, 3), np.int16)
        frame = scene[:, STEP * number : STEP * number + width] + noise
        writer.write(np.clip(frame, 0, 255).astype(np.uint8))
    writer.release()


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
        cv2.imwrite(str(folder / PATTERN.format(number)), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return Pictures(folder, PATTERN)


def textured(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """(height, width, 3) noise on all scales, the coarser the stronger, as in photographs."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave, strength in enumerate(STRENGTHS):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = rng.standard_normal(shape, np.float32) * strength
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)
