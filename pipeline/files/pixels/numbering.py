"""Numbers of a video's frames, and which of them damage has spoilt.  [pixels] -> crops

`video.py` gives a `Numbering` each packet before it goes to the decoder, and each frame that the
decoder makes. It has three parts:

    _KeyFrames        over which key frame a frame is drawn
    Damage            which packets are damaged, and which frames they spoil
    _NumberedFrames   the next number, and gaps that lost packets have left
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

DRAWN_OVER: Final = frozenset((2, 3))  # `av.PictureType` of pictures made from others: P, B
MOST_UNLISTED: Final = 10_000  # frames between two of a damaged transport stream
MOST_DELAYED: Final = 16  # packets that a decoder reads on before it gives a packet's frame


class NumberedFrame(NamedTuple):
    """A frame of a video: its number, and what the decoder made of it."""

    number: int
    decoded: VideoFrame | None  # None: it is lost, by damage
    time: float = math.nan  # s; nan: not known


class _NoFrame(Enum):
    """Why the decoder gives no frame for a packet. `Numbering` infers it."""

    DAMAGED = "the packet is damaged"
    SPOILT = "the packet is drawn over a damaged one"
    # The second field of a frame, or a reference that is never shown. Only some codecs have such
    # packets (`video.CODECS`).
    FRAMELESS = "the packet has no frame"
    # Its frame is shown before the first key frame, and drawn over frames that the file lacks.
    HEADLESS = "the file begins after what the packet is drawn over"


_LOST: Final = frozenset((_NoFrame.DAMAGED, _NoFrame.SPOILT))  # their frames keep their numbers


class _TimedPacket(NamedTuple):
    time: float  # pts of its frame
    order: int  # from 0, in decoding order


class _KeyFrame(NamedTuple):
    """A key frame. All that follow it in decoding order are drawn over it, up to the next."""

    order: int  # of its packet
    time: float | None  # None: not stated

    def has_leading_packet(self, packet: _TimedPacket) -> bool:
        """Whether a packet that follows in decoding order is shown before the key frame."""
        is_earlier = self.time is None or packet.time < self.time
        return packet.order > self.order and is_earlier


class _WaitingFrame(NamedTuple):
    """A frame that is next to be numbered, once it is known whether it is drawn over damage."""

    decoded: VideoFrame | None  # None: it is lost
    order: int  # of its packet
    newest: int  # of the packets that the decoder had when it gave this frame
    key_frame: _KeyFrame | None  # over which it is drawn; None: none has come before
    time: float | None  # None: not stated


class Numbering:
    """Numbers the frames that a decoder gives, and the lost frames between them.

    A file has packets in decoding order, each with the time of its frame (pts). The decoder gives
    frames in the order of their times. A packet is *expected* from when it goes to the decoder
    until its frame comes. If the decoder gives no frame for the packet of time 1:

        packets     expected times    decoded frame    yields
        0, 2, 1     [0, 1, 2]         of time 0        number 0
                    [1, 2]            of time 2        number 1 (lost), number 2

    The decoder does not tell why (`_NoFrame`). A frame that is lost by damage keeps its number; a
    frameless or headless packet has none. So while nothing is damaged, none of these is lost.

    A packet may state a wrong time: then its frame, or those of others, come *late*, after a frame
    of a later time. They are numbered as they come. Unless one of the last MOST_DELAYED packets is
    damaged, a late packet is lost only if its frame has not come when as many more were read.

    A damaged packet spoils its frame and, in decoding order, all up to the next key frame. Those of
    them that are shown before it come from the decoder before its mark does. So each frame waits
    until all frames that were decoded before it have come.

    A packet *without a time* shows no more where a lost frame has its place. So such a clip is lost
    from its first damage on.

    Args:
        may_be_frameless: the codec has frameless packets.
        shows_again: packets can show an earlier frame again. After damage, that may be the last key
            frame, which is none then: only packets tell where a key frame is.
        step: mean time of a frame, for files whose damage may take whole packets along; None: it
            may not.
    """

    def __init__(self, *, may_be_frameless: bool, shows_again: bool, step: float | None) -> None:
        self.n_packets = 0  # so the next packet's order
        self.damage = _DamagedPackets()
        self._may_be_frameless = may_be_frameless
        self._has_frameless = False  # a frameless packet has been found
        self._expected: dict[int, float | None] = {}  # orders, ascending, and times
        self._late: dict[int, _NoFrame] = {}  # orders, and why no frame seems to come
        self._has_times = True  # all packets so far have one
        self._last_time: float | None = 0  # of the last packet
        self._key_frames = _KeyFrames(shows_again)
        self._waiting: deque[_WaitingFrame] = deque()
        self._numbered = _NumberedFrames(step)

    def add_packet(self, packet: Any) -> None:
        """Note a packet before it goes to the decoder."""
        # The decoder hands it on to the packet's frame. PyAV finds it by its address: a number is
        # shared by all open videos, and gone once one of them is done with it; a tuple is not.
        packet.opaque = (self.n_packets,)
        if packet.is_keyframe:
            self._key_frames.add_packet(self.n_packets)
        if not packet.is_discard:  # else its frame is hidden, but shown frames are drawn over it
            self._expected[self.n_packets] = packet.pts
            self._last_time = packet.pts
            self._has_times = self._has_times and packet.pts is not None
        self.n_packets += 1

    def lose_listed(self) -> None:
        """Note a packet that the file's index lists, and that is not found."""
        self.damage.add(self.n_packets)
        time = None if self._last_time is None else self._last_time + 0.5
        self._expected[self.n_packets] = time
        self.n_packets += 1

    @property
    def is_over(self) -> bool:
        """Whether no later frame can get a number that is certain."""
        return self.damage.is_found and not self._has_times

    def add_frame(self, frame: VideoFrame) -> None:
        """Add a decoded frame, and before it the frames that are lost."""
        handed_on: Any = frame.opaque
        newest = self.n_packets - 1
        order: int = newest if handed_on is None else handed_on[0]
        key_frame_before = self._key_frames.last
        self._key_frames.add_frame(frame, order)
        if frame.pts is not None:
            for packet in self._pop_earlier(frame.pts):
                self._drop(packet, key_frame_before)
        self._give_up_late(newest - MOST_DELAYED)
        if order in self._expected:
            del self._expected[order]
        elif order in self._late:
            del self._late[order]
            self._waiting = deque(waiting for waiting in self._waiting if waiting.order != order)
        elif frame.pts is not None and self.damage.is_found:
            return  # a second frame of a damaged packet

        if frame.is_corrupt:
            self.damage.add(order)
        key_frame = self._key_frames.last
        self._waiting.append(_WaitingFrame(frame, order, newest, key_frame, frame.pts))
        oldest = order - MOST_DELAYED
        packets = self._expected.items()
        self._expected = {n: time for n, time in packets if time is not None or n > oldest}

    def _pop_earlier(self, end: float) -> list[_TimedPacket]:
        """Expect no packet with a time before `end` any longer. Returns them in order of times."""
        packets = self._expected.items()
        earlier = [_TimedPacket(time, n) for n, time in packets if time is not None and time < end]
        for packet in earlier:
            del self._expected[packet.order]
        return sorted(earlier)

    def _drop(self, packet: _TimedPacket, key_frame: _KeyFrame | None) -> None:
        """Expect a packet no longer: its frame, drawn over `key_frame`, is lost, or it has none."""
        reason = self._why_no_frame(packet, key_frame)
        self._late[packet.order] = reason
        if reason in _LOST:
            self._lose(packet, key_frame)

    def _why_no_frame(self, packet: _TimedPacket, key_frame: _KeyFrame | None) -> _NoFrame:
        if self._may_be_frameless and not self.damage.is_since(key_frame):
            return _NoFrame.FRAMELESS
        last = self._key_frames.last
        is_leading = last is not None and last.has_leading_packet(packet)
        if self.damage.is_found or self._lost_late():
            return _NoFrame.SPOILT if is_leading else _NoFrame.DAMAGED
        has_begun = self._waiting or self._numbered.count
        if is_leading or (not has_begun and self._key_frames.come_later_than(packet.order)):
            return _NoFrame.HEADLESS
        return _NoFrame.DAMAGED

    def _lost_late(self) -> list[int]:
        """Orders of the late packets that are lost if their frames do not come."""
        return [order for order, reason in self._late.items() if reason in _LOST]

    def _lose(self, packet: _TimedPacket, key_frame: _KeyFrame | None) -> None:
        time, order = packet
        self._waiting.append(_WaitingFrame(None, order, order, key_frame, time))

    def number(self) -> Iterator[NumberedFrame]:
        """Yield the frames whose numbers and state are known by now."""
        pending = [*self._expected, *self._lost_late()]
        while self._waiting and not self.is_over:
            first = self._waiting[0]
            until = first.order if self._has_times else first.newest
            if any(order <= until for order in pending):
                return
            yield from self._number_first()

    def _give_up_late(self, end: float) -> None:
        """Expect no late packet before `end`, and no lost one if there is damage since then."""
        is_damaged = self.damage.last >= end or any(order < end for order in self._lost_late())
        for order, reason in list(self._late.items()):
            if order < end or (is_damaged and reason in _LOST):
                del self._late[order]
                if reason is _NoFrame.DAMAGED:
                    self.damage.add(order)
                if reason is _NoFrame.FRAMELESS:
                    self._has_frameless = True

    def finish(self) -> Iterator[NumberedFrame]:
        """Yield the rest when the decoder gives no more. Frames that are still expected are lost,
        unless the file is intact and has frameless packets.
        """
        self._give_up_late(math.inf)
        if self.is_over:
            while self._numbered.count < self.n_packets:
                yield self._numbered.add(None)
            return
        if self.damage.is_found or not self._has_frameless:
            for packet in self._pop_earlier(math.inf):
                self._lose(packet, self._key_frames.last)
        while self._waiting:
            yield from self._number_first()

    def _number_first(self) -> Iterator[NumberedFrame]:
        """Number the frame that waits longest; it is lost if it is drawn over damage."""
        decoded, order, _, key_frame, time = self._waiting.popleft()
        if self.damage.is_since(key_frame, order):
            decoded = None
        yield from self._numbered.add_image(time, decoded)


