"""How a player shows the frames of a video, and images of them.  [pixels] -> crops

A `View` says how stored frames are stretched, turned and mirrored. A `Painter` makes the images of
a video's decoded frames, in a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Image = NDArray[np.uint8]  # (H, W, 3) RGB

# transfer functions of HDR videos, ITU-T H.273, table 3
PQ: Final = 16
HLG: Final = 18
# pixel formats that FFmpeg converts to equal RGB and BGR
SAME_AS_BGR: Final = frozenset(("yuv420p", "yuvj420p"))
KEPT_MEMORY: Final = 31 << 20  # bytes; glibc's limit is 32 MiB
MOST_STRETCHED: Final = 8  # width / height of a pixel; more is damage
UPRIGHT: Final = (1, 0, 0, 1)  # the matrix of frames that are shown as they are stored


@dataclass(frozen=True, slots=True)
class View:
    """How a player shows the frames that a file stores.

    It does two things: it stretches them, because stored pixels need not be square, and it turns or
    mirrors them.

    `matrix` (a, b, c, d) maps a step along stored rows to (a, b) in the shown image, and one along
    columns to (c, d): a display matrix without its scale (ISO/IEC 14496-12, 8.2.2). A quarter turn
    clockwise is (0, 1, -1, 0).
    """

    stored: tuple[int, int]  # width, height px
    aspect: Fraction = Fraction(1)  # width / height of a stored pixel
    matrix: tuple[int, int, int, int] = UPRIGHT

    @classmethod
    def from_frame(cls, stream: VideoStream, frame: VideoFrame) -> View:
        """The view of a stream, by its header and its first decoded frame."""
        stated = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
        aspect = stated or Fraction(1)
        if not 0 < aspect <= MOST_STRETCHED:
            aspect = Fraction(1)
        return cls((frame.width, frame.height), aspect, _matrix(frame))

    @property
    def is_turned(self) -> bool:
        """Whether stored rows are shown as columns."""
        return self.matrix[0] == 0

    @property
    def is_mirrored(self) -> bool:
        a, b, c, d = self.matrix
        return a * d - b * c < 0

    @property
    def square(self) -> tuple[int, int]:
        """Width and height px after stretching to square pixels, before turning. As players do,
        only the width changes.
        """
        width, height = self.stored
        return max(1, round(width * self.aspect)), height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height px as shown, stretched and turned."""
        return self._shown_size(self.square)

    @property
    def unstretched(self) -> tuple[int, int]:
        """Width and height px by a tool that turns frames and does not stretch them, because it
        takes all pixels for square ones.
        """
        return self._shown_size(self.stored)

    def _shown_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size after turning: a quarter turn swaps width and height."""
        width, height = size
        return (height, width) if self.is_turned else (width, height)

    def turn(self, image: Image) -> Image:
        """Turn and mirror an image (H, W, 3). One that is shown as it is stored is returned as it
        is, not copied, and its rows may be padded.
        """
        a, b, c, d = self.matrix
        if self.matrix == UPRIGHT:
            return image
        if self.is_turned:
            image = image.transpose(1, 0, 2)
            flip_x = c < 0
            flip_y = b < 0
        else:
            flip_x = a < 0
            flip_y = d < 0
        if flip_x:
            image = image[:, ::-1]
        if flip_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """The matrix of `View` that a frame states, to the nearest right angle."""
    try:
        stored = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV has no name for other metadata of the frame
        clockwise = -math.radians(frame.rotation)
        a, b = round(math.cos(clockwise)), round(math.sin(clockwise))
        return a, b, -b, a
    if stored is None:
        return UPRIGHT
    data: Any = stored
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _sign(a), 0, 0, _sign(d)
    return 0, _sign(b), _sign(c), 0


def _sign(number: int) -> int:
    return -1 if number < 0 else 1


class Painter:
    """Makes images (H, W, 3), uint8 RGB, of a video's decoded frames, as a player shows them."""

    def __init__(self, view: View) -> None:
        from av.video.reformatter import VideoReformatter

        self._view = view
        self._square = view.square
        self._reformatter = VideoReformatter()
        # glibc keeps freed memory for the next image, once as much as this has been freed.
        np.empty(KEPT_MEMORY, np.uint8)

    def image(self, frame: VideoFrame) -> Image:
        """The image of a frame. A frame of another size than the first one's, in the middle of a
        clip, is scaled to that size.
        """
        import cv2

        image: Any
        if frame.color_trc == PQ:
            coded = self._reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray()
            image = _PQ_TO_SDR[np.right_shift(coded.astype(np.uint16, copy=False), 6)]
        else:
            image = self._rgb(frame)
        width, height = self._square
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return self._view.turn(image)

    def _rgb(self, frame: VideoFrame) -> Image:
        """(H, W, 3) RGB, not stretched or turned, and equal to what OpenCV decodes, bit by bit."""
        import cv2

        image: Any
        if frame.format.name in SAME_AS_BGR:
            image = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        else:
            bgr: Any = self._reformatter.reformat(
                frame, format="bgr24", interpolation="BICUBIC", threads=1
            ).to_ndarray()
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return np.asarray(image, np.uint8)


def _pq_to_sdr() -> NDArray[np.uint8]:
    """A table (1024,) from the 10-bit values of an HDR video (PQ) to the 8-bit values of an image.

    PQ codes luminance by SMPTE ST 2084. Diffuse white, 203 cd/m^2 of it (ITU-R BT.2408), becomes
    0.8 of the display's light; brighter values are compressed by Reinhard's curve and end at its
    maximum. The result is coded by a gamma of 2.2.
    """
    # names and values of the standard
    m1 = 2610 / 16384
    m2 = 2523 / 32
    c1 = 3424 / 4096
    c2 = 2413 / 128
    c3 = 2392 / 128
    coded = np.linspace(0, 1, 1024) ** (1 / m2)
    luminance = 10000 * (np.maximum(coded - c1, 0) / (c2 - c3 * coded)) ** (1 / m1)
    relative = luminance / 203
    white = 10000 / 203
    # Reinhard's curve, extended to `white`
    compressed = relative * (1 + relative / white**2) / (1 + relative)
    at_white = (1 + 1 / white**2) / 2
    shown = np.clip(compressed / at_white * 0.8, 0, 1) ** (1 / 2.2)
    return np.asarray(np.round(255 * shown), np.uint8)


_PQ_TO_SDR: Final = _pq_to_sdr()
