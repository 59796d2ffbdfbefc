"""JPEGs and H.264 videos, which browsers show.  images -> [files]"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from pipeline.files.places import write_aside

DEFAULT_FPS: Final = 25.0  # of image folders, and of videos whose header has none
ENCODER: Final = "libx264"  # in PyPI's package av
SUFFIX: Final = ".mp4"
SMALLEST_STEP: Final = 1001  # largest denominator of a frame rate, as in 30000/1001
DISAPPEARED: Final = (
    "It or its folder was deleted meanwhile, as by another command with the same folder. "
    "Run one at a time."
)
CODECS: Final = "Install opencv-python with its image codecs."


class Encoding(NamedTuple):
    """How videos are encoded."""

    widest: float  # px; wider images are shrunk
    options: dict[str, str]  # of ENCODER


FULL_SIZE: Final = Encoding(math.inf, {"crf": "20", "preset": "veryfast"})
# Quick to write and to load; no B-frames and many key frames, for browsers that seek
FOR_PAGES: Final = Encoding(960, {"crf": "26", "preset": "ultrafast", "bf": "0", "g": "30"})


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode an RGB image (H, W, 3); quality: 0 to 100."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    is_encoded, data = cv2.imencode(".jpg", image[..., ::-1], options)
    if not is_encoded:
        raise PipelineError(f"OpenCV cannot encode a JPEG of {image.shape}. {CODECS}")
    return data.tobytes()


def require_encoder() -> None:
    """Raise PipelineError if PyAV cannot encode H.264."""
    if ENCODER not in av.codecs_available:
        raise PipelineError(
            "PyAV has no H.264 encoder: install the package of PyPI, pip install --force-reinstall "
            "av"
        )


@contextmanager
def video_writer(
    file: Path,
    fps: float,
    size: tuple[int, int],
    mark: str = "",
    encoding: Encoding = FULL_SIZE,
) -> Iterator[Callable[[Image], None]]:
    """Yield a function that appends RGB images to the file, which gets the suffix .mp4.

    size: width and height of all images; odd ones are padded, as the codec requires. mark: the
    container's comment. The file appears when it is complete. Raises PipelineError if it cannot be
    written. Errors of the caller's own, inside the `with` block, pass unchanged.
    """
    require_encoder()
    if file.suffix.lower() != SUFFIX:
        file = file.with_suffix(SUFFIX)
    if file.is_dir():
        raise PipelineError(
            f"{file}: expected a file for the video, found a folder of that name. Name another "
            "file, or rename the folder."
        )
    width, height = (side + side % 2 for side in size)
    zoom = min(1, encoding.widest / width)
    options = {"movflags": "+faststart"}
    with write_aside(file) as part:
        with _write_errors(file):
            container = av.open(str(part), "w", format="mp4", options=options)
        try:
            with _write_errors(file):
                container.metadata["comment"] = mark
                rate = Fraction(fps).limit_denominator(SMALLEST_STEP)
                stream: Any = container.add_stream(ENCODER, rate=rate, options=encoding.options)
            # PyAV shrinks the images to these
            stream.width = 2 * round(width * zoom / 2)
            stream.height = 2 * round(height * zoom / 2)
            stream.pix_fmt = "yuv420p"

            def write(image: Image) -> None:
                missing = (height - image.shape[0], width - image.shape[1])
                if any(missing):
                    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
                with _write_errors(file):
                    frame = av.VideoFrame.from_ndarray(image, "rgb24")
                    container.mux(stream.encode(frame))

            yield write
            with _write_errors(file):
                container.mux(stream.encode(None))
        finally:
            with _write_errors(file):
                container.close()  # writes the file's index


@contextmanager
def _write_errors(file: Path) -> Iterator[None]:
    """Raise PipelineError in place of an error of FFmpeg while it writes the file.

    Only around this module's own calls: the block of `video_writer`'s caller often decodes another
    video, whose errors say nothing about this file.
    """
    try:
        yield
    except av.FFmpegError as error:
        do = DISAPPEARED if isinstance(error, FileNotFoundError) else "Check the free disk space."
        raise PipelineError(f"{file}: cannot be written: {error}. {do}") from error
