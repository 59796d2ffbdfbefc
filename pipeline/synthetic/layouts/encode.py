"""Frames as files, by the same bytes every time.  pixels -> [raw]"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cv2

from pipeline.errors import PipelineError
from pipeline.synthetic.scene.render import Image

JPEG_QUALITY: Final = 95


def jpeg(image: Image) -> bytes:
    """An RGB picture (H, W, 3) as JPEG."""
    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise PipelineError("OpenCV cannot encode JPEG. Install opencv-python with its image codecs.")
    return encoded.tobytes()


def write_jpeg(file: Path, image: Image) -> None:
    """The same into a file."""
    file.write_bytes(jpeg(image))


@contextmanager
def mp4_writer(file: Path, fps: float, width: int, height: int) -> Iterator[cv2.VideoWriter]:
    """A video file (MPEG-4 part 2: every build of OpenCV has it) that takes BGR pictures through `write`."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    try:
        if not writer.isOpened():
            raise PipelineError(f"{file}: OpenCV cannot write MPEG-4. Install opencv-python with its video codecs.")
        yield writer
    finally:
        writer.release()
