"""Small clips of all kinds, made by PyAV. Each frame shows its number in bits."""

from __future__ import annotations

import functools
import io
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.pipeline.datasets.by_hand import standing, write_alphapose

Image = NDArray[np.uint8]

BITS = 8
WIDTH, HEIGHT = 128, 64
DARK, BRIGHT = 50, 200


def paint(number, width=WIDTH, height=HEIGHT):
    """An image (height, width, 3) whose columns are a number's bits, and below their inverse."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits), width // BITS)
    columns = np.pad(columns, (0, width - len(columns)), mode="edge")
    upper = np.where(columns, BRIGHT, DARK).astype(np.uint8)
    rows = np.empty((height, width), np.uint8)
    rows[: height // 2] = upper
    rows[height // 2 :] = DARK + BRIGHT - upper
    return np.repeat(rows[..., None], 3, axis=2)


def number_in(image):
    """The number in an image of any size, upright; -1 if there is none."""
    height, width = image.shape[:2]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    upper, lower = (image[place * height // 4, centres].mean(axis=1) for place in (1, 3))
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

    def encode(self):
        """The file's bytes."""
        form = FORMATS.get(self.name.rpartition(".")[2])
        # As root, SVT-AV1 gives the thread that opens it real-time priority, for ever: no other
        # process of a small machine would run.
        policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, self.name)
            try:
                self._write(file, form)
            finally:
                os.sched_setscheduler(0, policy, priority)
            return file.read_bytes()

    def _write(self, file, form):
        with av.open(str(file), "w", format=form, options=self.muxer) as container:
            container.metadata.update(self.metadata)
            options = {"g": "10", **self.options}
            stream = container.add_stream(self.codec, rate=self.rate, options=options)
            stream.width, stream.height = self.size
            stream.pix_fmt = self.pix_fmt
            if self.times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            self.prepare(stream)
            packets = []
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


def find_packet(data, number):
    """Where a packet's content is in a file; number: in decoding order."""
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytes(packets[number])
    start = data.index(content)
    return slice(start, start + len(content))


def zero(data, number):
    """The file with zeros in place of one packet's content."""
    place = find_packet(data, number)
    return data[: place.start] + bytes(place.stop - place.start) + data[place.stop :]


MATRIX = {  # of a display: rows a b u, c d v, x y w, in fixed point
    "mirrored": (-1, 0, 0, 1),
    "a quarter turn": (0, 1, -1, 0),
    "a half turn": (-1, 0, 0, -1),
    "mirrored and turned": (0, 1, 1, 0),
}


