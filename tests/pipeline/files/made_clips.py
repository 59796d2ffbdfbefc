"""Small clips of all kinds, made by PyAV. Each frame shows its number in bits."""

from __future__ import annotations

import io
import struct
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


paint_bits = paint  # `Clip.paint` hides its name


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
    metadata: dict[str, str] = field(default_factory=dict)
    paint: Callable[[int], int] = lambda number: number  # frame -> the number that it shows
    image: Callable[[int, int, int], Image] = paint_bits  # number, width, height -> its image

    def encode(self) -> bytes:
        """The file's bytes."""
        form = FORMATS.get(self.name.rpartition(".")[2])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, self.name)
            self._write(file, form)
            return file.read_bytes()

    def _write(self, file: Path, form: str | None) -> None:
        with av.open(str(file), "w", format=form, options=self.muxer) as container:
            container.metadata.update(self.metadata)
            options = {"g": "10", **self.options}
            stream = container.add_stream(self.codec, rate=self.rate, options=options)
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pix_fmt
            if self.times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            self.prepare(stream)
            packets: list[Any] = []
            for number in range(self.n_frames):
                frame = av.VideoFrame.from_ndarray(
                    self.image(self.paint(number), *self.size)
                ).reformat(format=self.pix_fmt)
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


MATRIX = {  # of a display: rows a b u, c d v, x y w, in fixed point
    "mirrored": (-1, 0, 0, 1),
    "a quarter turn": (0, 1, -1, 0),
    "a half turn": (-1, 0, 0, -1),
    "mirrored and turned": (0, 1, 1, 0),
}


def with_matrix(data: bytes, name: str) -> bytes:
    """An MP4 with another display matrix in its first track's header."""
    start = data.index(b"tkhd") + 4 + 40  # behind the type; version, times, layer, volume
    a, b, c, d = MATRIX[name]
    numbers = [value << 16 for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    return data[:start] + struct.pack(">9i", *numbers) + data[start + 36 :]


def trimmed(data: bytes, n_hidden: int, rate: int = 25) -> bytes:
    """An MP4 whose edit list begins `n_hidden` frames later, as phones trim clips."""
    start = data.index(b"elst") + 4 + 8
    duration, media_time, speed = struct.unpack_from(">IiI", data, start)
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    entry = struct.pack(
        ">IiI", duration - 1000 * n_hidden // rate, media_time + scale * n_hidden // rate, speed
    )
    return data[:start] + entry + data[start + 12 :]


def write_two_streams(file: Path, small: tuple[int, int], large: tuple[int, int]) -> None:
    """40 frames of `large`, numbered from 0 on; before it a stream of 15 frames of `small`, from
    200 on downwards.
    """
    with av.open(str(file), "w") as container:
        streams = []
        for (width, height), rate in ((small, 10), (large, 25)):
            stream: Any = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(40):
            for stream, first, step in zip(streams, (200, 0), (-1, 1), strict=True):
                if stream is streams[0] and number >= 15:
                    continue
                image = paint(first + step * number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(image)
                frame.pts = number
                frame.time_base = 1 / stream.average_rate
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
