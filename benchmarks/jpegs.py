"""Is damage inside JPEGs noticed, and what does it cost to decode them?

    .venv/bin/python benchmarks/jpegs.py --clips ../shared/data/openpose/video.avi \\
        --out benchmarks/jpegs.md

Images, made up or of clips, are written by `ENCODERS`, and damaged in all `KINDS` of ways at
`PLACES`. An image comes out wrong if OpenCV gives more than 1 % of its pixels another
value by more than 16; it passes if `decode` does not refuse it. Sound ones are also
filled up with zeros before their end marker, as some cameras do. A fast test of fewer:
tests/pipeline/files/test_damaged_jpegs.py.

Speed: processes that decode and crop the same JPEGs, of this checkout and of `--before`, another
one, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, spread, table
from pipeline.files.pixels.decode import PictureError, decode
from pipeline.files.pixels.frames import Video

Image = NDArray[np.uint8]
Encoder = Callable[[Image], bytes]

END: Final = b"\xff\xd9"
PLACES: Final = (0.05, 0.25, 0.5, 0.75, 0.93)  # shares of the scan
OVERWRITTEN: Final = 4096  # bytes
CUT: Final = 512
EXCHANGED: Final = 2048
MOST_ZEROS: Final = 4096  # before the end of a sound file
# Turned by 90 degrees: TIFF's header, and one entry, orientation 6.
TURNED: Final = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
LIMITED: Final = (  # of these, at most 2 % may pass
    "4,096 bytes of zeros",
    "4,096 bytes 0x5a",
    "4,096 random bytes",
    "4,096 bytes of another file",
    "512 bytes cut out",
    "the rest of the scan is another file's",
)
KINDS: Final = (
    *LIMITED,
    "one bit flipped",
    "16 random bytes",
    "two blocks of 2,048 bytes exchanged",
)


def opencv(*options: int, channel: int | slice = slice(None, None, -1)) -> Encoder:
    """OpenCV's encoder; a number of `channel` makes a grey image of it."""

    def encode(image: Image) -> bytes:
        return bytes(cv2.imencode(".jpg", image[..., channel], options)[1])

    return encode


