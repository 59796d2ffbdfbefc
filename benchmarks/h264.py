"""Is damage inside the slices of H.264 noticed?

    .venv/bin/python benchmarks/h264.py --out benchmarks/h264.md

Made-up clips are written by x264 in the ways of `ENCODINGS`. In each copy, one slice is damaged
behind its header, in one of the `KINDS` of ways, and all images are compared with those of the
sound clip. A copy comes out wrong if an image is lost, or off by more than `MOST_OFF`; it passes if
none is lost. A fast test of fewer: tests/pipeline/files/test_damaged_h264.py.

Sound clips must lose no image: those that are damaged here, others in the same ways, and those of
the folders of `--sound`, such as clips of other encoders.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.jpegs import draw
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.survey import Survey

Image = NDArray[np.uint8]

MOST_OFF: Final = 2  # grey levels
N_FRAMES: Final = 24
SIZES: Final = ((160, 96), (320, 192), (640, 352))
_SLICES: Final = "slices=4"
ENCODINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "CAVLC": {"bf": "0"},
    "CAVLC, B-frames": {"bf": "3"},
    "CAVLC, 4 slices": {"bf": "2", "x264-params": _SLICES},
    "CAVLC, strongly compressed": {"bf": "3", "crf": "35"},
    "CAVLC, baseline": {"profile": "baseline"},
    "CABAC": {"bf": "0"},
    "CABAC, B-frames": {"bf": "3"},
    "CABAC, 4 slices": {"bf": "2", "x264-params": _SLICES},
    "CABAC, strongly compressed": {"bf": "3", "crf": "35"},
    "CABAC, refreshed bit by bit": {"bf": "0", "x264-params": "intra-refresh=1"},
}
CODERS: Final = ("CAVLC", "CABAC")
HEADER: Final = 8  # bytes of a slice that are not damaged
OVERWRITTEN: Final = (  # kinds that overwrite a slice from a place on
    "16 random bytes",
    "the rest of the slice: random",
    "the rest of the slice: 0x5a",
    "the rest of the slice: of another place",
)
KINDS: Final = ("one bit flipped", *OVERWRITTEN)


def encode(path: Path, images: Sequence[Image], encoding: str) -> None:
    """Write images (H, W, 3) as an MP4."""
    options = {"g": "12", "threads": "1", "coder": "0", **ENCODINGS[encoding]}
    if encoding.startswith("CABAC"):
        del options["coder"]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width, _ = images[0].shape
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


def draw_clip(rng: np.random.Generator, width: int, height: int) -> list[Image]:
    """Images of a texture that moves, with a part of it that moves otherwise."""
    texture = draw(rng, width + 3 * N_FRAMES, height + 2 * N_FRAMES)
    part = texture[: height // 4, : width // 4]
    images = []
    for number in range(N_FRAMES):
        image = texture[2 * number :, 3 * number :][:height, :width].copy()
        left = 7 * number % (width // 2)
        image[height // 2 :, left:][: height // 4, : width // 4] = part
        images.append(image)
    return images


def read(path: Path) -> list[Image | None]:
    """All images of a clip, None for lost ones; empty if it cannot be read."""
    images = []
    for frame in Video(path.parent, path.name).read(itertools.count(), Survey()):
        if frame.kind in ("video_ended", "video_unreadable"):
            break
        images.append(frame.image)
    return images


def slices(path: Path) -> list[slice]:
    """Where the slices of an MP4's frames are in the file, without their headers."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            content = bytes(packet)
            start = 0
            while start < len(content):
                begin = start + 4
                start = begin + int.from_bytes(content[start:begin])
                if content[begin] & 31 <= 5:  # else it is no slice
                    first = begin + min(HEADER, (start - begin) // 2)
                    found.append(slice(packet.pos + first, packet.pos + start))
    return found


def damage(data: bytes, place: slice, kind: str, rng: np.random.Generator) -> bytes:
    """The file with a slice that is damaged from some place on."""
    start = int(rng.integers(place.start, place.stop))
    size = place.stop - start
    if kind == "one bit flipped":
        content = bytes([data[start] ^ 1 << int(rng.integers(8))])
    elif kind == "16 random bytes":
        content = rng.bytes(min(16, size))
    elif kind.endswith("random"):
        content = rng.bytes(size)
    elif kind.endswith("0x5a"):
        content = b"\x5a" * size
    else:
        source = int(rng.integers(len(data) - size))
        content = data[source : source + size]
    return data[:start] + content + data[start + len(content) :]


def is_off(image: Image, sound: Sequence[Image | None], number: int) -> bool:
    """Whether an image is not that of a number in the sound clip."""
    expected = sound[number] if number < len(sound) else None
    if expected is None or expected.shape != image.shape:
        return True
    return bool(np.abs(image.astype(np.int16) - expected).max() > MOST_OFF)


class Case(NamedTuple):
    """What was damaged how."""

    encoding: str
    size: tuple[int, int]
    kind: str


class Counts(NamedTuple):
    wrong: Counter[Case]  # clips that come out wrong
    passed: Counter[Case]  # those of them in which no image is lost
    partly: Counter[Case]  # those in which one is lost, and another is off

    def row(self, name: str, coder: str, **case: object) -> tuple[str, ...]:
        """A row of the table: the sums over the cases of a coder with these fields."""
        cases = []
        for one in self.wrong:
            if one.encoding.startswith(coder) and case.items() <= one._asdict().items():
                cases.append(one)
        n_wrong, n_passed, n_partly = (sum(map(count.__getitem__, cases)) for count in self)
        share = f"{n_passed / max(n_wrong, 1):.1%}"
        return name, f"{n_wrong:,}", f"{n_passed:,}", share, f"{n_partly:,}"


def count_damage(
    folder: Path,
    encodings: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    kinds: Sequence[str],
    n_copies: int,
    rng: np.random.Generator,
) -> Counts:
    """Damage copies of a clip of each encoding and size, so many in each kind of way."""
    counts = Counts(Counter(), Counter(), Counter())
    file = folder / "damaged.mp4"
    for encoding, size in itertools.product(encodings, sizes):
        encode(file, draw_clip(rng, *size), encoding)
        data = file.read_bytes()
        sound = require_sound(file)
        places = slices(file)
        for kind in [*kinds] * n_copies:
            place = places[int(rng.integers(len(places)))]
            file.write_bytes(damage(data, place, kind, rng))
            found = read(file)
            is_lost = not found or any(image is None for image in found)
            has_off = any(is_off(im, sound, i) for i, im in enumerate(found) if im is not None)
            key = Case(encoding, size, kind)
            counts.wrong[key] += is_lost or has_off
            counts.passed[key] += has_off and not is_lost
            counts.partly[key] += has_off and is_lost
    return counts


def require_sound(path: Path) -> list[Image | None]:
    """The images of a sound clip. Raises AssertionError if one is lost, or there is none."""
    images = read(path)
    assert images, path
    assert not [number for number, image in enumerate(images) if image is None], path
    return images


def require_sound_clips(folder: Path, n_clips: int, rng: np.random.Generator) -> int:
    """Encode so many clips in all ways, and require them to be sound. Returns their number."""
    file = folder / "sound.mp4"
    for number in range(n_clips):
        encoding = [*ENCODINGS][number % len(ENCODINGS)]
        width, height = rng.integers(24, 160, 2).tolist()
        encode(file, draw_clip(rng, 2 * width, 2 * height), encoding)
        assert len(require_sound(file)) == N_FRAMES
    return n_clips


def lines(args: argparse.Namespace) -> Iterator[str]:
    """The report."""
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as home:
        counts = count_damage(Path(home), [*ENCODINGS], SIZES, KINDS, args.copies, rng)
        n_sound = require_sound_clips(Path(home), args.clips, rng)
    n_files = len(ENCODINGS) * len(SIZES) * len(KINDS) * args.copies
    yield f"{n_files:,} files, {len(ENCODINGS)} encodings, {len(SIZES)} sizes."
    yield ""
    header = ("came out wrong", "passed", "share", "seen, and another image is off")
    for coder in CODERS:
        rows = [counts.row(kind, coder, kind=kind) for kind in KINDS]
        yield from table((f"{coder}: damage", *header), rows)
        yield ""
        rows = [
            counts.row(f"{width} x {height}", coder, size=(width, height))
            for width, height in SIZES
        ]
        of_coder = [name for name in ENCODINGS if name.startswith(coder)]
        rows += [counts.row(name, coder, encoding=name) for name in of_coder]
        yield from table((f"{coder}: all damage", *header), rows)
        yield ""
    yield "What passes has valid codes, and of CAVLC the right number of bits. FFmpeg does not see"
    yield "whether a slice of CABAC ends where its data do. Seen, and another image is off: after"
    yield "an error in a slice of CAVLC, FFmpeg may draw later images wrong that are not damaged."
    yield ""
    yield f"{n_sound} sound clips of x264 lost no image."
    for folder in args.sound:
        files = sorted(file for file in folder.iterdir() if file.is_file())
        for file in files:
            require_sound(file)
        yield f"{len(files)} sound clips of {folder.name} lost no image."


def main() -> None:
    """Write the report."""
    options = parser(__doc__)
    options.add_argument(
        "--copies", type=int, default=10, help="of a clip, by kind of damage (default: 10)"
    )
    options.add_argument("--clips", type=int, default=300, help="sound ones (default: 300)")
    options.add_argument(
        "--sound", type=Path, nargs="*", default=[], help="folders of more sound clips"
    )
    options.add_argument("--seed", type=int, default=0, help="of clips and damage (default: 0)")
    args = options.parse_args()
    report(
        "Damaged slices of H.264.",
        "Is damage inside the slices of H.264 noticed?",
        lines(args),
        args,
    )


if __name__ == "__main__":
    main()
