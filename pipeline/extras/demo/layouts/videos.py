"""A folder of clips without labels, for the dataset `videos` and the demo detector.  pixels ->
[raw]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_video
from pipeline.extras.demo.scene import Shot, Take, stage

RANDOM_KEY: Final = 106  # of the dataset, in `Request.rng`
ACTIONS: Final = (
    ("walk", "wave"),
    ("dance", "march"),
    ("squat", "reach"),
    ("box", "kick"),
    ("throw", "bow"),
)


def _plan(request: Request) -> Iterator[Shot]:
    """3 clips for training, 1 each for validation and test by default, of 48 frames."""
    for slot in request.slots("videos", RANDOM_KEY, train=3, val=1, test=1):
        name = f"clip_{slot.number:02d}"
        yield slot.shot(
            name,
            request.n_frames or 48,  # cleaning drops shorter tracks
            25.0,
            actions=pick_cyclic(ACTIONS, slot.number),
            hand_held=True,
            file=f"{slot.split}/{name}.mp4",
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