def with_matrix(data, name):
    """An MP4 with another display matrix in its first track's header."""
    start = data.index(b"tkhd") + 4 + 40  # behind the type; version, times, layer, volume
    a, b, c, d = MATRIX[name]
    numbers = [value << 16 for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    return data[:start] + struct.pack(">9i", *numbers) + data[start + 36 :]


def trimmed(data, n_hidden):
    """An MP4 whose edit list begins `n_hidden` frames later, as phones trim clips."""
    start = data.index(b"elst") + 4 + 8
    duration, media_time, speed = struct.unpack_from(">IiI", data, start)
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    entry = struct.pack(
        ">IiI", duration - 1000 * n_hidden // 25, media_time + scale * n_hidden // 25, speed
    )
    return data[:start] + entry + data[start + 12 :]


def write_two_streams(file, small, large):
    """40 frames of `large`, numbered from 0 on; before it a stream of 15 frames of `small`, from
    200 on downwards.
    """
    with av.open(str(file), "w") as container:
        streams = []
        for (width, height), rate in ((small, 10), (large, 25)):
            stream = container.add_stream("libx264", rate=rate)
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


X265 = {"x265-params": "log-level=none"}


INTERLACED = {"flags": "+ilme+ildct", "x264-params": "interlaced=1:tff=1"}


N = 40


INTERLACED_CLIPS = (
    "interlaced.mp4",
    "interlaced.ts",
    "interlaced_mpeg2.ts",
    "interlaced_mpeg2_b_frames.mpg",
    "interlaced_mpeg4.avi",
)


def hdr(transfer):
    """Options of x265."""
    return {
        "x265-params": f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    }


def widen(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)


def doubled(packets):
    """Two packets have one time, each."""
    for first, second in zip(packets[::2], packets[1::2], strict=True):
        second.pts = first.pts
        second.dts = first.dts
    return packets


def shifted(packets, n_frames):
    """All packets come earlier or later."""
    for packet in packets:
        packet.pts += n_frames
        packet.dts += n_frames
    return packets


WHOLE = [
    Clip("h264.mp4"),
    Clip("h264_b_frames.mp4", options={"bf": "3"}),
    Clip("h264_fragments.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}),
    Clip("h264_open_gop.mkv", options={"bf": "2", "x264-params": "open-gop=1"}),
    Clip("h264_refresh.mp4", options={"x264-params": "intra-refresh=1"}),
    Clip("h264_444.mp4", pix_fmt="yuv444p"),
    Clip("h264_odd.mp4", size=(WIDTH + 1, HEIGHT + 1), pix_fmt="yuv444p"),
    Clip("h264.mov"),
    Clip("h264.mkv"),
    Clip("h264.avi", options={"bf": "0"}),
    Clip("h264_b_frames.avi", options={"bf": "2"}),
    Clip("h264.ts"),
    Clip("h264.m2ts", muxer={"mpegts_m2ts_mode": "1"}),
    Clip("h264.flv"),
    Clip("hevc.mp4", "libx265", options=X265),
    Clip("hevc.ts", "libx265", options=X265),
    Clip("hevc_10_bit.mp4", "libx265", options=X265, pix_fmt="yuv420p10le"),
    Clip("mpeg4.mp4", "mpeg4"),
    Clip("mpeg4.avi", "mpeg4"),
    Clip("mpeg4_b_frames.avi", "mpeg4", options={"bf": "2"}),
    Clip("mpeg4_b_frames.mp4", "mpeg4", options={"bf": "2"}),
    Clip("mpeg2.mpg", "mpeg2video"),
    Clip("mpeg2_b_frames.mpg", "mpeg2video", options={"bf": "2"}),
    Clip("mpeg2.ts", "mpeg2video", options={"bf": "2"}),
    Clip("mjpeg.avi", "mjpeg", pix_fmt="yuvj420p"),
    Clip("vp8.webm", "libvpx"),
    Clip(
        "vp8_hidden_references.webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "12"}
    ),
    Clip("vp9.webm", "libvpx-vp9", options={"cpu-used": "8"}),
    Clip(
        "vp9_hidden_references.mkv",
        "libvpx-vp9",
        options={"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "12"},
    ),
    Clip("av1.mkv", "libsvtav1", options={"preset": "12"}),
    Clip("wmv2.wmv", "wmv2"),
    Clip("flv1.flv", "flv"),
    Clip("ffv1.mkv", "ffv1"),
    Clip("prores.mov", "prores_ks", pix_fmt="yuv422p10le"),
    Clip("uneven.mkv", times=[33 * i + 5 * (i % 3) for i in range(N)]),
    Clip("uneven.webm", "libvpx", times=[33 * i + 5 * (i % 3) for i in range(N)]),
    Clip("pause.mkv", times=[40 * i + 2000 * (i > 20) for i in range(N)]),
    Clip("late_start.mkv", times=[40 * i + 5000 for i in range(N)]),
    Clip("interlaced.mp4", options=INTERLACED),
    Clip("interlaced.ts", options=INTERLACED),
    Clip("interlaced_mpeg2.ts", "mpeg2video", options={"flags": "+ilme+ildct"}),
    Clip(
        "interlaced_mpeg2_b_frames.mpg", "mpeg2video", options={"flags": "+ilme+ildct", "bf": "2"}
    ),
    Clip("interlaced_mpeg4.avi", "mpeg4", options={"flags": "+ilme+ildct"}),
    Clip("mpeg1.mpg", "mpeg1video"),
    Clip("dnxhd.mov", "dnxhd", size=(1280, 720), pix_fmt="yuv422p", options={"b": "60M"}),
    Clip("animation.mov", "qtrle", pix_fmt="rgb24"),
    Clip("png.mov", "png", pix_fmt="rgb24"),
    Clip("rgb.mkv", "libx264rgb", pix_fmt="rgb24"),
    *(Clip(f"{codec}.avi", codec) for codec in ("utvideo", "snow", "msmpeg4", "rawvideo")),
    Clip("cinepak.avi", "cinepak", pix_fmt="rgb24"),
    Clip("doubled_times.mkv", options={"bf": "0"}, change=lambda packets: doubled(packets)),
    Clip(
        "negative_times.mkv",
        change=lambda packets: shifted(packets, -3),
        muxer={"avoid_negative_ts": "disabled"},
    ),
    Clip("hlg.mp4", "libx265", options=hdr("arib-std-b67"), pix_fmt="yuv420p10le"),
    Clip("pq.mp4", "libx265", options=hdr("smpte2084"), pix_fmt="yuv420p10le"),
    Clip("wide_pixels.mp4", prepare=lambda stream: widen(stream)),
    Clip("dv.avi", "dvvideo", size=(720, 576)),
    Clip("h263.3gp", "h263", size=(176, 144)),
    Clip(
        "slow_motion.mp4",
        rate=30,
        muxer={"movflags": "use_metadata_tags"},
        metadata={"com.android.capture.fps": "240.0"},
    ),
]


@functools.cache
def content(name):
    """The bytes of a clip of `WHOLE`."""
    (clip,) = (clip for clip in WHOLE if clip.name == name)
    return clip.encode()


OPENCV = tuple(map(int, cv2.__version__.split(".")[:2]))  # before 4.13, it takes all for BT.601
# whose pixels are not those that OpenCV decodes, as `ClipRecord.otherwise` says
OTHERWISE = {*INTERLACED_CLIPS, "hlg.mp4", "pq.mp4", "wide_pixels.mp4", "dv.avi", "h263.3gp"}


def require_pixels_of_opencv(video, frames):
    """The frames are all of the video's, to the bit."""
    assert not video.record().otherwise
    capture = cv2.VideoCapture(str(video.root / video.path))
    for frame in frames:
        has_frame, image = capture.read()
        assert has_frame
        np.testing.assert_array_equal(frame.image, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    assert not capture.read()[0]
    capture.release()


DAMAGED = [
    "h264.mp4",
    "h264_b_frames.mp4",
    "h264.mkv",
    "h264.mov",
    "h264.flv",
    "hevc.mp4",
    "mpeg4.mp4",
    "mpeg4.avi",
    "mjpeg.avi",
    "vp9.webm",
    "vp8.webm",
    "av1.mkv",
    "wmv2.wmv",
]


def write_keypoints(raw, clip, size):
    """One person who stands in the middle of all frames."""
    joints = standing("coco", size[0] / 2, size[1] / 2, scale=size[1] / 60)
    write_alphapose(raw / "keypoints" / f"{clip}.json", dict.fromkeys(range(N), joints))
