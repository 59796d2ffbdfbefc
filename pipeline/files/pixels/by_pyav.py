"""The same frames of a video, decoded by another library than in an extraction.  [pixels] -> crops -> features

To find rows that have the numbers of another frame, the decoder that gave that frame must not be asked again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec

import numpy as np

from pipeline.files.pixels.decode import MAX_PIXELS
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Video, increasing, nothing


def another_decoder(source: FrameSource) -> tuple[FrameSource, str]:
    """A video's frames by PyAV (the extra `av`), all others as an extraction decodes them; and the decoder's name."""
    if isinstance(source, Video) and find_spec("av") is not None:
        return VideoByPyAV(source.root, source.path), "PyAV"
    return source, "OpenCV"


class VideoByPyAV(Video):
    """A video's frames in the order in which PyAV gives them: without seeking, turned as the video's header asks."""

    __slots__ = ()

    def read(self, frame_index: Iterable[int], *, alive: Callable[[], None] = nothing) -> Iterator[Frame]:
        images = self._images(alive)
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

    def _images(self, alive: Callable[[], None]) -> Iterator[Callable[[], Image]]:
        """What gives each frame's pixels: colours are converted only where they are asked for."""
        import av

        if refused := self.refused():
            raise _Unreadable(refused)
        try:
            with av.open(os.path.abspath(self.place), options={"protocol_whitelist": "file"}) as container:  # noqa: PTH100
                if not container.streams.video:
                    raise _Unreadable("no video stream in it")
                stream = container.streams.video[0]
                if not 0 < stream.width * stream.height <= MAX_PIXELS:
                    raise _Unreadable(f"claims {stream.width} x {stream.height} px; accepted are 1 to {MAX_PIXELS} px")
                for frame in container.decode(stream):
                    alive()
                    yield lambda frame=frame: _turned(frame.to_ndarray(format="rgb24"), frame.rotation)  # type: ignore[misc]
        except av.FFmpegError as error:
            raise _Unreadable(str(error)) from error


class _Unreadable(Exception):
    """The rest of a video cannot be decoded."""


def _turned(image: Image, degrees: int) -> Image:
    """As a player shows it: `degrees` counter-clockwise, of which a video's header has quarter turns alone."""
    return np.ascontiguousarray(np.rot90(image, round(degrees / 90)))
