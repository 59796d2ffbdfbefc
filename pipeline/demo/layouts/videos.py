"""A folder of clips without labels, for the dataset `videos` and the demo detector.  pixels ->
[raw]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_video
from pipeline.demo.scene import Shot, Take, stage

ACTIONS: Final = (
    ("walk", "wave"),
    ("dance", "march"),
    ("squat", "reach"),
    ("box", "kick"),
    ("throw", "bow"),
)


def _plan(request: Request) -> Iterator[Shot]:
    """3 clips for training, 1 each for validation and test by default, of 48 frames, filmed by
    hand.
    """
    for number, split, _ in request.enumerate_videos(106, train=3, val=1, test=1):
        n_frames = request.n_frames or 48
        name = f"clip_{number:02d}"  # cleaning drops shorter tracks
        looks = (25.0, 320, 240, 1, pick_cyclic(ACTIONS, number), True, f"{split}/{name}.mp4")
        yield Shot("videos", split, name, number, request.seed, n_frames, *looks)


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<split>/<name>.mp4`."""
    take = stage(shot)
    write_video(take, folder / shot.file)
    return take


WHAT: Final = "Clips of rendered people, without labels: nothing that anyone has filmed."
LAYOUT: Final = ReleaseLayout("videos", WHAT, _plan, _record)
