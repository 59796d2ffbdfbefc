"""What grows with the work?  CPU time and peak memory of labels, crowds and whole commands.

    .venv/bin/python benchmarks/growth.py [--large]

Each table doubles one dimension, in fresh processes: the length of a label file of three people;
people who stand apart in frames; and, through all commands, the minutes of a clip of one person and
uneven times, clips of ten frames, and the pixels of sixty frames. The detector is made up, so that
`detect` shows what the rest costs. A command's time is that of all of its processes, its memory
that of the largest one, with Python and imports. An exponent of 1 is linear; that of a command
counts its start. `--large`: up to 500 MB, 300 people, two hours, 10,000 clips and 8K, which takes
hours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, in_a_process, peak_mib, table
from pipeline.accounting import VideoAccount
from pipeline.api import Detect, Detector, People
from pipeline.clips.labels.detections import Detections, read_detections
from pipeline.clips.labels.people_table import ByFrame
from pipeline.datasets.shared.clips.people import Rules, people

SIZE: Final = (1280, 720)
SMALL: Final = (64, 48)  # px of clips
PEOPLE: Final = 3  # in each frame of a file
FRAMES: Final = 40  # of a crowd
# px of COCO's joints about a person's neck
X: Final = (0, 2, -2, 4, -4, 10, -10, 14, -14, 15, -15, 7, -7, 8, -8, 8, -8)
Y: Final = (-10, -12, -12, -11, -11, 0, 0, 17, 17, 35, 35, 35, 35, 60, 60, 85, 85)
BODY: Final = np.column_stack([X, Y]).astype(np.float64)
TALL: Final = 150.0  # px of an image in which BODY is one person

COMMANDS: Final[Mapping[str, str]] = {
    "detect": "detect clips --out clips/keypoints --detector made_up",
    "convert": "convert videos/train --raw clips --cache cache --set videos.min_frames=8",
    "extract": "extract videos/train --cache cache --stream homography",
    "show, a page": "show videos/train --cache cache --out page.html",
    "show, a clip": "show videos/train --cache cache --out drawn.mp4",
    "status --csv": "status --cache cache --csv",
    "export": "export videos/train --cache cache --format parquet --out tables",
}
# Runs a command from a small process, because a child's peak memory begins with its parent's.
LAUNCH: Final = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""


class _Cost(NamedTuple):
    """Of one run."""

    cpu: float  # s
    peak: float  # MiB; of functions, above the start


class _Clips(NamedTuple):
    """What commands are given."""

    size: float  # of the dimension that grows
    n_clips: int
    n_frames: int  # of a clip
    pixels: tuple[int, int]  # width, height


@dataclass(frozen=True)
class MadeUp(Detector):
    """One person who stands and trembles in the middle of each image."""

    name: ClassVar[str] = "made_up"
    version: ClassVar[int] = 1

    def load(self, device: str) -> Detect:  # noqa: ARG002
        rng = np.random.default_rng(0)

        def detect(images: Sequence[np.ndarray]) -> list[People]:
            height, width = images[0].shape[:2]
            found = []
            for _ in images:
                place = BODY + rng.normal(0, 0.3, BODY.shape) + [0, TALL / 4]
                xy = place * (height / TALL) + [width / 2, 0]
                joints = np.insert(xy, 2, 1, axis=1)[None].astype(np.float32)
                box = np.concatenate([xy.min(axis=0), xy.max(axis=0)])[None].astype(np.float32)
                found.append(People(box, np.ones(1, np.float32), joints))
            return found

        return detect


def _write(file: Path, n_rows: int) -> None:
    """A file of n people in frames; its format by its ending."""
    rng = np.random.default_rng(0)
    with file.open("w") as stream:
        if file.suffix == ".csv":
            stream.write("track,frame,x,y,w,h\n")
        else:
            stream.write("[")
        for row in range(n_rows):
            frame, person = divmod(row, PEOPLE)
            if file.suffix == ".csv":
                stream.write(
                    f"{person},{frame},{100 + 200 * person + rng.random():.2f},80,60,150\n"
                )
                continue
            joints = np.ones((17, 3))
            joints[:, :2] = BODY + np.array([100 + 200 * person, 200]) + rng.normal(0, 0.3, (17, 2))
            flat = joints.round(2).ravel().tolist()
            entry = {"image_id": frame, "category_id": 1, "keypoints": flat, "idx": person + 1}
            stream.write(", " * bool(row) + json.dumps(entry))
        if file.suffix != ".csv":
            stream.write("]")


def _film(file: Path, n_frames: int, size: tuple[int, int]) -> None:
    """A clip of noise that moves, of 30 frames a second, whose times are uneven."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    noise = np.kron(noise, np.ones((-(-height // 48), -(-width // 64), 1), np.uint8))
    with av.open(str(file), "w") as container:
        options = {"preset": "ultrafast", "g": "30"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(n_frames):
            left = round((1 + math.sin(number / 30)) * width / 8)
            image = np.ascontiguousarray(noise[:height, left : left + width])
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts = 100 * number // 3 + number * number % 3
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _crowd(n_people: int, linked: bool) -> None:
    """Make the tracks of people who stand 200 px apart and tremble."""
    rng = np.random.default_rng(0)
    place = np.stack(divmod(np.arange(n_people), 20), axis=1) * 200.0 + 100
    keypoints = []
    for _ in range(FRAMES):
        place = place + rng.normal(0, 0.5, place.shape)
        joints = np.ones((n_people, 17, 3))
        joints[..., :2] = place[:, None] + BODY + rng.normal(0, 0.3, (n_people, 17, 2))
        keypoints.append(joints)
    identity = None if linked else ByFrame.join([np.arange(n_people)] * FRAMES)
    frames = np.arange(FRAMES)
    no_hands = np.zeros((FRAMES * n_people, 0, 3))
    detections = Detections("coco", frames, ByFrame.join(keypoints), identity, frames, no_hands)
    account = VideoAccount("crowd")
    account.found = detections.n_persons
    rules = Rules(20, put_sides_right=False, cut_at_switches=not linked)
    list(people(detections, account, rules, fps=25.0))


def _read(file: Path) -> None:
    read_detections(file, file.stem, lambda: [SIZE])


def _cost(work: Callable[..., None], *arguments: object) -> _Cost:
    _crowd(2, linked=True)  # imports what is imported when it is needed
    before = peak_mib()
    start = time.process_time()
    work(*arguments)
    return _Cost(time.process_time() - start, peak_mib() - before)


def _chain(clips: _Clips) -> dict[str, _Cost]:
    """The cost of each command, one after the other, on clips and their cache."""
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        for number in range(clips.n_clips):
            _film(folder / f"clips/{number:05d}.mp4", clips.n_frames, clips.pixels)
        package = folder / "growth-1.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: growth\nVersion: 1\n")
        (package / "entry_points.txt").write_text(
            "[vibe_pipeline.detectors]\nmade_up = benchmarks.growth:MadeUp\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
        for name, command in COMMANDS.items():
            words = [sys.executable, "-m", "pipeline", *command.split()]
            ended = subprocess.run(
                [sys.executable, "-c", LAUNCH, *words],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            if ended.returncode:
                raise SystemExit(f"{command}: expected exit code 0, found {ended.stderr}")
            costs[name] = _Cost(*map(float, ended.stdout.split()))
    return costs


def _row(name: str, costs: Sequence[_Cost], sizes: Sequence[float]) -> list[str]:
    """A line of the table: costs, and the exponent of the last two sizes."""
    ratio = math.log(sizes[-1] / sizes[-2])
    exponent = math.log(costs[-1].cpu / costs[-2].cpu) / ratio
    return [name, *(f"{c.cpu:.2f} s, {c.peak:.0f} MiB" for c in costs), f"{exponent:.2f}"]


def _files(large: bool) -> Iterator[str]:
    """The table of label files."""
    sizes = [125, 250, 500] if large else [4, 8, 16]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, a_row in (("x.csv", 27), ("x.json", 420)):
            costs = []
            for size in sizes:
                file = Path(folder, name)
                in_a_process(_write, file, size * 1_000_000 // a_row)
                costs.append(in_a_process(_cost, _read, file))
            rows.append(_row(name[2:].upper(), costs, sizes))
    return table(["MB of a label file", *map(str, sizes), "exponent"], rows)


def _people(large: bool) -> Iterator[str]:
    """The table of crowds."""
    counts = [75, 150, 300] if large else [40, 80, 160]
    rows = []
    for name, linked in (("with identities", False), ("linked", True)):
        rows.append(_row(name, [in_a_process(_cost, _crowd, n, linked) for n in counts], counts))
    return table(["people apart", *map(str, counts), "exponent"], rows)


def _commands(title: str, works: Mapping[str, _Clips]) -> Iterator[str]:
    """A table of commands, by the title of a size."""
    chains = []
    for name, clips in works.items():
        chains.append(_chain(clips))
        print(f"{title}, {name}: done", file=sys.stderr, flush=True)
    sizes = [clips.size for clips in works.values()]
    rows = [_row(name, [chain[name] for chain in chains], sizes) for name in COMMANDS]
    return table([title, *works, "exponent"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="up to 500 MB, 300 people, two hours")
    large = parser.parse_args().large
    minutes = (1, 30, 120) if large else (1, 2, 4)
    clips = (100, 1000, 10_000) if large else (25, 50, 100)
    sizes = {"1280 x 720": SIZE, "1920 x 1080": (1920, 1080), "4K": (3840, 2160)}
    if large:
        sizes["8K"] = (7680, 4320)
    works: dict[str, dict[str, _Clips]] = {
        "minutes": {str(n): _Clips(n, 1, 1800 * n, SMALL) for n in minutes},
        "clips": {f"{n:,}": _Clips(n, n, 10, SMALL) for n in clips},
        "frames": {k: _Clips(w * h, 1, 60, (w, h)) for k, (w, h) in sizes.items()},
    }
    print(*_files(large), "", *_people(large), sep="\n", flush=True)
    for title, clips_by_size in works.items():
        print("", *_commands(title, clips_by_size), sep="\n", flush=True)


if __name__ == "__main__":
    main()
