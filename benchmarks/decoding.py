"""What does it cost to decode videos, beside an earlier commit?

    .venv/bin/python benchmarks/decoding.py --before 19a16d33 --out benchmarks/decoding.md

Commands of this tree and of an earlier one (`--before`, of which `git archive` makes a copy) run in
turn: before, now, now, before, and so on. Each is a whole process with its start, in its own tree,
with the same packages. Measured is the CPU time, user and system, of the process and all its
descendants. 19a16d33 is the last commit with OpenCV as decoder.

The clips are a camera that moves over noise on all scales, encoded by PyAV and repeated. Keypoints
of one person in every frame are written by hand. A stream that costs almost nothing is extracted
into a copy of a converted cache, and a detector that costs nothing finds nobody. So nearly all of
the time is decoding, crops and start, and in `detect` the camera's motion. The last row of the
first table has the start alone: an extraction with nothing to do.

Memory is measured for a clip of one minute and for a long one, both with small frames: the largest
resident set of a process that reads all frames, and the largest sum of proportional set sizes of
all processes of an extraction, whose main process also has the rows of a shard.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

import cache

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, spread, table
from benchmarks.convert import EVERY, family, proportional_set
from benchmarks.features import textured

SPLIT: Final = "videos/train"
STREAM: Final = "mean_colours"
FPS: Final = 25
LOOP: Final = 100  # frames that are encoded; a clip repeats them
SMALL: Final = (128, 96)  # px, where only memory is measured
MINUTE: Final = 60 * FPS
X265: Final = "log-level=none:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"

PARTS: Final = """
from dataclasses import dataclass

import numpy as np

from pipeline.api import Detector, NumberStream, People


class Means:
    lanes = 1
    batch_size = 16
    provenance = {"stand_in": True, "device": "cpu"}

    def adopt(self, memory):
        pass

    def release(self):
        pass

    def __call__(self, crops):
        return crops[:, ::16, ::16].reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class MeanColours(NumberStream):
    kind = "mean_colours"
    dim = 3

    def load(self, machine, recorded):
        return Means()


@dataclass(frozen=True)
class Nobody(Detector):
    name = "nobody"

    def load(self, device):
        no_boxes = np.zeros((0, 4), np.float32)
        no_joints = np.zeros((0, 17, 3), np.float32)
        nobody = People(no_boxes, np.zeros(0, np.float32), no_joints)
        return lambda images: [nobody] * len(images)
"""
ENTRY_POINTS: Final = {
    "vibe_pipeline.streams": {"mean_colours": "decoding_parts:MeanColours"},
    "vibe_pipeline.detectors": {"nobody": "decoding_parts:Nobody"},
}
WRAPPER: Final = """
import ctypes, os, resource, subprocess, sys

PR_SET_CHILD_SUBREAPER = 36  # descendants whose parent ends become children
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
try:
    while True:
        os.wait()
except ChildProcessError:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
sys.exit(code)
"""
READER: Final = """
import re, sys
from pathlib import Path
from pipeline.files.pixels.frames import Video

for _ in Video(Path(sys.argv[1]), "clip.mp4").read(range(int(sys.argv[2]))):
    pass
