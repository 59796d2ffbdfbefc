"""The same frames of a video from another decoder.  [pixels] -> crops -> features

Checks of stored features need a second decoder, to find rows with another frame's numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec

import numpy as np

from pipeline.files.pixels.decode import MAX_PIXELS
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Video, increasing
from pipeline.processes import alive


def another_decoder(source: FrameSource) -> tuple[FrameSource, str]:
    """A video's frames by PyAV (the extra `pages`), others as in an extraction; and the decoder's name."""
    if isinstance(source, Video) and find_spec("av") is not None:
        return VideoByPyAV(source.root, source.path), "PyAV"
    return source, "OpenCV"


class VideoByPyAV(Video):
    """A video's frames in PyAV's order: without seeking, rotated as the header says."""

    __slots__ = ()

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        images = self._images()
        position, image, problem, kind = -1, None, "", ""
        for index in increasing(frame_index):
            while not problem and position < index:
                try:
                    image = next(images)
                    position += 1
                except StopIteration:
                    problem, kind = f"{self.place} ends after {position + 1} frames", "video_ended"
                except _Unreadable as error:
                    problem, kind = f"{self.place}: frame {position + 1} and later: {error}", "video_unreadable"
            if problem or image is None:
                yield Frame(index, None, problem, kind)
            else:
                yield Frame(index, image(), None)

    def _images(self) -> Iterator[Callable[[], Image]]:
        """Functions that give each frame's pixels: colours are converted only on use."""
        import av

        if refused := self.refusal():
            raise _Unreadable(refused)
        try:
            with av.open(os.path.abspath(self.place), options={"protocol_whitelist": "file"}) as container:  # noqa: PTH100
                if not container.streams.video:
                    raise _Unreadable("no video stream in it")
                stream = container.streams.video[0]
                if not 0 < stream.width * stream.height <= MAX_PIXELS:
                    raise _Unreadable(f"claims {stream.width} x {stream.height} px, expected 1 to {MAX_PIXELS}")
                for frame in container.decode(stream):
                    alive()
                    yield lambda frame=frame: _rotate(frame.to_ndarray(format="rgb24"), frame.rotation)  # type: ignore[misc]
        except av.FFmpegError as error:
            raise _Unreadable(str(error)) from error


class _Unreadable(Exception):
    """The rest of a video cannot be decoded."""


def _rotate(image: Image, degrees: int) -> Image:
    """Rotate counter-clockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(image, round(degrees / 90)))