def restart_in_rows(image: Image) -> bytes:
    """A restart marker after each row of blocks of 16 x 16 px."""
    return opencv(cv2.IMWRITE_JPEG_RST_INTERVAL, -(-image.shape[1] // 16))(image)


def turned(image: Image) -> bytes:
    data = opencv()(image)
    return data[:2] + b"\xff\xe1" + (len(TURNED) + 2).to_bytes(2) + TURNED + data[2:]


def ffmpeg(image: Image) -> bytes:
    height, width, _ = image.shape
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width = width
    encoder.height = height
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": "2", "qmax": "3"}
    packets = encoder.encode(av.VideoFrame.from_ndarray(image)) + encoder.encode(None)
    return b"".join(map(bytes, packets))


_SAMPLING: Final = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
ENCODERS: Final[Mapping[str, Encoder]] = {
    "4:2:0": opencv(),
    "4:2:0, quality 60": opencv(cv2.IMWRITE_JPEG_QUALITY, 60),
    "4:2:2": opencv(_SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    "4:4:4": opencv(_SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "grey": opencv(channel=1),
    "progressive": opencv(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "a restart marker every 8 blocks": opencv(cv2.IMWRITE_JPEG_RST_INTERVAL, 8),
    "a restart marker every row": restart_in_rows,
    "codes made for the image": opencv(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "EXIF, turned": turned,
    "FFmpeg": ffmpeg,
}


def decode_by_opencv(data: bytes) -> Image | None:
    """(H, W, 3) RGB as stored; None for damage that OpenCV refuses, which is little."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if rgb is None else np.asarray(rgb, np.uint8)


def draw(rng: np.random.Generator, width: int, height: int) -> Image:
    """A made-up image (H, W, 3): coarse and fine structure, and noise of other strength in each
    part of it.
    """
    image = np.full((height, width, 3), 128, np.float32)
    for n_cells in (4, 16, 64):
        cells = rng.uniform(-400 / n_cells, 400 / n_cells, (n_cells, n_cells, 3)).astype(np.float32)
        image += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    strengths = rng.choice([1.0, 4.0, 16.0], (4, 4, 1)).astype(np.float32)
    strength = cv2.resize(strengths, (width, height), interpolation=cv2.INTER_LINEAR)
    image += strength[..., None] * rng.normal(0, 1, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def scan_of(data: bytes) -> slice:
    """Where the (first) scan's bytes are, up to the end marker."""
    header = data.index(b"\xff\xda") + 2
    return slice(header + int.from_bytes(data[header : header + 2]), data.rindex(END))


def damage(data: bytes, kind: str, share: float, other: bytes, rng: np.random.Generator) -> bytes:
    """The JPEG with damage that begins at a share of its scan; `other` is of the same encoder."""
    scan = scan_of(data)
    size = scan.stop - scan.start
    start = scan.start + int(share * size)
    elsewhere = scan_of(other)
    if kind == "512 bytes cut out":
        return data[:start] + data[min(start + CUT, scan.stop) :]
    if kind == "the rest of the scan is another file's":
        return data[:start] + other[start:]
    if kind.startswith("two blocks"):
        second = scan.start + int((share + 0.4) % 1 * size)
        n_bytes = min(EXCHANGED, scan.stop - start, scan.stop - second)
        first = data[start : start + n_bytes]
        data = _overwrite(data, start, data[second : second + n_bytes])
        return _overwrite(data, second, first)
    if kind == "one bit flipped":
        return _overwrite(data, start, bytes([data[start] ^ 1 << int(rng.integers(8))]))
    n_bytes = min(OVERWRITTEN, scan.stop - start)
    source = int(rng.integers(elsewhere.start, max(elsewhere.stop - n_bytes, elsewhere.start + 1)))
    content = {
        "4,096 bytes of zeros": bytes(n_bytes),
        "4,096 bytes 0x5a": b"\x5a" * n_bytes,
        "4,096 random bytes": rng.bytes(n_bytes),
        "4,096 bytes of another file": other[source : elsewhere.stop][:n_bytes],
        "16 random bytes": rng.bytes(16),
    }
    return _overwrite(data, start, content[kind])


def _overwrite(data: bytes, start: int, content: bytes) -> bytes:
    return data[:start] + content + data[start + len(content) :]


def is_refused(data: bytes) -> bool:
    try:
        decode(data)
    except PictureError:
        return True
    return False


def comes_out_wrong(data: bytes, sound: Image) -> bool:
    found = decode_by_opencv(data)
    if found is None:
        return False
    if found.shape != sound.shape:
        return True
    differs = (cv2.absdiff(found, sound) > 16).any(axis=2)
    return bool(differs.mean() > 0.01)


class Counts(NamedTuple):
    wrong: Counter[tuple[str, str]]  # (encoder, kind of damage) -> images that come out wrong
    passed: Counter[tuple[str, str]]  # -> those of them that are not refused

    def row(
        self, name: str, encoders: Sequence[str], kinds: Sequence[str]
    ) -> tuple[str, str, str, str]:
        """A row of the table: the sums over these encoders and kinds."""
        keys = list(itertools.product(encoders, kinds))
        n_wrong = sum(self.wrong[key] for key in keys)
        n_passed = sum(self.passed[key] for key in keys)
        return name, f"{n_wrong:,}", f"{n_passed:,}", f"{n_passed / max(n_wrong, 1):.1%}"


def count_damage(images: Sequence[Image], kinds: Sequence[str], rng: np.random.Generator) -> Counts:
    """Damage each image, as written by each encoder, in these kinds of ways at each place."""
    counts = Counts(Counter(), Counter())
    for name in ENCODERS:
        written = [ENCODERS[name](image) for image in images]
        for number, (image, data) in enumerate(zip(images, written, strict=True)):
            sound = decode(data)
            alike = [i for i in range(len(images)) if images[i].shape == image.shape]
            alike.remove(number)
            for kind, share in itertools.product(kinds, PLACES):
                damaged = damage(data, kind, share, written[rng.choice(alike)], rng)
                if comes_out_wrong(damaged, sound):
                    counts.wrong[name, kind] += 1
                    counts.passed[name, kind] += not is_refused(damaged)
    return counts


def sound_files(images: Sequence[Image], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Each image by each encoder, (encoder, JPEG): as it is, and with zeros before its end."""
    for name, encode in ENCODERS.items():
        for image in images:
            data = encode(image)
            yield name, data
            yield name, data[: -len(END)] + bytes(rng.integers(1, MOST_ZEROS)) + END


def require_sound(name: str, data: bytes) -> None:
    """Raise PictureError if a JPEG is refused, and AssertionError if it has other bits than
    OpenCV's.
    """
    expected = decode_by_opencv(data)
    assert expected is not None, name
    np.testing.assert_array_equal(decode(data), expected, name)


TIMED = """
import sys, time
from pathlib import Path
from pipeline.people.boxes import crop_person
from pipeline.files.pixels.decode import decode
images = [file.read_bytes() for file in sorted(Path(sys.argv[1]).iterdir())]
start = time.process_time()
for data in images * int(sys.argv[2]):
    image = decode(data)
    height, width, _ = image.shape
    crop_person(image, (width / 2, height / 2, height / 2, height / 2))
print(time.process_time() - start)
"""


def time_decoding(folder: Path, checkout: Path, rounds: int) -> float:
    """CPU seconds of a process that decodes and crops the JPEGs in a folder."""
    command = [sys.executable, "-c", TIMED, str(folder), str(rounds)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return float(subprocess.check_output(command, cwd=checkout, env=environment))


def _frames(clips: Sequence[Path]) -> list[Image]:
    """Four frames of each clip; made-up images without clips."""
    if not clips:
        rng = np.random.default_rng(1)
        sizes = [(640, 480)] * 4 + [(1280, 720)] * 2
        return [draw(rng, *size) for size in sizes]
    images = []
    for clip in clips:
        video = Video(clip.parent.resolve(), clip.name)
        n_frames = video.count_frames()
        for frame in video.read([n_frames * i // 9 for i in (1, 3, 5, 7)]):
            if frame.image is not None:
                images.append(frame.image)
    return images


def _speed(images: Sequence[Image], before: Path, pairs: int, rounds: int) -> Iterator[str]:
    rows = []
    for name in ("4:2:0", "4:4:4", "grey", "progressive"):
        ours = []
        theirs = []
        with tempfile.TemporaryDirectory() as home:
            for number, image in enumerate(images):
                (Path(home) / f"{number:06d}.jpg").write_bytes(ENCODERS[name](image))
            for _ in range(pairs):
                theirs.append(time_decoding(Path(home), before, rounds))
                ours.append(time_decoding(Path(home), ROOT, rounds))
        speed = statistics.median(theirs) / statistics.median(ours)
        rows.append((name, f"{speed:.2f}", spread(theirs), spread(ours)))
    yield from ("", f"CPU s to decode and crop, {pairs} processes each: the median (range).", "")
    yield from table(("JPEGs", "speed, now : before", "before", "now"), rows)


def lines(args: argparse.Namespace) -> Iterator[str]:
    """The report."""
    images = _frames(args.clips)
    rng = np.random.default_rng(args.seed)
    counts = count_damage(images, KINDS, rng)
    header = ("came out wrong", "passed", "share")
    yield f"{len(images)} images, {len(ENCODERS)} encoders, {len(PLACES)} places of the scan."
    yield ""
    every = list(ENCODERS)
    yield from table(("damage", *header), [counts.row(kind, every, [kind]) for kind in KINDS])
    yield from ("", "The first six kinds, by encoder:", "")
    rows = [counts.row(name, [name], LIMITED) for name in every]
    yield from table(("encoder", *header), [*rows, counts.row("all", every, LIMITED)])
    yield ""
    yield "What passes has valid codes and the right number of blocks, or up to 7 bytes too many,"
    yield "which libjpeg reads ahead. The other file is of the same size: a frame of the same clip."
    yield "Short runs of zeros pass more often: they code about as many blocks as they replace."
    sound = list(sound_files(images, rng))
    for name, data in sound:
        require_sound(name, data)
    yield ""
    yield f"{len(sound)} sound files, half of them filled up with zeros: all have OpenCV's bits."
    if args.before:
        yield from _speed(images, args.before.resolve(), args.pairs, args.rounds)


def main() -> None:
    """Write the report."""
    options = parser(__doc__)
    options.add_argument(
        "--clips", type=Path, nargs="*", default=[], help="videos with images (default: made up)"
    )
    options.add_argument("--before", type=Path, help="another checkout, whose speed is compared")
    options.add_argument("--pairs", type=int, default=7, help="processes of each (default: 7)")
    options.add_argument("--rounds", type=int, default=10, help="of each process (default: 10)")
    options.add_argument("--seed", type=int, default=0, help="of the damage (default: 0)")
    args = options.parse_args()
    report(
        "Damaged JPEGs, and the speed of sound ones.",
        "Is damage inside JPEGs noticed?",
        lines(args),
        args,
    )


if __name__ == "__main__":
    main()
