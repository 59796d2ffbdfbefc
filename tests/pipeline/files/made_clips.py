"""Small clips of all kinds, made by PyAV. Each frame shows its number in bits."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

BITS = 8
WIDTH, HEIGHT = 128, 64
DARK, BRIGHT = 50, 200


def paint(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image:
    """An image (height, width, 3) whose columns are a number's bits, and below their inverse."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits), width // BITS)
    columns = np.pad(columns, (0, width - len(columns)), mode="edge")
    upper = np.where(columns, BRIGHT, DARK).astype(np.uint8)
    rows = np.empty((height, width), np.uint8)
    rows[: height // 2] = upper
    rows[height // 2 :] = DARK + BRIGHT - upper
    return np.repeat(rows[..., None], 3, axis=2)


def number_in(image: Image) -> int:
    """The number in an image of any size, upright; -1 if there is none."""
    height, width = image.shape[:2]
    grey = image.mean(axis=2)
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    upper = grey[height // 4, centres]
    lower = grey[3 * height // 4, centres]
    if (np.abs(upper - lower) < 50).any():
        return -1
    return int(((upper > lower) << np.arange(BITS)).sum())


@dataclass
class Clip:
    """How a clip is encoded. `change` edits its packets."""

    name: str
    codec: str = "libx264"
    n_frames: int = 40
    rate: int = 25
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    options: dict[str, str] = field(default_factory=dict)
    times: Sequence[int] | None = None  # ms of the frames
    change: Callable[[list[Any]], list[Any]] = list
    prepare: Callable[[Any], None] = lambda stream: None
    prepare_frame: Callable[[Any], None] = lambda frame: None
    muxer: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The file's bytes."""
        form = FORMATS.get(self.name.rpartition(".")[2])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, self.name)
            self._write(file, form)
            return file.read_bytes()

    def _write(self, file: Path, form: str | None) -> None:
        with av.open(str(file), "w", format=form, options=self.muxer) as container:
            options = {"g": "10", **self.options}
            stream = container.add_stream(self.codec, rate=self.rate, options=options)
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pix_fmt
            if self.times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            self.prepare(stream)
            packets: list[Any] = []
            for number in range(self.n_frames):
                frame = av.VideoFrame.from_ndarray(paint(number, *self.size)).reformat(format=self.pix_fmt)
                frame.pts = number if self.times is None else self.times[number]
                frame.time_base = stream.codec_context.time_base or Fraction(1, self.rate)
                self.prepare_frame(frame)
                packets += stream.encode(frame)
            packets += stream.encode(None)
            for packet in self.change(packets):
                container.mux(packet)


FORMATS = {
    "mkv": "matroska",
    "ts": "mpegts",
    "m2ts": "mpegts",
    "mpg": "mpeg",
    "wmv": "asf",
    "3gp": "3gp",
    "mov": "mov",
    "mp4": "mp4",
    "avi": "avi",
    "webm": "webm",
    "flv": "flv",
    "m4v": "mp4",
}


def find_packet(data: bytes, number: int) -> slice:
    """Where a packet's content is in a file; number: in decoding order."""
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytes(packets[number])
    start = data.index(content)
    return slice(start, start + len(content))


def zero(data: bytes, number: int) -> bytes:
    """The file with zeros in place of one packet's content."""
    place = find_packet(data, number)
    return data[: place.start] + bytes(place.stop - place.start) + data[place.stop :]
