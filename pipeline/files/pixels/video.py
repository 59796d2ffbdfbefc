"""Frames of a video file, decoded by PyAV, and their numbers and times.  [pixels] -> crops

A frame's number is its position in presentation order among the frames that a player shows. A frame
that damage loses keeps its number, so that labels of the later ones still fit. Frames that an edit
list hides have none.
"""

from __future__ import annotations

import bisect
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.files.pixels.decode import MAX_PIXELS

Image = NDArray[np.uint8]  # (H, W, 3) RGB

THREADS: Final = "VIDEO_THREADS"  # environment: threads of one video's decoder
# FFmpeg's names of its readers
FORMATS: Final = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,h264,hevc"
# FFmpeg follows links in play lists and in files. A clip is one local file.
OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# Decoders of packets that are the second field of a frame, or a reference that is not shown.
WITH_OTHER_PACKETS: Final = frozenset(("h264", "mpeg1video", "mpeg2video", "vc1", "vp8", "vp9"))
PQ: Final = 16  # transfer functions, ITU-T H.273, table 3
HLG: Final = 18
SAME_AS_BGR: Final = frozenset(("yuv420p", "yuvj420p"))  # FFmpeg converts them to equal RGB and BGR
# headers with a variable rate state their clock, 90000 a second or the like
MAX_FPS: Final = 1000.0


class VideoHeader(NamedTuple):
    """A video's header. Containers are often wrong about `n_frames` and `fps`: do not rely on
    them.
    """

    n_frames: int | None  # None: not in the header
    fps: float  # nan: not in the header
    width: int  # px, as stored
    height: int


class NumberedFrame(NamedTuple):
    """A decoded frame with its number and its time in s, or a lost one."""

    number: int
    decoded: VideoFrame | None
    time: float = math.nan


@dataclass(slots=True)
class _Numbering:
    """Numbers of frames by the times of their packets.

    A decoder gives frames in presentation order. Where it skips the time of a packet after damage,
    a frame is lost. In an intact file such packets hold no frame of their own: the second field of
    a frame, or a hidden reference.
    """

    may_have_others: bool  # packets without a frame of their own
    n_frames: int = 0
    is_damaged: bool = False
    has_others: bool = False
    # time of a key frame that is lost; later frames are drawn over it until the next one
    lost_key: float = -math.inf
    needs_key: bool = True
    # times of packets whose frames have not come, ascending
    waiting: list[int] = field(default_factory=list)
    # those of key frames; some decoders do not mark their frames
    keys: set[int] = field(default_factory=set)

    def expect(self, packet: Any) -> None:
        """A packet is passed to the decoder."""
        if packet.pts is None:
            return
        bisect.insort(self.waiting, packet.pts)
        if packet.is_keyframe:
            self.keys.add(packet.pts)

    def skip_to(self, time: int | None) -> Iterator[NumberedFrame]:
        """Lost frames before a time; with None, all that are still expected."""
        n_skipped = len(self.waiting)
        if time is not None:
            n_skipped = bisect.bisect_left(self.waiting, time)
        del self.waiting[:n_skipped]
        are_lost = self.is_damaged or not self.may_have_others
        if are_lost or (time is None and not self.has_others):
            for _ in range(n_skipped):
                yield self.lose()
        elif n_skipped:
            self.has_others = True

    def lose(self) -> NumberedFrame:
        """The next frame, which is lost."""
        lost = NumberedFrame(self.n_frames, None)
        self.n_frames += 1
        return lost

    def note_damage(self, packet: Any) -> None:
        """A packet cannot be decoded."""
        self.is_damaged = True
        if packet.is_keyframe:
            self.needs_key = True
            self.lost_key = packet.pts
            if packet.pts is None:
                self.lost_key = -math.inf

    def take(self, frame: VideoFrame) -> Iterator[NumberedFrame]:
        """The lost frames before a decoded one, and this one."""
        time = math.nan
        if frame.pts is not None:
            yield from self.skip_to(frame.pts)
            is_expected = bool(self.waiting) and self.waiting[0] == frame.pts
            if self.is_damaged and not is_expected:
                return  # a second frame of a damaged packet
            if is_expected:
                del self.waiting[0]
            assert frame.time is not None
            time = frame.time

        is_after_lost_key = frame.pts is None or frame.pts > self.lost_key
        if self.needs_key and is_after_lost_key:
            self.needs_key = not (frame.key_frame or frame.pts in self.keys)
            if self.needs_key:
                yield self.lose()
                return
        self.keys.discard(frame.pts)
        yield NumberedFrame(self.n_frames, frame, time)
        self.n_frames += 1


