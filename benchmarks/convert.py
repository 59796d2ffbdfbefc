"""How fast is conversion, and does its memory stay flat?

    .venv/bin/python benchmarks/convert.py

Demo data of each dataset in two sizes, N videos and 4 N, and for each of them, every time in a fresh process and into a
fresh cache on the same disk: `python -m pipeline convert` with one process and with two, and the same command again,
which has nothing to do. For two datasets a plain script that holds all rows in lists, as published code does; both must
have the same number of rows. Writes benchmarks/convert.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

import cache
from pipeline import datasets
from vibe_extensions.demo import writing as synthetic

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, table

SIZES: Final = {  # 4 N: videos of the split train; frames of each
    "penn_action": (400, 30),
    "posetrack": (80, 30),
    "insta_variety": (80, 60),
    "kinetics": (16, 280),
    "mpi_inf_3dhp": (16, 250),
    "h36m": (16, 500),
    "3dpw": (8, 250),
    "amass": (200, 1500),
}
EVERY: Final = 0.05  # s between two looks at the memory of a process
WAYS: Final = ("one process", "two processes", "nothing to do")
PLAINLY: Final = "plain script"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One process from its start to its end."""

    seconds: float
    peak: float  # MiB: the largest sum of proportional set sizes of the process and those that it started


