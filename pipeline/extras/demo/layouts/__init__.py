"""Writers of the datasets' official layouts.  pixels and labels -> [raw]

To add a dataset, add a file of its reader's name, with a `LAYOUT`, to this folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from pipeline.errors import ConfigError
from pipeline.extras.demo.files import jpeg, mp4_writer
from pipeline.extras.demo.scene import Shot, Take, film
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Bools

T = TypeVar("T")


SIZES: Final = {"tiny": 0.2, "default": 1.0, "large": 4.0}  # numbers of videos


@dataclass(frozen=True, slots=True)
class Request:
    """Seed and amount of the demo data to write. Raises ConfigError for invalid values.

    `n_videos` (per split) and `n_frames` (per video) override `size`.
    """

    seed: int = 0
    size: str = "default"
    n_videos: int | None = None
    n_frames: int | None = None

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            sizes = ", ".join(SIZES)
            raise ConfigError(
                f"size of the demo data: expected one of {sizes}, found {self.size!r}"
            )

    def videos(self, usual: int) -> int:
        """Number of videos in a split with `usual` videos by default."""
        if self.n_videos is not None:
            return self.n_videos
        return max(1, round(usual * SIZES[self.size]))

    def frames(self, usual: int) -> int:
        """Number of frames in a video with `usual` frames by default."""
        return self.n_frames or usual

    def places(self, **usual: int) -> Iterator[tuple[int, str]]:
        """Number, from 0, and split of every video. usual: default number of videos by split."""
        splits = [split for split, n in usual.items() for _ in range(self.videos(n))]
        return enumerate(splits)


@dataclass(frozen=True, slots=True)
class ReleaseLayout:
    """Functions that write a dataset in its official layout, and what tests of all datasets need
    to know about it.
    """

    name: str
    what: str  # one sentence for the marker file
    plan: Callable[[Request], Iterator[Shot]]  # all videos
    # (shot, folder=): writes one video into the dataset's folder, returns its ground truth
    record: Callable[..., Take]
    finish: Callable[[Path, Sequence[Shot]], None] | None = None  # writes files about all videos
    # videos per split and frames per video that are enough for tests
    n_videos: int = 1
    n_frames: int = 12
    # pattern of label files -> keys of the numbers in them, which tests make invalid
    labels: Mapping[str, str] = field(default_factory=dict)


def pick_cyclic(options: Sequence[T], number: int) -> T:
    """Option number `number`, modulo the number of options."""
    return options[number % len(options)]


def write_frames(take: Take, write: Callable[[int, Image], object]) -> Bools:
    """Render a take, and write each frame by its number. Returns visible (T, actors, 49)."""
    visible = []
    for number, filmed in enumerate(film(take)):
        write(number, filmed.image)
        visible.append(filmed.visible)
    return np.array(visible)


def write_pictures(take: Take, folder: Path, name: str, *, first: int = 0) -> Bools:
    """Render a take into a new folder of JPEGs, `name.format(frame + first)`. Returns visible (T,
    actors, 49).
    """
    folder.mkdir(parents=True)
    return write_frames(
        take,
        lambda frame, image: (folder / name.format(frame + first)).write_bytes(jpeg(image)),
    )


def write_video(take: Take, file: Path) -> Bools:
    """Render a take into a video file. Returns visible (T, actors, 49)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    camera = take.view
    with mp4_writer(file, take.shot.fps, camera.width, camera.height) as writer:
        return write_frames(
            take, lambda _, image: writer.write(np.ascontiguousarray(image[..., ::-1]))
        )


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file, and create its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
