"""H.264 videos, which browsers play.  images -> [video]"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image

DEFAULT_FPS: Final = 25.0  # of image folders, and of videos whose header has none
ENCODERS: Final = ("libx264", "libopenh264")
SUFFIX: Final = ".mp4"
SMALLEST_STEP: Final = 1001  # largest denominator of a frame rate, as in 30000/1001
QUALITY: Final = {"libx264": {"crf": "20", "preset": "veryfast"}}


@functools.cache
def _h264_encoder() -> str:
    """The encoder of this installation. Raises PipelineError without one."""
    for encoder in ENCODERS:
        if encoder in av.codecs_available:
            return encoder
    raise PipelineError(
        "PyAV has no H.264 encoder: install the package of PyPI, pip install --force-reinstall av"
    )


@contextmanager
def video_writer(
    file: Path, fps: float, size: tuple[int, int]
) -> Iterator[Callable[[Image], None]]:
    """Yield a function that appends RGB images to the file, which gets the suffix .mp4.

    size: width and height of all images; odd ones are padded, as the codec requires. The file
    appears when it is complete. Raises PipelineError if it cannot be written.
    """
    encoder = _h264_encoder()
    if file.suffix.lower() != SUFFIX:
        file = file.with_suffix(SUFFIX)
    part = file.with_name(f".{file.stem}.part{SUFFIX}")  # the suffix names the container
    width, height = (side + side % 2 for side in size)
    part.unlink(missing_ok=True)
    try:
        with av.open(str(part), "w", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(SMALLEST_STEP)
            stream: Any = container.add_stream(encoder, rate=rate, options=QUALITY.get(encoder, {}))
            stream.width = width
            stream.height = height
            stream.pix_fmt = "yuv420p"

            def write(image: Image) -> None:
                missing = (height - image.shape[0], width - image.shape[1])
                if any(missing):
                    image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))

            yield write
            container.mux(stream.encode(None))
        part.replace(file)
    except av.FFmpegError as error:
        raise PipelineError(
            f"{file}: cannot be written: {error}. Check the free disk space."
        ) from error
    finally:
        part.unlink(missing_ok=True)
