"""Numbers of a video's frames, and which of them damage has spoilt.  [pixels] -> crops

`video.py` gives a `Numbering` each packet before it goes to the decoder, and each frame that the
decoder makes.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from av.video.frame import PictureType, VideoFrame

DRAWN_OVER: Final = frozenset((PictureType.P, PictureType.B))  # pictures made from others
MOST_UNLISTED: Final = 10_000  # frames between two of a damaged transport stream
MOST_DELAYED: Final = 16  # packets that a decoder reads on before it gives a packet's frame


class NumberedFrame(NamedTuple):
    """A frame of a video: its number, and what the decoder made of it."""

    number: int
    decoded: VideoFrame | None  # None: it is lost, by damage
    time: float = math.nan  # s; nan: not known


class _Expected(NamedTuple):
    """A packet whose frame has not come from the decoder yet."""

    time: float  # pts of its frame; inf: not stated
    order: int  # of the packet, from 0, in decoding order


class _Waiting(NamedTuple):
    """A frame that is next to be numbered, once it is known whether it is drawn over damage."""

    decoded: VideoFrame | None  # None: it is lost
    order: int  # of its packet
    newest: int  # of the packets that the decoder had when it gave this frame
    chain: int  # order of the key frame over which it is drawn; -1: none has come before
    time: float = math.inf  # inf: not known


@dataclass(slots=True)
class Numbering:
    """Numbers the frames that a decoder gives, and the lost frames between them.

    A file has packets in decoding order, each with the time of its frame (pts). The decoder gives
    frames in the order of their times. A packet is *expected* from when it goes to the decoder
    until its frame comes. If the decoder gives no frame for the packet of time 1:

        packets     expected times    decoded frame    yields
        0, 2, 1     [0, 1, 2]         of time 0        number 0
                    [1, 2]            of time 2        number 1 (lost), number 2

    A packet gives no frame for one of three reasons:

    - It is damaged, or needs one that is: its frame is lost, and keeps its number.
    - It is *frameless*: the second field of a frame, or a reference that is never shown. Such a
      packet has no number. Only some codecs have them (`video.CODECS`).
    - It is shown before the first key frame, and drawn over frames that the file lacks.

    The decoder does not tell which. So while nothing is damaged, no frame of the last two is lost.

    A damaged packet spoils its frame and, in decoding order, all up to the next key frame. Those of
    them that are shown before it come from the decoder before its mark does. So each frame waits
    until all frames that were decoded before it have come.

    A packet *without a time* shows no more where a lost frame has its place. So such a clip is lost
    from its first damage on.
    """

    may_be_frameless: bool  # the codec has frameless packets
    # Packets can show an earlier frame again. After damage, that may be the last key frame, which
    # is none then: only packets tell where a key frame is.
    shows_again: bool = False
    # mean time of a frame, for files whose damage may take whole packets along; 0: it may not
    step: float = 0
    n_frames: int = 0  # numbers given so far, so the next frame's number
    last_time: float = math.inf  # of the last numbered frame
    last_is_lost: bool = False  # it is lost
    n_packets: int = 0  # so the next packet's order
    last_packet_time: float = 0
    has_times: bool = True  # all packets so far have one
    has_frameless: bool = False  # a frameless packet has been found
    chain: int = -1  # order of the last key frame that came
    chain_time: float = -math.inf  # its time
    damaged: list[int] = field(default_factory=list)  # orders of damaged packets, ascending
    expected: list[_Expected] = field(default_factory=list)  # ascending
    waiting: deque[_Waiting] = field(default_factory=deque)
    key_packets: set[int] = field(default_factory=set)  # orders; some decoders mark no key frame

    def add_packet(self, packet: Any) -> None:
        """Note a packet before it goes to the decoder."""
        # The decoder hands it on to the packet's frame. PyAV finds it by its address: a number is
        # shared by all open videos, and gone once one of them is done with it; a tuple is not.
        packet.opaque = (self.n_packets,)
        if packet.is_keyframe:
            self.key_packets.add(self.n_packets)
        if not packet.is_discard:  # else its frame is hidden, but shown frames are drawn over it
            time = math.inf if packet.pts is None else packet.pts
            self.has_times = self.has_times and packet.pts is not None
            self.last_packet_time = time
            bisect.insort(self.expected, _Expected(time, self.n_packets))
        self.n_packets += 1

    def note_damage(self, order: int) -> None:
        """Note a packet that is damaged, or that the decoder has refused."""
        bisect.insort(self.damaged, order)

    def lose_listed(self) -> None:
        """Note a packet that the file's index lists, and that is not found."""
        self.note_damage(self.n_packets)
        bisect.insort(self.expected, _Expected(self.last_packet_time + 0.5, self.n_packets))
        self.n_packets += 1

    @property
    def is_over(self) -> bool:
        """Whether no later frame can get a number that is certain."""
        return bool(self.damaged) and not self.has_times

    def add_frame(self, frame: VideoFrame) -> None:
        """Add a decoded frame, and before it the frames that are lost."""
        handed_on: Any = frame.opaque
        order: int = self.n_packets - 1 if handed_on is None else handed_on[0]
        earlier_chain = self.chain
        is_marked_key = order in self.key_packets or (frame.key_frame and not self.shows_again)
        self.key_packets.discard(order)
        # A clip may be refreshed bit by bit, from packets that are marked as key frames on.
        if is_marked_key and frame.pict_type not in DRAWN_OVER:
            self.chain = order
            self.chain_time = math.inf if frame.pts is None else frame.pts
        if frame.pts is not None:
            self._drop_earlier(frame.pts, earlier_chain)
        matches = [expected for expected in self.expected if expected.order == order]
        if matches:
            self.expected.remove(matches[0])
        elif frame.pts is not None and self.damaged:
            return  # a second frame of a damaged packet

        if frame.is_corrupt:
            self.note_damage(order)
        time = math.inf if frame.pts is None else frame.pts
        newest = self.n_packets - 1
        self.waiting.append(_Waiting(frame, order, newest, self.chain, time))
        oldest = order - MOST_DELAYED
        self.expected = [one for one in self.expected if one.time < math.inf or one.order > oldest]

    def _drop_earlier(self, time: float, chain: int) -> None:
        """Expect no packet with an earlier time any longer: its frame is lost, or it has none.

        chain: order of the key frame over which such frames are drawn.
        """
        while self.expected and self.expected[0].time < time:
            dropped = self.expected.pop(0)
            is_leading = dropped.time < self.chain_time and dropped.order > self.chain
            # The file begins in the middle of a group.
            is_headless = chain < 0 and not self.waiting and not self.n_frames
            is_headless = is_headless and all(key > dropped.order for key in self.key_packets)
            is_whole = not self.damaged or self.damaged[-1] < chain
            if is_whole and self.may_be_frameless:
                self.has_frameless = True
                continue
            if (is_leading or is_headless) and not self.damaged:
                continue
            if not is_leading:
                self.note_damage(dropped.order)
            self._lose(dropped, chain)

    def _lose(self, lost: _Expected, chain: int) -> None:
        self.waiting.append(_Waiting(None, lost.order, lost.order, chain, lost.time))

    def number(self) -> Iterator[NumberedFrame]:
        """Yield the frames whose numbers and state are known by now."""
        while self.waiting and not self.is_over:
            first = self.waiting[0]
            newest = first.order if self.has_times else first.newest + 1
            if any(expected.order < newest for expected in self.expected):
                return
            yield from self._number_first()

    def finish(self) -> Iterator[NumberedFrame]:
        """Yield the rest when the decoder gives no more. Frames that are still expected are lost,
        unless the file is intact and has frameless packets.
        """
        if self.is_over:
            while self.n_frames < self.n_packets:
                yield self._number(None, math.nan)
            return
        if self.damaged or not self.has_frameless:
            for expected in self.expected:
                if expected.time < math.inf:
                    self._lose(expected, self.chain)
        while self.waiting:
            yield from self._number_first()

    def _number_first(self) -> Iterator[NumberedFrame]:
        """Give the next number to the frame that waits longest, and to those that lack packets
        before it.
        """
        decoded, order, _, chain, time = self.waiting.popleft()
        is_lost = decoded is None or self._is_spoilt(order, chain)
        gap = time - self.last_time
        if self.step and math.isfinite(gap) and (is_lost or self.last_is_lost):
            if 0 <= gap < self.step / 2:
                return  # two parts of one frame
            for _ in range(min(round(gap / self.step) - 1, MOST_UNLISTED)):
                yield self._number(None, math.nan)
        self.last_time = time
        self.last_is_lost = is_lost
        if is_lost or decoded is None or decoded.time is None:
            yield self._number(None if is_lost else decoded, math.nan)
            return
        yield self._number(decoded, decoded.time)

    def _number(self, decoded: VideoFrame | None, seconds: float) -> NumberedFrame:
        """Give the next number to a frame."""
        self.n_frames += 1
        return NumberedFrame(self.n_frames - 1, decoded, seconds)

    def _is_spoilt(self, order: int, chain: int) -> bool:
        """Whether a packet, or one that it is drawn over, is damaged."""
        i = bisect.bisect_left(self.damaged, chain)
        return i < len(self.damaged) and self.damaged[i] <= order
