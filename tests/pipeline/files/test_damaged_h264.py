"""Damage inside slices of H.264 is noticed, as far as it can be, and sound clips lose nothing. More
clips: benchmarks/h264.py.
"""

import av
import numpy as np
import pytest

from benchmarks.h264 import (
    ENCODINGS,
    N_FRAMES,
    OVERWRITTEN,
    count_damage,
    draw_clip,
    encode,
    require_sound,
    require_sound_clips,
)

SMALL = ((160, 96),)
CAVLC = [name for name in ENCODINGS if name.startswith("CAVLC")]


def test_of_overwritten_slices_of_cavlc_at_most_two_in_a_hundred_pass(tmp_path):
    counts = count_damage(tmp_path, CAVLC, SMALL, OVERWRITTEN, 5, np.random.default_rng(1))
    n_wrong = counts.wrong.total()
    assert n_wrong > 90
    assert counts.passed.total() <= 0.02 * n_wrong


def test_sound_clips_of_all_encodings_lose_no_image(tmp_path):
    require_sound_clips(tmp_path, 2 * len(ENCODINGS), np.random.default_rng(2))


def with_zeros(content):
    """A packet with zeros behind each of its units, within their lengths."""
    units = b""
    start = 0
    while start < len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4])
        units += (end - start - 1).to_bytes(4) + content[start + 4 : end] + bytes(3)
        start = end
    return units


@pytest.mark.parametrize("encoding", CAVLC)
def test_zeros_behind_a_slice_are_no_damage(tmp_path, encoding):
    sound = tmp_path / "sound.mp4"
    padded = tmp_path / "padded.mp4"
    encode(sound, draw_clip(np.random.default_rng(3), *SMALL[0]), encoding)
    with av.open(str(sound)) as container, av.open(str(padded), "w") as written:
        stream = written.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                copy = av.Packet(with_zeros(bytes(packet)))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                written.mux(copy)
    images = require_sound(padded)
    assert len(images) == N_FRAMES
    for image, expected in zip(images, require_sound(sound), strict=True):
        np.testing.assert_array_equal(image, expected)
