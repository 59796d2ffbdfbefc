"""Predicted bodies over frames, as training drew them at its epochs' ends.  training -> report: [bodies] -> page"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from pipeline.pixels.decode import PictureError, decode
from report.page import Section
from report.training.run_folder import Run

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
    left = MOST_BYTES
    for run in runs:
        for title, best, of in _epochs(run):
            shown, unseen = _pictures(of, left)
            strip = Strip(title, best, shown, unseen)
            left -= sum(len(picture.source) for picture in strip.pictures)
            strips.append(strip)
    without = [run.name for run in runs if not run.events.pictures]
    return Section("bodies", "Predicted bodies", "bodies.html", {"strips": strips, "without": without})


def _epochs(run: Run) -> Iterator[tuple[str, bool, dict[str, bytes]]]:
    """The best epoch's pictures and the last one's, with what to call them."""
    pictures, best = run.events.pictures, run.events.best_step()
    if not pictures:
        return
    last = max(pictures)
    for step in dict.fromkeys((best, last)):
        if step is None or step not in pictures:
            continue
        number = run.epoch_of(step)
        when = f"epoch {number:.0f}" if run.config is not None else f"step {step:,}"
        kinds = [kind for kind, of in (("best", best), ("last", last)) if of == step]
        yield f"{run.name}, {when} ({' and '.join(kinds)})", step == best, pictures[step]


def _pictures(pictures: dict[str, bytes], room: int) -> tuple[list[Picture], list[str]]:
    """Those that can be shown within `room` bytes, and what is wrong with the others."""
    shown, problems = [], []
    for window, data in pictures.items():
        try:
            picture = _encoded(window, data)
        except PictureError as error:
            problems.append(f"{window}: the picture in the events cannot be read: {error}")
            continue
        if (room := room - len(picture.source)) < 0:
            problems.append(f"{window}: left out, since the page would become too large. TensorBoard shows it.")
        else:
            shown.append(picture)
    return shown, problems


def _encoded(window: str, data: bytes) -> Picture:
    """PNG or JPEG bytes -> a JPEG for the page. Raises PictureError."""
    image = decode(data)
    if image.shape[1] > WIDTH:
        height = max(round(image.shape[0] * WIDTH / image.shape[1]), 1)
        image = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise PictureError("not_encoded", "OpenCV does not encode it")
    source = "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
    return Picture(source, image.shape[1], image.shape[0], window)
