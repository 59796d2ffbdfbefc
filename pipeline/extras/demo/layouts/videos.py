"""A folder of clips without labels, for the dataset `videos` and the demo detector.  pixels ->
[raw]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.extras.demo.layouts import ReleaseLayout, Request, write_video
from pipeline.extras.demo.scene import Shot, Take, stage


def _plan(request: Request) -> Iterator[Shot]:
    """3 clips for training, 1 each for validation and test by default, of 48 frames."""
    for number, split in request.places(train=3, val=1, test=1):
        name = f"clip_{number:02d}"
        n_frames = request.n_frames or 48  # cleaning drops shorter tracks
        file = f"{split}/{name}.mp4"
        yield Shot(
            "videos", split, name, number, request.seed, n_frames, 25.0, hand_held=True, file=file
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<split>/<name>.mp4`."""
    take = stage(shot)
    write_video(take, folder / shot.file)
    return take


LAYOUT: Final = ReleaseLayout(
    "videos",
    "Clips of rendered people, without labels: nothing that anyone has filmed.",
    _plan,
    _record,
)