class OpenVideo:
    """A video file that is open for reading, once, from its first frame on."""

    def __init__(self, container: Any) -> None:
        self._container = container
        stream = container.streams.best("video")
        assert stream is not None
        self.stream: VideoStream = stream
        threads = int(os.environ.get(THREADS, "0"))
        self.stream.codec_context.thread_count = threads
        # Not frame by frame: with such threads, damage would be reported late, and lose more
        # frames.
        self.stream.codec_context.thread_type = "SLICE"
        self.n_bytes: int = container.size
        self.n_packets = 0
        self.n_hidden = 0  # packets whose frames are not shown

    @property
    def n_streams(self) -> int:
        """Number of video streams, without cover pictures."""
        streams = self._container.streams.video
        return sum(not stream.disposition & Disposition.attached_pic for stream in streams)

    @property
    def metadata(self) -> dict[str, str]:
        """The container's own remarks, by key."""
        return dict(self._container.metadata)

    def header(self) -> VideoHeader:
        """The header of the file."""
        context = self.stream.codec_context
        rate = self.stream.average_rate or self.stream.guessed_rate
        fps = math.nan
        if rate and rate <= MAX_FPS:
            fps = float(rate)
        n_frames = self.stream.frames
        duration = self._container.duration  # microseconds
        if not n_frames and duration and math.isfinite(fps):
            n_frames = round(duration / 1e6 * fps)
        return VideoHeader(n_frames or None, fps, context.width, context.height)

    @property
    def index(self) -> Any:
        """The packets that an MP4 lists and an edit list leaves; None for other files."""
        if "mp4" in self._container.format.name.split(","):
            return self.stream.index_entries
        return None

    def frames(self) -> Iterator[NumberedFrame]:
        """All frames in order, and the lost ones among them."""
        context = self.stream.codec_context
        numbering = _Numbering(may_have_others=context.name in WITH_OTHER_PACKETS)
        # An AVI has no times of its own; those of B-frames are wrong.
        has_times = not (self._container.format.name == "avi" and context.has_b_frames)
        for packet in self._packets():
            if not has_times:
                packet.pts = None
            if packet.size:
                self._count(packet, numbering)
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                numbering.note_damage(packet)
                if packet.pts is None:
                    yield numbering.lose()
                continue
            for frame in decoded:
                yield from numbering.take(frame)
        yield from numbering.skip_to(None)

    def _count(self, packet: Any, numbering: _Numbering) -> None:
        self.n_packets += 1
        if packet.is_discard:
            self.n_hidden += 1
            if packet.is_keyframe:
                numbering.needs_key = False  # shown frames are drawn over it
        else:
            numbering.expect(packet)

    def _packets(self) -> Iterator[Any]:
        """The packets up to the file's end, or to a place where it cannot be read on, and an empty
        one at the end.
        """
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = av.Packet(0)
                packet.stream = self.stream
                yield packet
                return
            if packet is None:
                return
            yield packet


class Undecodable(Exception):
    """A file has no video that can be decoded; the message says why."""


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a local file. Raises Undecodable."""
    # An absolute path cannot be taken for a protocol.
    name = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
    try:
        container = av.open(name, container_options=OPTIONS, metadata_errors="replace")
    except av.InvalidDataError as error:
        raise Undecodable(f"{path} cannot be opened: it is damaged or cut off") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Undecodable(f"{path} cannot be opened: {error}") from error
    with container:
        if container.streams.best("video") is None:
            raise Undecodable(f"{path} has no video stream")
        video = OpenVideo(container)
        header = video.header()
        if not 0 < header.width * header.height <= MAX_PIXELS:
            raise Undecodable(
                f"{path} claims {header.width} x {header.height} px, expected 1 to {MAX_PIXELS}"
            )
        yield video


UPRIGHT: Final = (1, 0, 0, 1)  # the matrix of frames that are shown as they are stored


@dataclass(frozen=True, slots=True)
class View:
    """How a player shows stored frames: their size, turned or mirrored, with square pixels.

    `matrix` (a, b, c, d) maps a step along stored rows to (a, b) in the shown image, and one along
    columns to (c, d): a display matrix without its scale (ISO/IEC 14496-12, 8.2.2).
    """

    stored: tuple[int, int]  # width, height px
    aspect: Fraction = Fraction(1)  # width / height of a stored pixel
    matrix: tuple[int, int, int, int] = UPRIGHT

    @property
    def is_turned(self) -> bool:
        """Whether rows are shown as columns."""
        return self.matrix[0] == 0

    @property
    def is_mirrored(self) -> bool:
        a, b, c, d = self.matrix
        return a * d - b * c < 0

    @property
    def square(self) -> tuple[int, int]:
        """Width and height px with square pixels, before turning. As players do, only the width
        changes.
        """
        width, height = self.stored
        return max(1, round(width * self.aspect)), height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height px as shown."""
        return self._turned(self.square)

    @property
    def unstretched(self) -> tuple[int, int]:
        """Width and height px as shown by a tool that takes all pixels for square ones."""
        return self._turned(self.stored)

    def _turned(self, size: tuple[int, int]) -> tuple[int, int]:
        width, height = size
        return (height, width) if self.is_turned else (width, height)

    def turn(self, image: Image) -> Image:
        """Turn and mirror an image (H, W, 3). Without both, it is not copied, and its rows may be
        padded.
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


def view_of(stream: VideoStream, frame: VideoFrame) -> View:
    """How a stream's frames are shown, by its first decoded frame."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    if not 0 < aspect <= MOST_STRETCHED:
        aspect = Fraction(1)
    return View((frame.width, frame.height), aspect, _matrix(frame))


MOST_STRETCHED: Final = 8  # width / height of a pixel; more is damage


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """The display matrix of a frame, to the nearest right angle."""
    stored = frame.side_data.get("DISPLAYMATRIX")
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
    """Decoded frames -> images (H, W, 3) uint8 RGB as a player shows them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._square = view.square
        self._reformatter = VideoReformatter()

    def image(self, frame: VideoFrame) -> Image:
        """The image of a frame. One of another size, in the middle of a clip, is scaled to the
        first one's.
        """
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
        """(H, W, 3) as stored, to the bit as by OpenCV: features of earlier versions fit."""
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
    """SDR values (1024,) of 10-bit PQ values.

    Luminance by SMPTE ST 2084, of which 203 cd/m^2 are white (ITU-R BT.2408), highlights above it
    are compressed, and coded by a gamma of 2.2.
    """
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
