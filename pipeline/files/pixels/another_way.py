"""The same frames, decoded by other means than in an extraction.  [pixels] -> crops -> features

To find rows that have the numbers of another frame, the decoder that gave that frame must not be asked again. Videos
are decoded by PyAV (the extra `av`), or without it by OpenCV, every frame from the first on; pictures by Pillow.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
from PIL import Image as Pillow

from pipeline.errors import PipelineError
from pipeline.files.pixels.decode import MAX_PIXELS, PictureError, picture_size
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Pictures, Video, increasing, nothing
from pipeline.files.pixels.records import Records


def another_way(source: FrameSource) -> tuple[FrameSource, str]:
    """The source of the same frames by another decoder, and that one's name.

    Raises PipelineError for a source of which there is no other.
    """
    match source:
        case Video():
            video = VideoByPyAV if find_spec("av") is not None else VideoInOrder
            return video(source.root, source.path), video.way
        case Pictures():
            return PicturesByPillow(source.root, source.pattern, source.first), PicturesByPillow.way
        case Records():
            return RecordsByPillow(source.root, source.path, source.start, source.length), RecordsByPillow.way
    raise PipelineError(f"{source.spec}: another way to decode it is not known")


class VideoByPyAV(Video):
    """A video's frames in the order in which PyAV gives them: without seeking, turned as the video's header asks."""

    __slots__ = ()
    way: ClassVar[str] = "PyAV"

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
        import av  # the extra `av`: there is another way without it

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


class VideoInOrder(Video):
    """A video by OpenCV, every frame from the first on: none is passed over undecoded, as extraction does."""

    __slots__ = ()
    way: ClassVar[str] = "OpenCV, every frame"

    def read(self, frame_index: Iterable[int], *, alive: Callable[[], None] = nothing) -> Iterator[Frame]:
        every = Video.read(self, itertools.count(), alive=alive)
        for index in increasing(frame_index):
            yield next(frame for frame in every if frame.index == index)


class PicturesByPillow(Pictures):
    """Numbered pictures."""

    __slots__ = ()
    way: ClassVar[str] = "Pillow"

    def decoded(self, data: bytes) -> Image:
        return by_pillow(data)


class RecordsByPillow(Records):
    """Pictures in a TFRecord."""

    __slots__ = ()
    way: ClassVar[str] = "Pillow"

    def decoded(self, picture: bytes) -> Image:
        return by_pillow(picture)


def by_pillow(data: bytes) -> Image:
    """JPEG or PNG bytes -> (H, W, 3) uint8 RGB, a rotation in the EXIF header not applied. Raises PictureError."""
    picture_size(data)  # no other kind, and no larger picture
    try:
        with Pillow.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError("picture_damaged", f"cannot be decoded by Pillow: {error}") from error