@dataclass(slots=True)
class Measured:
    """A dataset at one size."""

    name: str
    n_videos: int
    rows: int = 0
    runs: dict[str, Measurement] = field(default_factory=dict)


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__, at="raw data and caches")
    options.add_argument("--datasets", nargs="+", choices=list(SIZES), default=list(SIZES))
    options.add_argument("--scale", type=float, default=1.0, help="times the usual number of videos")
    options.add_argument("--frames", type=int, help="of each video, instead of the usual number")
    options.add_argument("--plain", nargs=3, metavar=("DATASET", "RAW", "OUT"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.plain:
        name, raw, out = args.plain
        PLAIN[name](Path(raw), Path(out))
        return
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        synthetic.write_body(Path(folder) / "body")
        pairs = [
            tuple(measure(Path(folder), name, share, args.scale, args.frames) for share in (1, 4))
            for name in args.datasets
        ]
    about = "Demo data in the official layouts: no result about the datasets."
    report(about, "How fast is conversion, and does its memory stay flat?", tables(pairs), args)


def measure(work: Path, name: str, share: int, scale: float, frames: int | None) -> Measured:
    """A dataset at `share` times N videos."""
    n_videos, n_frames = SIZES[name]
    measured = Measured(name, max(1, round(n_videos * scale / 4)) * share)
    raw, root, plain = work / "raw" / name, work / "cache", work / "plain.npz"
    synthetic.write_dataset(
        name, raw, n_videos=measured.n_videos, n_frames=frames or n_frames, workers=os.cpu_count() or 1
    )
    if name in PLAIN:
        measured.runs[PLAINLY] = run([sys.executable, __file__, "--plain", name, str(raw), str(plain)])
    for way in WAYS:
        measured.runs[way] = convert(name, raw, root, work, way)
    split = cache.open(root)[f"{name}/train"]
    measured.rows = split.manifest["rows"]
    if name in PLAIN:
        compare(plain, split)
    for folder in (root, raw):
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{name} {measured.n_videos} videos: " + ", ".join(f"{w} {r.seconds:.1f} s" for w, r in measured.runs.items())
    )
    return measured


def convert(name: str, raw: Path, root: Path, work: Path, way: str) -> Measurement:
    """The command, into an empty cache unless there is to be nothing to do."""
    if way != "nothing to do":
        shutil.rmtree(root, ignore_errors=True)
    words = [sys.executable, "-m", "pipeline", "convert", name, "train", "--raw", str(raw), "--cache", str(root)]
    words += ["--workers", "2" if way == "two processes" else "1"]
    words += ["--body", str(work / "body")] if datasets.get(name).uses_body else []
    return run(words)


def run(words: Sequence[str]) -> Measurement:
    """Start a command, and look at its memory until it ends. Raises SystemExit when it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set, family(process.pid))))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:6])} ended with {process.returncode}")
    return Measurement(time.perf_counter() - began, peak)


def family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield from family(int(child))


def proportional_set(pid: int) -> float:
    """MiB; a page that several processes share counts for each of them in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


# --------------------------------------------------------------------------------------------------- plain scripts


def plain_penn_action(raw: Path, out: Path) -> None:
    """Labels into lists, boxes from the labelled boxes, as published scripts do."""
    from scipy.io import loadmat

    frames, boxes = [], []
    for file in sorted((raw / "labels").glob("*.mat")):
        label = loadmat(file)
        if int(label["train"].item()) != 1:
            continue
        n_pictures = len(list((raw / "frames" / file.stem).iterdir()))
        for frame in range(min(int(label["nframes"].item()), n_pictures)):
            frames.append(frame)
            boxes.append(np.asarray(label["bbox"][min(frame, len(label["bbox"]) - 1)], np.float64))
    np.savez(out, frame_index=np.array(frames), bbox=np.array(boxes))


def plain_amass(raw: Path, out: Path) -> None:
    """Every motion at 25 poses a second, the nearest one each, all in one list."""
    poses, trans = [], []
    for file in sorted(raw.rglob("*_poses.npz")):
        motion = np.load(file)
        step = float(motion["mocap_framerate"]) / 25
        chosen = np.arange(0, len(motion["poses"]), step).round().astype(int)
        chosen = chosen[chosen < len(motion["poses"])]
        poses.append(motion["poses"][chosen, :72].astype(np.float32))
        trans.append(motion["trans"][chosen].astype(np.float32))
    frames = [np.arange(len(pose)) for pose in poses]
    np.savez(out, frame_index=np.concatenate(frames), pose=np.concatenate(poses), trans=np.concatenate(trans))


PLAIN: Final = {"penn_action": plain_penn_action, "amass": plain_amass}


def compare(plain: Path, split: cache.Split) -> None:
    """Raise SystemExit unless the plain script has as many rows, within one a motion for its plain resampling."""
    rows, theirs = split.manifest["rows"], len(np.load(plain)["frame_index"])
    if abs(rows - theirs) > (len(split.tracks) if "pose" in split.columns else 0):
        raise SystemExit(f"{split.name}: {theirs} rows by the plain script, {rows} by the pipeline")


# --------------------------------------------------------------------------------------------------------- report


def tables(pairs: Sequence[tuple[Measured, ...]]) -> Iterator[str]:
    """What was measured, of N and of 4 N videos of each dataset."""
    yield "One run each: wall time of the whole command, its start included; the files are in memory. Memory is the"
    yield "largest sum of proportional set sizes (PSS) of all its processes, looked at every "
    yield f"{EVERY * 1000:.0f} ms.\n\n## Speed at 4 N videos\n"
    header = ("dataset", "videos", "person-frames", "one process/s", "two/s", "plain script/s", "nothing to do")
    speeds = [
        (
            *(large.name, f"{large.n_videos:,}", f"{large.rows:,}"),
            *(
                f"{large.rows / large.runs[way].seconds:,.0f}" if way in large.runs else "-"
                for way in (*WAYS[:2], PLAINLY)
            ),
            f"{large.runs[WAYS[2]].seconds:.1f} s",
        )
        for _, large in pairs
    ]
    yield from table(header, speeds)
    yield "\n## Memory from N to 4 N videos\n"
    memory = [
        (large.name, *(f"{small.runs[way].peak:.0f} -> {large.runs[way].peak:.0f}" for way in WAYS[:2]))
        for small, large in pairs
    ]
    yield from table(("dataset", "one process MiB", "two processes MiB"), memory)


if __name__ == "__main__":
    main()
