"""Random histories of packets and frames: each frame gets the number of its place among all, also
if one packet states a wrong time, and no frame is lost without damage.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from av.video.frame import PictureType

from pipeline.files.pixels.numbering import Numbering

DELAY = 4  # frames that the decoder holds back
GROUP = 24  # packets from key frame to key frame
N = 5 * GROUP


def packets_of(rng, n_fields):
    """Packets in decoding order, with the place of their frame in presentation order."""
    packets = []
    times = np.cumsum(rng.integers(2, 5, N)) * 100
    for start in range(0, N, GROUP):
        places = [start]
        while len(places) < GROUP:  # each anchor is followed by frames that are shown before it
            n_before = min(int(rng.integers(0, DELAY)), GROUP - 1 - len(places))
            anchor = start + len(places) + n_before
            places += [anchor, *rng.permutation(range(anchor - n_before, anchor)).tolist()]
        for place, field in itertools.product(places, range(n_fields)):
            time = int(times[place]) + 50 * field
            is_key = place == start and field == 0
            packet = SimpleNamespace(place=place, pts=time, is_keyframe=is_key, is_discard=False)
            packet.gives_frame = field == n_fields - 1
            packets.append(packet)
    return packets


def decode(packets, numbering):
    """Number the frames of a decoder that gives them in presentation order. Returns their places,
    None for lost ones.
    """
    numbers = []
    held = []
    for packet in [*packets, None]:
        if packet is not None:
            if packet.is_damaged:
                numbering.damage.add(numbering.n_packets)
            numbering.add_packet(packet)
            if packet.gives_frame:
                held.append(packet)
        while len(held) > (0 if packet is None else DELAY):
            shown = min(held, key=lambda each: each.place)
            held.remove(shown)
            numbering.add_frame(frame_of(shown))
        numbers += numbering.number()
    numbers += numbering.finish()
    assert [frame.number for frame in numbers] == list(range(len(numbers)))
    return [None if frame.decoded is None else frame.decoded.place for frame in numbers]


def frame_of(packet):
    is_key = packet.place % GROUP == 0
    kind = PictureType.I if is_key else PictureType.P
    return SimpleNamespace(
        place=packet.place,
        opaque=packet.opaque,
        pts=packet.pts,
        time=packet.pts / 100,
        key_frame=is_key,
        pict_type=kind,
        is_corrupt=False,
    )


def history(seed, n_fields, *, may_be_frameless):
    rng = np.random.default_rng(seed)
    packets = packets_of(rng, n_fields)
    for packet in packets:
        packet.is_damaged = False
    numbering = Numbering(may_be_frameless=may_be_frameless, shows_again=False, step=None)
    return rng, packets, numbering


def state_wrong_time(rng, packets, first=0):
    """One frame's packets, from `first` on, get any time of the clip, or one far away."""
    wrong = packets[int(rng.integers(first, len(packets)))]
    end = max(packet.pts for packet in packets)
    time = int(rng.choice([-(10**6), 10**6, rng.integers(end)]))
    for packet in packets:
        if packet.place == wrong.place:
            packet.pts = time


@pytest.mark.parametrize("n_fields", [1, 2])  # two: the first packet of a frame gives none
@pytest.mark.parametrize("seed", range(40))
def test_a_wrong_time_loses_nothing(seed, n_fields):
    rng, packets, numbering = history(seed, n_fields, may_be_frameless=n_fields == 2)
    state_wrong_time(rng, packets)
    assert decode(packets, numbering) == list(range(N))


@pytest.mark.parametrize("seed", range(40))
def test_a_packet_without_a_frame_keeps_its_number_and_spoils_its_group(seed):
    rng, packets, numbering = history(seed, 1, may_be_frameless=False)
    order = int(rng.integers(N - DELAY))
    packets[order].gives_frame = False
    lost = {packet.place for packet in packets[order : order - order % GROUP + GROUP]}
    expected = [None if place in lost else place for place in range(N)]
    assert decode(packets, numbering) == expected


@pytest.mark.parametrize("may_be_frameless", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_wrong_time_long_after_damage_shifts_no_frame(seed, may_be_frameless):
    rng, packets, numbering = history(seed, 1, may_be_frameless=may_be_frameless)
    order = int(rng.integers(GROUP))
    packets[order].is_damaged = True
    lost = {packet.place for packet in packets[order:GROUP]}
    state_wrong_time(rng, packets, first=2 * GROUP)
    expected = [None if place in lost else place for place in range(N)]
    assert decode(packets, numbering) == expected
