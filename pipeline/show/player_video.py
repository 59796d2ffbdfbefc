"""The video of a player: each frame is one seek away, and has the clip's own time.  images ->
[video]
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, Final

import av
import cv2
import numpy as np

from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Doubles, Ints
from pipeline.show.video_file import ENCODER, require_encoder

WIDEST: Final = 960  # px, the longer side of the picture
KEY_FRAMES: Final = 30  # frames from one to the next
TICKS: Final = 90_000  # a second; of times in the file
TIME_BASE: Final = Fraction(1, TICKS)
# bits a second are limited so that a long video has about this many bytes
BYTES: Final = 36_000_000
# B-frames would be stored in another order than they are shown, and shift all times.
QUALITY: Final = {"crf": "24", "preset": "veryfast", "bf": "0", "g": str(KEY_FRAMES)}


def picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height px of the picture of images of this size: even, at most WIDEST, and not
    enlarged.

    >>> picture_size((1920, 1080)), picture_size((641, 480)), picture_size((1, 3000))
    ((960, 540), (640, 480), (2, 960))
    """
    scale = min(1.0, WIDEST / max(size))
    width, height = (max(2, 2 * int(side * scale / 2)) for side in size)
    return width, height


def resize(image: Image, size: tuple[int, int]) -> Image:
    """An image of this width and height."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def ticks_of(times: Doubles) -> Ints:
    """Times (n,) s in ticks from 0 on, each later than the one before."""
    numbers = np.arange(len(times))
    from_start = times - times[0]
    ticks = np.round(from_start * TICKS).astype(np.int64)
    increasing: Ints = np.maximum.accumulate(ticks - numbers) + numbers
    return increasing


class PlayerVideo:
    """Encodes images into H.264 in memory."""

    def __init__(self, size: tuple[int, int], seconds: float) -> None:
        """size: even width and height px of all images. seconds: how long the video will be.

        Raises PipelineError without an encoder.
        """
        require_encoder()
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        bits_a_second = 8 * BYTES / max(seconds, 1)
        limit = str(int(bits_a_second))
        options = {**QUALITY, "maxrate": limit, "bufsize": limit}
        stream: Any = self._container.add_stream(ENCODER, rate=30, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = TIME_BASE
        stream.codec_context.time_base = TIME_BASE
        self._stream = stream

    def add(self, image: Image, tick: int) -> None:
        """Append an image that is shown from this tick on."""
        pixels = np.ascontiguousarray(image)
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts = tick
        frame.time_base = TIME_BASE
        packets = self._stream.encode(frame)
        self._container.mux(packets)

    def finish(self) -> bytes:
        """The whole file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()