print(re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0])
"""


@dataclass(frozen=True)
class Clip:
    """A kind of clip."""

    size: tuple[int, int]  # width, height px
    n_frames: int
    is_hlg: bool = False

    @property
    def name(self) -> str:
        codec = "HEVC, 10 bit, HLG" if self.is_hlg else "H.264"
        return f"{codec}, {self.size[0]} x {self.size[1]}"


@dataclass(frozen=True)
class Case:
    """A command on one clip. limit: of the ratio of CPU times; none: it is reported only."""

    command: str
    clip: Clip
    limit: float | None


SMALL_H264: Final = Clip((340, 256), 12_000)
MEDIUM_H264: Final = Clip((640, 480), 5_000)
LARGE_H264: Final = Clip((1768, 994), 1_200)
HLG: Final = Clip((1280, 720), 1_000, is_hlg=True)
CASES: Final = (
    Case("extract", SMALL_H264, 1.0),
    Case("extract", MEDIUM_H264, 1.0),
    Case("extract", LARGE_H264, 1.0),
    Case("extract", HLG, 0.3),
    Case("detect", SMALL_H264, 1.0),
    Case("detect", MEDIUM_H264, 1.0),
    Case("detect", LARGE_H264, 1.0),
    Case("detect", HLG, None),  # what it computes of each frame takes longer than decoding
    Case("convert", MEDIUM_H264, None),
    Case("convert", LARGE_H264, None),
)


# --------------------------------------------------------------------------------------------------
# clips


def write_clip(file: Path, clip: Clip, n_frames: int) -> None:
    """Encode `LOOP` frames, and repeat them up to `n_frames`."""
    loop = file.with_name(f"loop of {file.name}")
    if not loop.exists():
        encode(loop, clip)
    repeat(loop, file, n_frames)
    loop.unlink()


def encode(file: Path, clip: Clip) -> None:
    """A camera that moves over a still image, by 4 px a frame."""
    width, height = clip.size
    codec, pix_fmt, options = "libx264", "yuv420p", {"preset": "fast"}
    if clip.is_hlg:
        codec, pix_fmt, options = (
            "libx265",
            "yuv420p10le",
            {"preset": "superfast", "x265-params": X265},
        )
    scene = textured((width + 4 * LOOP, height), 0)
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for number in range(LOOP):
            image = np.ascontiguousarray(scene[:, 4 * number : 4 * number + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))


def repeat(loop: Path, file: Path, n_frames: int) -> None:
    """Write the packets of a clip again and again, at later times."""
    with av.open(str(loop)) as source, av.open(str(file), "w") as container:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        contents = [bytes(packet) for packet in packets]
        length = packets[0].duration * len(packets)
        copy = container.add_stream_from_template(stream)
        for turn in range(max(1, round(n_frames / LOOP))):
            for packet, content in zip(packets, contents, strict=True):
                later = av.Packet(content)
                later.pts = packet.pts + turn * length
                later.dts = packet.dts + turn * length
                later.duration = packet.duration
                later.time_base = packet.time_base
                later.is_keyframe = packet.is_keyframe
                later.stream = copy
                container.mux(later)


def write_keypoints(file: Path, size: tuple[int, int], n_frames: int) -> None:
    """One person in all frames: 17 joints on a grid in the middle of the image."""
    width, height = size
    places = np.linspace(0.1, 0.9, 17)
    joints = np.column_stack(
        [width * (0.4 + 0.2 * (np.arange(17) % 2)), height * places, np.full(17, 0.9)]
    )
    flat = joints.round(1).ravel().tolist()
    file.parent.mkdir()
    file.write_text(
        json.dumps(
            [{"image_id": f"{t}.jpg", "keypoints": flat, "score": 2.5} for t in range(n_frames)]
        )
    )


def write_raw(raw: Path, clip: Clip, n_frames: int) -> None:
    """A raw folder with one clip and its keypoints."""
    raw.mkdir(parents=True)
    write_clip(raw / "clip.mp4", clip, n_frames)
    n_frames = max(1, round(n_frames / LOOP)) * LOOP
    write_keypoints(raw / "keypoints/clip.mp4.json", clip.size, n_frames)


# --------------------------------------------------------------------------------------------------
# trees


class Tree:
    """A checkout whose commands run, with our stream and detector."""

    def __init__(self, code: Path, work: Path) -> None:
        self.code = code
        self.work = work
        work.mkdir()
        project = tomllib.loads((code / "pyproject.toml").read_text())["project"]
        install(work, "vibe-pipeline", project.get("entry-points", {}))
        install(work, "decoding-parts", ENTRY_POINTS)
        (work / "decoding_parts.py").write_text(PARTS)
        self.environment = os.environ | {"PYTHONPATH": f"{code}{os.pathsep}{work}"}
        self._require_own_code()

    def _require_own_code(self) -> None:
        words = [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"]
        file = subprocess.check_output(
            words, cwd=self.code, env=self.environment, text=True
        ).strip()
        if not Path(file).is_relative_to(self.code):
            raise SystemExit(f"{self.code}: its commands would run the code of {file}")

    def cpu_seconds(self, *words: str) -> float:
        """CPU time of `python -m pipeline` and all its descendants. Raises SystemExit if it
        fails.
        """
        command = [sys.executable, "-m", "pipeline", *words]
        done = subprocess.run(
            [sys.executable, "-c", WRAPPER, *command],
            cwd=self.code,
            env=self.environment,
            stdout=subprocess.PIPE,
        )
        if done.returncode:
            raise SystemExit(f"{self.code}: `{' '.join(command)}` ended with {done.returncode}")
        return float(done.stdout)

    def peak_mib(self, *words: str) -> float:
        """Largest sum of proportional set sizes of `python -m pipeline`. Raises SystemExit if it
        fails.
        """
        command = [sys.executable, "-m", "pipeline", *words]
        peak = 0.0
        process = subprocess.Popen(
            command, cwd=self.code, env=self.environment, stdout=subprocess.DEVNULL
        )
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_set, family(process.pid))))
            time.sleep(EVERY)
        if process.returncode:
            raise SystemExit(f"{self.code}: `{' '.join(command)}` ended with {process.returncode}")
        return peak

    def reading_mib(self, raw: Path, n_frames: int) -> float:
        """Largest resident set of a process that reads all frames of a clip, and does nothing
        else.
        """
        words = [sys.executable, "-c", READER, str(raw), str(n_frames)]
        return int(subprocess.check_output(words, cwd=self.code, env=self.environment)) / 1024

    def convert(self, raw: Path) -> float:
        """Convert a raw folder into a new cache. Returns CPU seconds."""
        shutil.rmtree(self.converted(raw), ignore_errors=True)
        return self.cpu_seconds(*self._convert_words(raw))

    def _convert_words(self, raw: Path) -> list[str]:
        return ["convert", SPLIT, "--raw", str(raw), "--cache", str(self.converted(raw))]

    def converted(self, raw: Path) -> Path:
        """The cache of a raw folder, without streams."""
        return self.work / f"cache of {raw.name}"

    def extract_words(self, raw: Path) -> list[str]:
        """Words of an extraction into a copy of the converted cache."""
        root = self.work / "extracted"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.converted(raw), root)
        return ["extract", SPLIT, "--stream", STREAM, "--raw", str(raw), "--cache", str(root)]

    def extract(self, raw: Path) -> float:
        """Extract into a new stream. Returns CPU seconds."""
        return self.cpu_seconds(*self.extract_words(raw))

    def extract_nothing(self, raw: Path) -> float:
        """The same extraction again, which has nothing to do. Returns CPU seconds."""
        words = [
            "extract",
            SPLIT,
            "--stream",
            STREAM,
            "--raw",
            str(raw),
            "--cache",
            str(self.work / "extracted"),
        ]
        return self.cpu_seconds(*words)

    def features(self) -> NDArray[Any]:
        """(n, 3) of the last extraction."""
        split = cache.open(self.work / "extracted")[SPLIT]
        return np.asarray(split.rows(f"features/{STREAM}", 0, split.manifest["rows"]))

    def detect(self, raw: Path) -> float:
        """Detect nobody in the clip. Returns CPU seconds."""
        out = self.work / "detected"
        shutil.rmtree(out, ignore_errors=True)
        return self.cpu_seconds(
            "detect", str(raw / "clip.mp4"), "--detector", "nobody", "--out", str(out)
        )


def install(site: Path, name: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """What pip writes about a package with these entry points, for a folder on PYTHONPATH."""
    about = site / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in groups.items():
        lines.append(f"[{group}]")
        lines += [f"{entry} = {place}" for entry, place in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))


def copy_of(before: str, folder: Path) -> Path:
    """A checkout of a commit; of a folder, itself."""
    if Path(before).is_dir():
        return Path(before).resolve()
    packed = subprocess.check_output(["git", "archive", before], cwd=ROOT)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


# --------------------------------------------------------------------------------------------------
# report


def compare(case: Case, raw: Path, trees: Sequence[Tree], rounds: int) -> tuple[str, ...]:
    """A row of the table: one case. trees: before and now, or now alone."""
    seconds: list[list[float]] = [[] for _ in trees]
    features: list[NDArray[Any]] = [np.empty(0)] * len(trees)
    for turn in range(rounds):
        order = list(range(len(trees)))
        if turn % 2:
            order.reverse()
        for number in order:
            seconds[number].append(getattr(trees[number], case.command)(raw))
            if case.command.startswith("extract"):
                features[number] = trees[number].features()

    equal = ""
    if case.command == "extract" and len(trees) == 2:
        before, now = features
        if len(before) != len(now):
            raise SystemExit(f"{case.clip.name}: {len(before)} rows before, {len(now)} now")
        equal = f"{(before == now).all(axis=1).mean():.1%}"
    ratio = "-"
    if len(trees) == 2:
        ratio = spread([now / before for before, now in zip(*seconds, strict=True)])
    limit = "-" if case.limit is None else f"{case.limit}"
    print(case.command, case.clip.name, ratio, seconds, flush=True)
    return (ratio, limit, *map(spread, seconds), equal)


def compared(args: argparse.Namespace, trees: Sequence[Tree]) -> Iterator[tuple[str, ...]]:
    """Rows of the table."""
    clips = list(dict.fromkeys(case.clip for case in CASES))
    for number, clip in enumerate(clips):
        raw = args.at / "raw" / str(number)
        n_frames = round(clip.n_frames * args.scale)
        write_raw(raw, clip, n_frames)
        for tree in trees:
            tree.convert(raw)
        for case in CASES:
            if case.clip == clip and case.command in args.commands:
                yield case.command, clip.name, *compare(case, raw, trees, args.rounds)
        if clip == clips[-1] and "extract" in args.commands:
            case = Case("extract_nothing", clip, None)
            yield "extract", "nothing to do", *compare(case, raw, trees, args.rounds)
        shutil.rmtree(raw)


def memory(args: argparse.Namespace, tree: Tree) -> Iterator[tuple[str, ...]]:
    """Peaks of extractions, for a minute and for `args.minutes`."""
    for minutes in (1, args.minutes):
        raw = args.at / "raw" / f"{minutes} minutes"
        n_frames = minutes * MINUTE
        write_raw(raw, Clip(SMALL, 0), n_frames)
        tree.convert(raw)
        extraction = tree.peak_mib(*tree.extract_words(raw))
        reading = tree.reading_mib(raw, n_frames)
        yield f"{minutes}", f"{n_frames:,}", f"{reading:.0f}", f"{extraction:.0f}"


def tables(args: argparse.Namespace) -> Iterator[str]:
    """CPU times and memory."""
    trees = [Tree(ROOT, args.at / "now")]
    if args.before:
        trees.insert(0, Tree(copy_of(args.before, args.at / "code"), args.at / "before"))
        yield f"Before: {args.before}. {args.rounds} rounds: the median (lowest - highest)."
    yield f"CPU s of the whole command. Equal: rows whose values of {STREAM} are the same.\n"
    names = ("before, CPU s", "now, CPU s")[-len(trees) :]
    header = ("command", "clip", "now : before", "limit", *names, "equal")
    yield from table(header, compared(args, trees))
    yield ""
    yield "Peak memory of a process that reads all frames, and of all processes of an extraction.\n"
    header = ("minutes of video", "frames", "reading, MiB", "extraction, MiB")
    yield from table(header, memory(args, trees[-1]))


def main() -> None:
    """Make the clips, measure, print, write the report."""
    options = parser(__doc__, at="clips and caches, 1 GB")
    options.add_argument(
        "--before", default="", help="a commit, or a folder with a checkout; none: this tree alone"
    )
    options.add_argument(
        "--commands", nargs="*", default=["extract", "detect", "convert"], help="all by default"
    )
    options.add_argument(
        "--scale", type=float, default=1.0, help="times the usual number of frames"
    )
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--minutes", type=int, default=120, help="of the long clip")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        args.at = Path(folder)
        report("Made-up clips.", "What does it cost to decode videos?", tables(args), args)


if __name__ == "__main__":
    main()
