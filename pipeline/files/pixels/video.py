"""Frames of a video file, decoded by PyAV, and their numbers and times.  [pixels] -> crops

A path goes in: `open_video` gives an `OpenVideo`, whose `frames` are decoded and numbered, in the
decoder's own pixel format. `view.py` makes images of them. What differs between codecs is a
`_Codec`, and between containers a `_Container`.

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
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.files.pixels.decode import MAX_PIXELS, is_cut_off
from pipeline.files.pixels.numbering import NumberedFrame, Numbering

if TYPE_CHECKING:
    from av.video.stream import VideoStream

# FFmpeg's names of the containers that it may read
FORMATS: Final = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,h264,hevc"
# options for FFmpeg: it follows links in play lists and in files, but a clip is one local file
OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
AVI_HEADER: Final = 8  # bytes before a packet in an AVI: its name, and its size
# a header's rate from here on is none: with a variable rate, it states its clock, such as 90000
MAX_FPS: Final = 1000.0


class VideoHeader(NamedTuple):
    """What a video's header says, before any frame is decoded. Containers are often wrong about
    `n_frames` and `fps`: do not rely on them.
    """

    n_frames: int | None  # None: not in the header
    fps: float  # nan: not in the header
    width: int  # px, as stored
    height: int


class _Codec(NamedTuple):
    """What the packets of a codec may have, and how damage shows in them."""

    may_be_frameless: bool = False  # frameless packets: see `Numbering`
    shows_again: bool = False  # packets can show an earlier frame again: see `Numbering`
    # Zeros that an intact packet never has in a row. Lost sectors and unfinished downloads leave
    # them, and decoders draw them.
    hole: bytes | None = None
    start: bytes = b""  # is in each packet
    err_detect: str = ""  # FFmpeg's option, by which a decoder tells more damage


# H.264 and its successors forbid three zeros; VP8 and its successors code a still image by up to a
# hundred or so.
_NAL_HOLE: Final = bytes(16)
_VP_HOLE: Final = bytes(512)
_MPEG: Final = _Codec(may_be_frameless=True, start=b"\0\0\1\0")
CODECS: Final = {
    # A slice coded by CAVLC is damaged if it goes on after its last block. CABAC's is not checked.
    "h264": _Codec(may_be_frameless=True, hole=_NAL_HOLE, err_detect="aggressive"),
    "hevc": _Codec(hole=_NAL_HOLE),
    "vvc": _Codec(hole=_NAL_HOLE),
    "mpeg1video": _MPEG,
    "mpeg2video": _MPEG,
    "vc1": _Codec(may_be_frameless=True),
    "vp8": _Codec(may_be_frameless=True, hole=_VP_HOLE),
    "vp9": _Codec(may_be_frameless=True, shows_again=True, hole=_VP_HOLE),
    "av1": _Codec(shows_again=True, hole=_VP_HOLE),
    "mjpeg": _Codec(err_detect="explode"),
}


class _Container:
    """What a container says of its packets. Subclasses are containers with something of their own.

    Args:
        container: PyAV's, open.
        stream: its video stream.
    """

    is_padded = False  # zeros may fill packets up

    def __init__(self, container: Any, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream

    @property
    def index(self) -> Any:
        """The packets that the header lists; None: it has no such list."""
        return None

    @property
    def has_times(self) -> bool:
        """Whether the times of packets are right."""
        return True

    @property
    def step(self) -> float | None:
        """Mean time of a frame, if damage may take whole packets along; None: it may not."""
        return None

    def listed_positions(self) -> deque[int]:
        """Positions of the packets that are listed, ascending; empty without such a list."""
        return deque()

    def is_cut(self, packet: Any) -> bool:  # noqa: ARG002  most do not say it
        """Whether the container says that a packet is damaged."""
        return False


class _Mp4(_Container):
    @property
    def index(self) -> Any:
        """Without packets that an edit list cuts out."""
        return self._stream.index_entries


class _Avi(_Container):
    is_padded = True  # to a round size

    @property
    def has_times(self) -> bool:
        """An AVI has no times of its own; those of B-frames are wrong."""
        return not self._stream.codec_context.has_b_frames

    def listed_positions(self) -> deque[int]:
        entries = self._stream.index_entries
        return deque(sorted({entry.pos + AVI_HEADER for entry in entries if entry.size}))


class _TransportStream(_Container):
    @property
    def step(self) -> float | None:
        rate = self._stream.average_rate
        time_base = self._stream.time_base
        if not rate or not time_base:
            return None
        return float(1 / (rate * time_base))

    def is_cut(self, packet: Any) -> bool:
        """Whether a packet is there only in part, or drawn over such a one."""
        if packet.pts not in self._cut_times:
            return False
        return self._cut_times[packet.pts] or not packet.is_keyframe

    @cached_property
    def _cut_times(self) -> dict[int, bool]:
        """Times of the packets that are there only in part (True), and of those after them (False).
        FFmpeg's parser, which cuts such packets into frames, mixes these marks up.
        """
        import av

        times: dict[int, bool] = {}
        options = OPTIONS | {"fflags": "noparse"}
        with av.open(self._container.name, container_options=options) as container:
            packets = container.demux(container.streams[self._stream.index])
            for packet, following in pairwise(packets):
                # Where another recording begins, the count of packets breaks off, too.
                is_joined = following.size > 0 and (following.dts or 0) < (packet.dts or 0)
                if packet.is_corrupt and not is_joined:
                    times[packet.pts] = True
                    times.setdefault(following.pts, False)
        return times


# by FFmpeg's names
_CONTAINERS: Final = {"mp4": _Mp4, "avi": _Avi, "mpegts": _TransportStream}


def _kind_of(container: Any, stream: VideoStream) -> _Container:
    """What is special about an open container."""
    for name in container.format.name.split(","):
        if name in _CONTAINERS:
            return _CONTAINERS[name](container, stream)
    return _Container(container, stream)


class OpenVideo:
    """A video file that is open: its header, and its frames, once, from the first one on."""

    def __init__(self, container: Any) -> None:
        self._container = container
        stream = container.streams.best("video")
        assert stream is not None
        self.stream: VideoStream = stream
        self._kind = _kind_of(container, stream)
        context = stream.codec_context
        codec = context.codec.canonical_name  # whichever decoder it has
        self._codec = CODECS.get(codec, _Codec())
        context.copy_opaque = True
        # Damage may also claim a frame of an absurd size.
        context.options = {"max_pixels": str(MAX_PIXELS)}
        if self._codec.err_detect:
            context.options |= {"err_detect": self._codec.err_detect}
        # With several, the decoders of H.264, HEVC, VP8 and AV1 mark less damage, or other.
        context.thread_count = 1
        self.n_bytes: int = container.size
        self.n_packets = 0  # that `frames` has read so far
        self.n_hidden = 0  # those of hidden frames
        self.is_encrypted = False

    @property
    def streams(self) -> list[VideoStream]:
        """The video streams, without cover pictures."""
        from av.stream import Disposition

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
        return self._kind.index

    def frames(self) -> Iterator[NumberedFrame]:
        """Decode the whole file. Yields all frames in order, and the lost ones among them."""
        import av

        numbering = Numbering(
            may_be_frameless=self._codec.may_be_frameless,
            shows_again=self._codec.shows_again,
            step=self._kind.step,
        )
        listed = self._kind.listed_positions()
        has_times = self._kind.has_times
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
                self.is_encrypted |= packet.has_sidedata("encryption_info")
                numbering.add_packet(packet)
                if self._kind.is_cut(packet) or self._is_damaged(packet):
                    numbering.damage.add(order)
            if numbering.is_over:
                continue
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                numbering.damage.add(order)
                continue
            for frame in decoded:
                numbering.add_frame(frame)
            yield from numbering.number()
        yield from numbering.finish()

    def _is_damaged(self, packet: Any) -> bool:
        """Whether a packet's content tells that it is damaged, whatever its decoder makes of it."""
        content = bytes(packet)
        hole = self._codec.hole
        if self._codec.start not in content:
            return True
        if hole is None or hole not in content:
            return False
        header = self.stream.codec_context.extradata or b"\0\0"
        is_byte_stream = hole == _NAL_HOLE and header[:2] == b"\0\0"
        # Zeros before a start code, and at the end, may only fill it up.
        after = content[content.index(hole) :].lstrip(b"\0")
        is_uneven = self._kind.is_padded and len(content) % len(hole) > 0
        return not is_byte_stream or after[:1] > b"\1" or (is_uneven and not after)

    def _packets(self) -> Iterator[Any]:
        """Yield the packets up to the file's end, or up to a place where it cannot be read on. The
        last one is empty: with it, a decoder gives the frames that it has kept back.
        """
        import av

        try:
            yield from self._container.demux(self.stream)
        except av.FFmpegError:
            packet = av.Packet(0)
            packet.stream = self.stream
            yield packet

    def count_missing(self, path: Path, n_packets: int | None = None) -> int:
        """Number of frames that the header lists and that are beyond the end of a truncated file.

        An MP4 lists the place of each frame. Of other files, only the number of frames is known,
        from which the `n_packets` that were read are subtracted. If one of both numbers is not
        known, as in an MP4 of fragments, the answer is 1 for any file that is cut off, which means:
        at least one.
        """
        if self.index is not None:
            n_beyond = sum(entry.pos + entry.size > self.n_bytes for entry in self.index)
            return n_beyond or int(is_cut_off(path))
        if not is_cut_off(path):
            return 0
        n_frames = self.header().n_frames
        if n_packets is None or n_frames is None:
            return 1
        return max(0, n_frames - n_packets)


class Undecodable(Exception):
    """A file has no video that can be decoded; the message says why."""


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a local file, inside a `with` block. Raises Undecodable for a file that is no video,
    has no video stream, or claims frames of an absurd size.
    """
    import av

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
        yield video


# where containers name a codec: AVI, Matroska, MP4
_CODEC: Final = re.compile(rb"vids(.{4})|(V_[A-Z0-9/_]+)|vide.*?stsd.{12}(.{4})", re.DOTALL)


def _codec_name(path: Path) -> str:
    """The name that a file gives its codec, for a message; FFmpeg does not tell unknown ones."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = _CODEC.search(content)
        name = b"(unknown)" if match is None else match[match.lastindex or 0]
    return name.decode("ascii", "replace")
