"""Predicted bodies over frames, as training drew them at its epochs' ends.  training -> report: [bodies] -> page"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from pipeline.pixels.decode import PictureError, decode
from pipeline.show.page import jpeg_uri
from report.page import Section
from report.training.run import Run

QUALITY: Final = 82  # of JPEG
WIDTH: Final = 960  # px at most
MOST_BYTES: Final = 6 << 20  # of all pictures, encoded


@dataclass(frozen=True, slots=True)
class Picture:
    """One window's frames, with labels above and predicted bodies below."""

    source: str  # a data: address
    width: int
    height: int
    window: str  # split, track and frames, as training named it


@dataclass(frozen=True, slots=True)
class Strip:
    """The pictures of one epoch of a run."""

    title: str
    best: bool  # is it the best epoch?
    pictures: Sequence[Picture]
    problems: Sequence[str]  # of pictures that cannot be shown


def bodies_section(runs: Sequence[Run]) -> Section:
    """The pictures of each run's best epoch, and of its last."""
    strips: list[Strip] = []
    room = MOST_BYTES
    for title, best, pictures in (epoch for run in runs for epoch in _epochs(run)):
        shown, problems = [], []
        for window, data in pictures.items():
            try:
                picture = _encoded(window, data)
            except PictureError as error:
                problems.append(f"{window}: the picture in the events cannot be read: {error}")
                continue
            if len(picture.source) > room:
                problems.append(f"{window}: left out, the page would become too large. TensorBoard shows it.")
                continue
            room -= len(picture.source)
            shown.append(picture)
        strips.append(Strip(title, best, shown, problems))
    without = [run.name for run in runs if not run.events.pictures]
    return Section("bodies", "Predicted bodies", "bodies.html", {"strips": strips, "without": without})


def _epochs(run: Run) -> Iterator[tuple[str, bool, Mapping[str, bytes]]]:
    """The best epoch's pictures and the last one's, with what to call them."""
    pictures, best, last = run.events.pictures, run.events.best_step(), max(run.events.pictures, default=None)
    for step in dict.fromkeys((best, last)):
        if step is not None and step in pictures:
            when = f"epoch {run.epoch_of(step):.0f}" if run.config is not None else f"step {step:,}"
            kinds = [kind for kind, of in (("best", best), ("last", last)) if of == step]
            yield f"{run.name}, {when} ({' and '.join(kinds)})", step == best, pictures[step]


def _encoded(window: str, data: bytes) -> Picture:
    """PNG or JPEG bytes -> a JPEG for the page. Raises PictureError."""
    image = decode(data)
    if image.shape[1] > WIDTH:
        height = max(round(image.shape[0] * WIDTH / image.shape[1]), 1)
        image = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return Picture(jpeg_uri(image, QUALITY), image.shape[1], image.shape[0], window)