class _KeyFrames:
    """Finds the key frames: some decoders mark none, so the marks of packets count, too."""

    def __init__(self, shows_again: bool) -> None:
        self.last: _KeyFrame | None = None  # of those that have come
        self._shows_again = shows_again
        self._packets: set[int] = set()  # orders of those whose frames have not come

    def add_packet(self, order: int) -> None:
        self._packets.add(order)

    def add_frame(self, frame: VideoFrame, order: int) -> None:
        """Note a frame, of the packet `order`, if it is a key frame."""
        is_marked = order in self._packets or (frame.key_frame and not self._shows_again)
        self._packets.discard(order)
        # A clip may be refreshed bit by bit, from packets that are marked as key frames on.
        if is_marked and frame.pict_type not in DRAWN_OVER:
            self.last = _KeyFrame(order, frame.pts)

    def come_later_than(self, order: int) -> bool:
        """Whether all key packets whose frames have not come are after a packet."""
        return all(key > order for key in self._packets)


class _DamagedPackets:
    """Which packets are damaged."""

    def __init__(self) -> None:
        self._orders: list[int] = []  # ascending

    def add(self, order: int) -> None:
        bisect.insort(self._orders, order)

    @property
    def is_found(self) -> bool:
        return bool(self._orders)

    @property
    def last(self) -> float:
        """The last damaged packet; -inf without damage."""
        return max(self._orders, default=-math.inf)

    def is_since(self, key_frame: _KeyFrame | None, order: float = math.inf) -> bool:
        """Whether a packet from a key frame, or the file's beginning, to `order` is damaged."""
        start = 0 if key_frame is None else key_frame.order
        i = bisect.bisect_left(self._orders, start)
        return i < len(self._orders) and self._orders[i] <= order


class _NumberedFrames:
    """Gives frames their numbers, and lost frames a place between them. `step`: see `Numbering`."""

    def __init__(self, step: float | None) -> None:
        self.count = 0  # so the next frame's number
        self._step = step
        self._last_time: float | None = None  # None: there is no frame yet, or its time is unknown
        self._last_is_lost = False

    def add_image(self, time: float | None, decoded: VideoFrame | None) -> Iterator[NumberedFrame]:
        """Number the frame of a time, and before it the frames whose packets are gone."""
        is_damaged = self._last_is_lost or decoded is None
        if self._step and is_damaged and time is not None and self._last_time is not None:
            gap = time - self._last_time
            if 0 <= gap < self._step / 2:
                return  # two parts of one frame
            for _ in range(min(round(gap / self._step) - 1, MOST_UNLISTED)):
                yield self.add(None)
        self._last_time = time
        self._last_is_lost = decoded is None
        yield self.add(decoded)

    def add(self, decoded: VideoFrame | None) -> NumberedFrame:
        """Give the next number to a frame; None: a lost one."""
        self.count += 1
        if decoded is None or decoded.time is None:
            return NumberedFrame(self.count - 1, decoded)
        return NumberedFrame(self.count - 1, decoded, decoded.time)
