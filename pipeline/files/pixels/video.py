"""Frames of a video file, decoded by PyAV, and their numbers and times.  [pixels] -> crops

A path goes in: `open_video` gives an `OpenVideo`, whose `frames` are decoded and numbered, in the
decoder's own pixel format. A `View` says how a player shows them, and a `Painter` makes images of
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

import math
import mmap
import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
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
from pipeline.files.pixels.numbering import NumberedFrame, Numbering

Image = NDArray[np.uint8]  # (H, W, 3) RGB

THREADS: Final = "VIDEO_THREADS"  # environment: threads of one video's decoder
# FFmpeg's names of the containers that it may read
FORMATS: Final = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,h264,hevc"
# options for FFmpeg: it follows links in play lists and in files, but a clip is one local file
OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# codecs with frameless packets: see `Numbering`
FRAMELESS_PACKETS: Final = frozenset(("h264", "mpeg1video", "mpeg2video", "vc1", "vp8", "vp9"))
# codecs whose packets can show an earlier frame again: see `Numbering`
SHOWS_AGAIN: Final = frozenset(("vp9", "av1"))
# Zeros that an intact packet never has in a row. Lost sectors and unfinished downloads leave them,
# and decoders draw them. H.264 and its successors forbid three zeros; VP8 and its successors code a
# still image by up to a hundred or so.
NAL_HOLE: Final = bytes(16)
HOLES: Final = {
    "h264": NAL_HOLE,
    "hevc": NAL_HOLE,
    "vvc": NAL_HOLE,
    "vp8": bytes(512),
    "vp9": bytes(512),
    "av1": bytes(512),
}
AVI_HEADER: Final = 8  # bytes before a packet in an AVI: its name, and its size
PICTURE_START: Final = b"\0\0\1\0"  # in each packet of MPEG-1 and MPEG-2
# transfer functions of HDR videos, ITU-T H.273, table 3
PQ: Final = 16
HLG: Final = 18
# pixel formats that FFmpeg converts to equal RGB and BGR
SAME_AS_BGR: Final = frozenset(("yuv420p", "yuvj420p"))
# a header's rate from here on is none: with a variable rate, it states its clock, such as 90000
MAX_FPS: Final = 1000.0
KEPT_MEMORY: Final = 31 << 20  # bytes; glibc's limit is 32 MiB
MOST_STRETCHED: Final = 8  # width / height of a pixel; more is damage


class VideoHeader(NamedTuple):
    """What a video's header says, before any frame is decoded. Containers are often wrong about
    `n_frames` and `fps`: do not rely on them.
    """

    n_frames: int | None  # None: not in the header
    fps: float  # nan: not in the header
    width: int  # px, as stored
    height: int


class OpenVideo:
    """A video file that is open: its header, and its frames, once, from the first one on."""

    def __init__(self, container: Any) -> None:
        self._container = container
        stream = container.streams.best("video")
        assert stream is not None
        self.stream: VideoStream = stream
        context = stream.codec_context
        self._codec = context.codec.canonical_name  # whichever decoder it has
        context.copy_opaque = True
        # Damage may also claim a frame of an absurd size.
        context.options = {"max_pixels": str(MAX_PIXELS)}
        if self._codec == "mjpeg":  # it is silent about damage, else
            context.options |= {"err_detect": "explode"}
        threads = int(os.environ.get(THREADS, "0"))
        self.stream.codec_context.thread_count = threads
        # Not frame by frame: with such threads, damage would be reported late, and lose more
        # frames.
        self.stream.codec_context.thread_type = "SLICE"
        self.n_bytes: int = container.size
        self.n_packets = 0  # that `frames` has read so far
        self.n_hidden = 0  # those of hidden frames

    @property
    def streams(self) -> list[VideoStream]:
        """The video streams, without cover pictures."""
        streams = self._container.streams.video
        return [stream for stream in streams if not stream.disposition & Disposition.attached_pic]

    @property
    def metadata(self) -> dict[str, str]:
        """The container's own remarks, by key."""
        return dict(self._container.metadata)

    def header(self) -> VideoHeader:
        """What the header says; without a number of frames, its duration times its rate."""
        context = self.stream.codec_context
        rate = self.stream.average_rate or self.stream.guessed_rate
        fps = math.nan
        if rate and rate < MAX_FPS:
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
        numbering = Numbering(
            may_be_frameless=self._codec in FRAMELESS_PACKETS,
            shows_again=self._codec in SHOWS_AGAIN,
        )
        listed = self._listed_positions()
        # An AVI has no times of its own; those of B-frames are wrong.
        has_times = not (self._container.format.name == "avi" and context.has_b_frames)
        rate = self.stream.average_rate
        time_base = self.stream.time_base
        corrupt: dict[int, bool] = {}
        if self._container.format.name == "mpegts":
            corrupt = self._find_cut()
            if rate and time_base:
                numbering.step = float(1 / (rate * time_base))
        for packet in self._packets():
            if not has_times:
                packet.pts = None
            has_frame = packet.size > 0  # the last packet is empty
            position = packet.pos if has_frame else math.inf
            while listed and listed[0] < position:
                listed.popleft()
                numbering.lose_listed()
            if listed and listed[0] == position:
                listed.popleft()
            order = numbering.n_packets
            if has_frame:
                self.n_packets += 1
                self.n_hidden += packet.is_discard
                numbering.add_packet(packet)
                is_cut = corrupt.get(packet.pts, False)
                is_drawn_over_cut = packet.pts in corrupt and not packet.is_keyframe
                if is_cut or is_drawn_over_cut or self._is_damaged(packet):
                    numbering.note_damage(order)
            if numbering.is_over:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                numbering.note_damage(order)
                continue
            for frame in decoded:
                numbering.add_frame(frame)
            yield from numbering.number()
        yield from numbering.finish()

    def _find_cut(self) -> dict[int, bool]:
        """Times of the packets that a transport stream has only in part (True), and of those after
        them (False). FFmpeg's parser, which cuts such packets into frames, mixes these marks up.
        """
        times: dict[int, bool] = {}
        options = OPTIONS | {"fflags": "noparse"}
        with av.open(self._container.name, container_options=options) as container:
            packets = container.demux(container.streams[self.stream.index])
            for packet, following in pairwise(packets):
                # Where another recording begins, the count of packets breaks off, too.
                is_joined = following.size > 0 and (following.dts or 0) < (packet.dts or 0)
                if packet.is_corrupt and not is_joined:
                    times[packet.pts] = True
                    times.setdefault(following.pts, False)
        return times

    def _listed_positions(self) -> deque[int]:
        """Positions of the packets that an AVI lists, ascending; empty for other containers."""
        if self._container.format.name != "avi":
            return deque()
        entries = self.stream.index_entries
        return deque(sorted({entry.pos + AVI_HEADER for entry in entries if entry.size}))

    def _is_damaged(self, packet: Any) -> bool:
        """Whether a packet's content tells that it is damaged, whatever its decoder makes of it."""
        context = self.stream.codec_context
        content = bytes(packet)
        if self._codec in ("mpeg1video", "mpeg2video"):
            return PICTURE_START not in content
        hole = HOLES.get(self._codec)
        if hole is None or hole not in content:
            return False
        is_byte_stream = hole == NAL_HOLE and (context.extradata or b"\0\0")[:2] == b"\0\0"
        # Zeros before a start code, and at the end, may only fill it up: an AVI's, to a round size.
        after = content[content.index(hole) :].lstrip(b"\0")
        is_uneven = self._container.format.name == "avi" and len(content) % len(hole) > 0
        return not is_byte_stream or after[:1] > b"\1" or (is_uneven and not after)

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
        stream = container.streams.best("video")
        if stream is None:
            raise Undecodable(f"{path} has no video stream")
        if stream.codec_context is None:
            raise Undecodable(
                f"{path} has the codec {_codec_name(path)}, which FFmpeg cannot decode"
            )
        video = OpenVideo(container)
        header = video.header()
        if not 0 < header.width * header.height <= MAX_PIXELS:
            raise Undecodable(
                f"{path} claims {header.width} x {header.height} px, expected 1 to {MAX_PIXELS}"
            )
        try:
            yield video
        finally:
            # Without the GIL, unlike the decoder's own end, which would wait forever for a thread
            # of it that waits for the GIL to let go of a packet's `opaque`.
            stream.codec_context.flush_buffers()


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
        self._view = view
        self._square = view.square
        self._reformatter = VideoReformatter()
        # glibc keeps freed memory for the next image, once as much as this has been freed.
        np.empty(KEPT_MEMORY, np.uint8)

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
        """(H, W, 3) RGB, not stretched or turned, and equal to what OpenCV decodes, bit by bit."""
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


# where containers name a codec: AVI, Matroska, MP4
_CODEC: Final = re.compile(rb"vids(.{4})|(V_[A-Z0-9/_]+)|vide.*?stsd.{12}(.{4})", re.DOTALL)


def _codec_name(path: Path) -> str:
    """The name that a file gives its codec, for a message; FFmpeg does not tell unknown ones."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = _CODEC.search(content)
        name = b"(unknown)" if match is None else match[match.lastindex or 0]
    return name.decode("ascii", "replace")
