"""Frames of a video file, decoded by PyAV, and their numbers and times.  [pixels] -> crops

A path goes in: `open_video` gives an `OpenVideo`, whose `frames` are decoded and numbered, in the
decoder's own pixel format. `view_of` says how a player shows them, and a `Painter` makes images of
them.

Words:
    number: a frame's position, from 0, in presentation order among the frames that a player shows.
        Labels name frames by it.
    lost: a frame that damage has made undecodable. It keeps its number, so that labels of the
        later ones still fit.
    hidden: a frame that an MP4's edit list cuts out. It is decoded, because others need it, and
        has no number.
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
# FFmpeg's names of the containers that it may read
FORMATS: Final = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,h264,hevc"
# options for FFmpeg: it follows links in play lists and in files, but a clip is one local file
OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# decoders of codecs with frameless packets: see `_Numbering`
FRAMELESS_PACKETS: Final = frozenset(("h264", "mpeg1video", "mpeg2video", "vc1", "vp8", "vp9"))
# transfer functions of HDR videos, ITU-T H.273, table 3
PQ: Final = 16
HLG: Final = 18
# pixel formats that FFmpeg converts to equal RGB and BGR
SAME_AS_BGR: Final = frozenset(("yuv420p", "yuvj420p"))
# a header's higher rate is none: with a variable rate, it states its clock, 90000 a second or so
MAX_FPS: Final = 1000.0
MOST_STRETCHED: Final = 8  # width / height of a pixel; more is damage


class VideoHeader(NamedTuple):
    """What a video's header says, before any frame is decoded. Containers are often wrong about
    `n_frames` and `fps`: do not rely on them.
    """

    n_frames: int | None  # None: not in the header
    fps: float  # nan: not in the header
    width: int  # px, as stored
    height: int


class NumberedFrame(NamedTuple):
    """A frame of a video: its number, and what the decoder made of it."""

    number: int
    decoded: VideoFrame | None  # None: it is lost, by damage
    time: float = math.nan  # s; nan: not known


@dataclass(slots=True)
class _Numbering:
    """Numbers the frames that a decoder gives, and the lost frames between them.

    A file has packets in decoding order, each with the time of its frame (pts). The decoder gives
    frames in the order of their times. A time is *expected* from when its packet goes to the
    decoder until its frame comes. If the decoder gives no frame for the packet of time 1:

        packets     expected_times    decoded frame    yields
        0, 2, 1     [0, 1, 2]         of time 0        number 0
                    [1, 2]            of time 2        number 1 (lost), number 2

    A packet gives no frame for one of two reasons:

    - It is damaged, or needs one that is: its frame is lost, and keeps its number.
    - It is *frameless*: the second field of a frame, or a reference that is never shown. Such a
      packet has no number. Only some codecs have them (FRAMELESS_PACKETS).

    The decoder does not tell which. So a file in which no packet has failed is taken for intact.

    After a key frame is lost, the decoder draws the frames that follow over a wrong image. They
    count as lost, too, up to the next key frame.
    """

    may_be_frameless: bool  # the codec has frameless packets
    n_frames: int = 0  # numbers given so far, so the next frame's number
    is_damaged: bool = False  # a packet has failed
    has_frameless: bool = False  # a frameless packet has been found
    # Frames after this time are drawn over a wrong image: the time of a lost key frame; -inf if it
    # has none, and before the first key frame; inf if the last key frame is intact.
    wrong_after: float = -math.inf
    expected_times: list[int] = field(default_factory=list)  # ascending
    # times of packets with key frames, since some decoders do not mark their frames
    key_times: set[int] = field(default_factory=set)

    def add_packet(self, packet: Any) -> None:
        """Note a packet before it goes to the decoder."""
        if packet.is_discard:  # Its frame is hidden, but shown frames are drawn over it.
            if packet.is_keyframe:
                self.wrong_after = math.inf
            return
        if packet.pts is None:
            return
        bisect.insort(self.expected_times, packet.pts)
        if packet.is_keyframe:
            self.key_times.add(packet.pts)

    def note_damage(self, packet: Any) -> None:
        """Note a packet that the decoder has refused."""
        self.is_damaged = True
        if packet.is_keyframe:
            self.wrong_after = -math.inf
            if packet.pts is not None:
                self.wrong_after = packet.pts

    def number_frame(self, frame: VideoFrame) -> Iterator[NumberedFrame]:
        """Yield the lost frames before a decoded frame, and then the frame itself."""
        seconds = math.nan
        position = math.inf  # in the order of times; without a time, after all
        if frame.pts is not None:
            yield from self._drop_times_before(frame.pts)
            if self.expected_times[:1] == [frame.pts]:
                del self.expected_times[0]
            elif self.is_damaged:
                return  # a second frame of a damaged packet
            assert frame.time is not None
            seconds = frame.time
            position = frame.pts

        is_key_frame = frame.key_frame or frame.pts in self.key_times
        if is_key_frame and position > self.wrong_after:
            self.wrong_after = math.inf
        if position > self.wrong_after:
            yield self.number_lost()
            return
        self.key_times.discard(frame.pts)
        yield NumberedFrame(self.n_frames, frame, seconds)
        self.n_frames += 1

    def _drop_times_before(self, time: int) -> Iterator[NumberedFrame]:
        """Expect no time before this one any longer. Yields the frames that are lost thereby."""
        n_dropped = bisect.bisect_left(self.expected_times, time)
        del self.expected_times[:n_dropped]
        if self.is_damaged or not self.may_be_frameless:
            for _ in range(n_dropped):
                yield self.number_lost()
        elif n_dropped:
            self.has_frameless = True

    def finish(self) -> Iterator[NumberedFrame]:
        """Yield the frames that are still expected when the decoder gives no more: all are lost,
        unless the file is intact and has frameless packets.
        """
        if self.is_damaged or not self.has_frameless:
            for _ in self.expected_times:
                yield self.number_lost()

    def number_lost(self) -> NumberedFrame:
        """Give the next number to a lost frame."""
        lost = NumberedFrame(self.n_frames, None)
        self.n_frames += 1
        return lost


class OpenVideo:
    """A video file that is open: its header, and its frames, once, from the first one on."""

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
        self.n_packets = 0  # that `frames` has read so far
        self.n_hidden = 0  # those of hidden frames

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
        """What the header says; without a number of frames, its duration times its rate."""
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
        """The packets that an MP4's header lists, without those that an edit list cuts out; None
        for other containers, which have no such list.
        """
        if "mp4" in self._container.format.name.split(","):
            return self.stream.index_entries
        return None

    def frames(self) -> Iterator[NumberedFrame]:
        """Decode the whole file. Yields all frames in order, and the lost ones among them."""
        context = self.stream.codec_context
        numbering = _Numbering(may_be_frameless=context.name in FRAMELESS_PACKETS)
        # An AVI has no times of its own; those of B-frames are wrong.
        has_times = not (self._container.format.name == "avi" and context.has_b_frames)
        for packet in self._packets():
            if not has_times:
                packet.pts = None
            has_frame = packet.size > 0  # the last packet is empty
            if has_frame:
                self.n_packets += 1
                self.n_hidden += packet.is_discard
                numbering.add_packet(packet)
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                numbering.note_damage(packet)
                if has_frame and packet.pts is None:  # no time is expected, and missed later
                    yield numbering.number_lost()
                continue
            for frame in decoded:
                yield from numbering.number_frame(frame)
        yield from numbering.finish()

    def _packets(self) -> Iterator[Any]:
        """Yield the packets up to the file's end, or up to a place where it cannot be read on. The
        last one is empty: with it, a decoder gives the frames that it has kept back.
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
    """Open a local file, inside a `with` block. Raises Undecodable for a file that is no video,
    has no video stream, or claims frames of an absurd size.
    """
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


def view_of(stream: VideoStream, frame: VideoFrame) -> View:
    """How a player shows a stream's frames, by its header and its first decoded frame."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    if not 0 < aspect <= MOST_STRETCHED:
        aspect = Fraction(1)
    return View((frame.width, frame.height), aspect, _matrix(frame))


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """The matrix of `View` that a frame states, to the nearest right angle."""
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
    """Makes images (H, W, 3), uint8 RGB, of a video's decoded frames, as a player shows them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._square = view.square
        self._reformatter = VideoReformatter()

    def image(self, frame: VideoFrame) -> Image:
        """The image of a frame. A frame of another size than the first one's, in the middle of a
        clip, is scaled to that size.
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
        """(H, W, 3) RGB, not stretched or turned, and equal to what OpenCV decodes, bit by bit:
        earlier versions did so, and their features stay valid.
        """
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
