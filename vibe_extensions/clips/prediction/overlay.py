"""Overlays: videos or images of bodies over the frames that they were predicted from.  bodies -> [images]"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from vibe_extensions.clips.prediction.drawing import BodyDrawing, PredictedBodies
from vibe_extensions.pages.show.clip import caption, frames_of, rate_of
from vibe_extensions.pages.video_file import best_format, video_writer
from vibe_model import runs
from vibe_model.networks.video_model import VideoModel

if TYPE_CHECKING:
    from pipeline.files.pixels.frames import FrameSource

FRAMES_AT_ONCE: Final = 16  # read, posed and painted together


def write_overlay(
    file: Path,
    source: FrameSource,
    bodies: PredictedBodies,
    generator: VideoModel,
    *,
    text: str = "",
) -> tuple[Path, int]:
    """Write all the source's frames with bodies drawn over them. Returns the file and its number of frames.

    The file has the suffix of the best available video format, or `.png` for a single frame. Past and future bodies, if
    the model predicts them, are beside each frame. A frame that cannot be decoded repeats the one before it.

    Args:
        text: Caption in the corner of every frame.

    Raises:
        PipelineError: the file cannot be written.
    """
    rate = rate_of(source)
    images = _draw_frames(source, bodies, BodyDrawing(generator), rate)
    first = next(images, None)
    if first is None:
        raise PipelineError(f"{source.place}: no frame can be decoded, so there is no overlay")
    second = next(images, None)
    file.parent.mkdir(parents=True, exist_ok=True)
    if second is None:
        caption(first, text)
        png = cv2.imencode(".png", first[..., ::-1])[1].tobytes()
        runs.replace_file(file.with_suffix(".png"), lambda stream: stream.write(png))
        return file.with_suffix(".png"), 1
    written = 0
    with video_writer(file, rate, (first.shape[1], first.shape[0])) as write:
        for image in itertools.chain((first, second), images):
            caption(image, text)
            write(image)
            written += 1
    return file.with_suffix(best_format().suffix), written


def time_label(step: int, fps: float) -> str:
    """
    >>> time_label(-5, 25.0)
    '0.2 s before'
    """
    return f"{abs(step) / fps:.2g} s {'before' if step < 0 else 'after'}"


def _draw_frames(source: FrameSource, bodies: PredictedBodies, drawing: BodyDrawing, fps: float) -> Iterator[Image]:
    """Yield every frame of the source with its bodies, and past and future ones beside it."""
    every = frames_of(source, stop=bodies.stop)  # includes damaged frames
    while frames := list(itertools.islice(every, FRAMES_AT_ONCE)):
        records = bodies.read_frames(frames[0][0].index, frames[-1][0].index + 1)
        verts = drawing.vertices(records)
        moved: dict[str, Any] = {
            time_label(step * bodies.step, fps): drawing.vertices(records, i) for i, step in enumerate(bodies.steps)
        }
        for frame, image in frames:
            in_frame = records["frame"] == frame.index
            around = {text: points[in_frame] for text, points in moved.items()}
            yield drawing.views(image, records[in_frame], verts[in_frame], around)
