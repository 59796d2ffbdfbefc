"""What benchmarks/features.py extracts from: pictures and videos made up, and a split of persons in them in a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

import cache
from cache import SplitWriter, TrackRows, VideoEntry
from pipeline.features import bench_pixels
from pipeline.features.spec import Decode
from pipeline.pixels import sources
from pipeline.pixels.frames import Pictures
from pipeline.track import CROP_SCALE

FRAMES: Final = 100  # of a video, and so many files there are of a size: each video of the split shows them once more
FPS: Final = 30.0
STEP: Final = 4  # px from a video's frame to the next: the camera moves


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of pixels."""

    name: str
    size: tuple[int, int]  # (width, height) px
    persons: int
    video: bool = False
    decode: Decode = "full"

    @property
    def spec(self) -> str:
        """The pixel source below the raw folder."""
        width, height = self.size
        place = f"{width}x{height}"
        return f"video:{place}.mp4" if self.video else f"pictures:{place}/{bench_pixels.PATTERN}+0"


VGA, HD = bench_pixels.SIZES
CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", VGA, 1),
    "vga4": Case("640 x 480 JPEG, 4 persons", VGA, 4),
    "hd1": Case("1920 x 1080 JPEG, 1 person", HD, 1),
    "hd4": Case("1920 x 1080 JPEG, 4 persons", HD, 4),
    "hd1r": Case("1920 x 1080 JPEG, 1 person, decode reduced", HD, 1, decode="reduced"),
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
                        "bbox": bench_pixels.boxes(len(frames), case.size, seed=number * case.persons + person),
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
        bench_pixels.write_pictures(source.place, case.size, FRAMES)
    else:
        _write_video(source.place, case.size)


def _write_video(file: Path, size: tuple[int, int]) -> None:
    """A camera that moves over a still picture, with some noise of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    scene = bench_pixels.textured((width + STEP * FRAMES, height), seed=0)
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    for number in range(FRAMES):
        noise = rng.integers(-4, 5, (height, width, 3), np.int16)
        frame = scene[:, STEP * number : STEP * number + width] + noise
        writer.write(np.clip(frame, 0, 255).astype(np.uint8))
    writer.release()
