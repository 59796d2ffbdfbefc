"""Video files for browsers: H.264 if PyAV has an encoder, else VP9.  images -> [video]"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.frames import Image, Video

if TYPE_CHECKING:
    from av import VideoStream

DEFAULT_FPS: Final = 25.0  # of image folders, and of videos whose header has none
H264_ENCODERS: Final = ("libx264", "libopenh264")
SMALLEST_STEP: Final = 1001  # largest denominator of a frame rate, as in 30000/1001
QUALITY: Final = {"libx264": {"crf": "20", "preset": "veryfast"}}


class VideoFormat(NamedTuple):
    """A video format that this installation can write."""

    suffix: str
    codec: str  # of PyAV, or OpenCV's four letters
    plays: bool = True  # in browsers


@functools.cache
def best_format() -> VideoFormat:
    """The best format of this installation: H.264 or VP9, which browsers play, else MPEG-4 part 2."""
    with suppress(ImportError):
        import av

        if codec := next((name for name in H264_ENCODERS if name in av.codecs_available), None):
            return VideoFormat(".mp4", codec)
    with tempfile.TemporaryDirectory() as folder:
        vp9 = VideoFormat(".webm", "VP90")
        writer = cv2.VideoWriter(str(Path(folder, "trial.webm")), cv2.VideoWriter.fourcc(*vp9.codec), 25, (64, 64))
        opened = writer.isOpened()
        writer.release()
    return vp9 if opened else VideoFormat(".mp4", "mp4v", plays=False)


@contextmanager
def video_writer(file: Path, fps: float, size: tuple[int, int]) -> Iterator[Callable[[Image], None]]:
    """Yield a function that appends RGB images to the file, which gets the suffix of `best_format`.

    size: width and height of all images; odd ones are padded, as the codecs require. The file appears when it is
    complete. Raises PipelineError if it cannot be written.
    """
    video_format, written = best_format(), 0
    if file.suffix.lower() != video_format.suffix:
        file = file.with_suffix(video_format.suffix)
    width, height = (side + side % 2 for side in size)
    part = file.with_name(f".{file.stem}.part{video_format.suffix}")  # the suffix names the container
    part.unlink(missing_ok=True)
    opened = (
        _pyav(part, video_format.codec, fps, width, height)
        if video_format.codec in H264_ENCODERS
        else _opencv(part, video_format.codec, fps, width, height)
    )
    try:
        with opened as write:

            def one(image: Image) -> None:
                nonlocal written
                missing = (height - image.shape[0], width - image.shape[1])
                write(np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else image)
                written += 1

            yield one
        try:  # OpenCV reports no error when the disk is full
            readable = Video(part.parent.resolve(), part.name).header().n_frames if written else 0
        except RawDataError:
            readable = 0
        if not readable or readable != written:
            raise PipelineError(
                f"{file}: expected a video of {written} frames, found {readable or 0}. Check the free disk space."
            )
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _pyav(file: Path, codec: str, fps: float, width: int, height: int) -> Iterator[Callable[[Image], None]]:
    import av

    try:
        with av.open(str(file), "w", options={"movflags": "+faststart"}) as container:
            rate = Fraction(fps).limit_denominator(SMALLEST_STEP)
            stream: VideoStream = container.add_stream(codec, rate=rate, options=QUALITY.get(codec, {}))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

            def write(image: Image) -> None:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))

            yield write
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise PipelineError(f"{file}: cannot be written: {error}") from error


@contextmanager
def _opencv(file: Path, codec: str, fps: float, width: int, height: int) -> Iterator[Callable[[Image], None]]:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    try:
        if not writer.isOpened():
            raise PipelineError(f"{file}: OpenCV cannot write {codec}. Install opencv-python with its video codecs.")
        yield lambda image: writer.write(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
    finally:
        writer.release()
