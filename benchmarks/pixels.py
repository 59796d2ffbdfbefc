"""Pictures and videos of noise on all scales, whose files are as large as photographs', and splits of persons in them.

What `features.py` and `gpu_check.py` extract from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.pixels import sources
from pipeline.pixels.frames import Pictures
from pipeline.track import CROP_SCALE

FRAMES: Final = 100  # of a video, and files of a size: each video of the split shows them once more
STRENGTHS: Final = (3.0, 5.0, 8.0, 10.0, 12.0, 14.0, 16.0)  # of noise at 1, 2, 4, ... px, in grey levels of 255
CROPPED: Final = "cropped"  # the case of stored crops

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


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
        place = f"{self.size[0]}x{self.size[1]}"
        return f"video:{place}.mp4" if self.video else f"pictures:{place}/{{:06d}}.jpg+0"


CASES: Final = {
    "vga1": Case("640 x 480 JPEG, 1 person", (640, 480), 1),
    "vga4": Case("640 x 480 JPEG, 4 persons", (640, 480), 4),
    "hd1": Case("1920 x 1080 JPEG, 1 person", (1920, 1080), 1),
    "hd4": Case("1920 x 1080 JPEG, 4 persons", (1920, 1080), 4),
    "video1": Case("640 x 480 MPEG-4, 1 person", (640, 480), 1, video=True),
    "video4": Case("640 x 480 MPEG-4, 4 persons", (640, 480), 4, video=True),
    CROPPED: Case("224 x 224 JPEG, the stored crops", (640, 480), 4),
}
TINY: Final = Case("64 x 48 JPEG, 1 person", (64, 48), 1)  # where only memory is measured


def make(work: Path, key: str, case: Case, n_crops: int) -> None:
    """A case's pixels, where they do not exist, and its split of about so many crops."""
    source = sources.parse(work / "raw", case.spec)
    if not source.place.exists():
        source.place.parent.mkdir(parents=True, exist_ok=True)
        write_pictures(source.place, case.size) if isinstance(source, Pictures) else write_video(
            source.place, case.size
        )
    columns, provenance = ("frame_index", "bbox"), {"raw": str(work / "raw")}
    n_frames, pixels, (width, height) = max(1, n_crops // case.persons), source.digest(), case.size
    with cache.SplitWriter(
        work / "cache", f"{key}/train", columns=columns, plan="made up", provenance=provenance
    ) as writer:
        writer.begin()
        for number, start in enumerate(range(0, n_frames, FRAMES)):
            name, frames = f"{number:06d}", np.arange(min(FRAMES, n_frames - start))
            tracks = [
                cache.TrackRows(
                    name=f"{name}/{person}",
                    video=name,
                    step=1,
                    fps=30.0,
                    crop_scale=CROP_SCALE,
                    columns={
                        "frame_index": frames,
                        "bbox": boxes(len(frames), case.size, number * case.persons + person),
                    },
                )
                for person in range(case.persons)
            ]
            entry = cache.VideoEntry(name=name, source=case.spec, pixels=pixels, width=width, height=height)
            writer.append(entry, tracks)
        writer.commit({"stand_in": True})


def boxes(n: int, size: tuple[int, int], seed: int) -> Floats:
    """(n, 4) square cxcywh px: persons of 30% to 80% of the picture's height."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(0.3, 0.8, n) * size[1]
    x, y = rng.uniform(0.3, 0.7, (2, n))
    return np.stack([x * size[0], y * size[1], side, side], axis=1).astype(np.float32)


def write_pictures(folder: Path, size: tuple[int, int]) -> None:
    """JPEG files, about as many bytes each as photographs have."""
    folder.mkdir(parents=True)
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), textured(size, number), [cv2.IMWRITE_JPEG_QUALITY, 90])


def write_video(file: Path, size: tuple[int, int]) -> None:
    """A camera that moves over a still picture, by 4 px a frame, with some noise of its own."""
    (width, height), rng = size, np.random.default_rng(0)
    scene = textured((width + 4 * FRAMES, height), 0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)
    for number in range(FRAMES):
        frame = scene[:, 4 * number : 4 * number + width] + rng.integers(-4, 5, (height, width, 3), np.int16)
        writer.write(np.clip(frame, 0, 255).astype(np.uint8))
    writer.release()


def textured(size: tuple[int, int], seed: int) -> Bytes:
    """(height, width, 3) noise on all scales, the coarser the stronger, as in photographs."""
    width, height = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for octave, strength in enumerate(STRENGTHS):
        shape = (-(-height // 2**octave), -(-width // 2**octave), 3)
        noise = rng.standard_normal(shape, np.float32) * strength
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)
