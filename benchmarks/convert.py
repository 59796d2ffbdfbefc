"""How fast is conversion, and does its memory stay flat?

    .venv/bin/python benchmarks/convert.py --out benchmarks/convert.md

Demo data of each dataset in two sizes, N videos and 4 N. For each, in a fresh process and into a
fresh cache on the same disk: `python -m pipeline convert` with one process and with two, and the
same command again with nothing to do. For two datasets also a plain script that holds all rows in
lists, as published code does; both must have the same number of rows. Of videos, all frames are
decoded once.
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
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline import datasets
from pipeline.demo import writing as synthetic

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
EVERY: Final = 0.05  # s between two samples of memory
WAYS: Final = ("one process", "two processes", "nothing to do")
PLAINLY: Final = "plain script"


class Measurement(NamedTuple):
    """One process from its start to its end."""

    seconds: float
    peak: float  # MiB: the largest sum of proportional set sizes of the process and its children


class Measured(NamedTuple):
    """A dataset at one size."""

    name: str
    n_videos: int
    rows: int
    runs: dict[str, Measurement]  # by way


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__, at="raw data and caches")
    options.add_argument("--datasets", nargs="*", choices=list(SIZES), default=list(SIZES))
    options.add_argument(
        "--scale", type=float, default=1.0, help="times the usual number of videos"
    )
    options.add_argument("--frames", type=int, help="of each video, instead of the usual number")
    options.add_argument(
        "--plain", nargs=3, metavar=("DATASET", "RAW", "OUT"), help=argparse.SUPPRESS
    )
    args = options.parse_args()
    if args.plain:
        name, raw, out = args.plain
        PLAIN[name](Path(raw), Path(out))
        return
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        work = Path(folder)
        synthetic.write_body(work / "body")
        pairs = [
            tuple(measure(work, name, share, args) for share in (1, 4)) for name in args.datasets
        ]
    about = "Demo data in the official layouts: no result about the datasets."
    report(about, "How fast is conversion, and does its memory stay flat?", tables(pairs), args)


def measure(work: Path, name: str, share: int, args: argparse.Namespace) -> Measured:
    """Measure a dataset at `share` times N videos."""
    largest, n_frames = SIZES[name]
    n_videos, runs = max(1, round(largest * args.scale / 4)) * share, dict[str, Measurement]()
    raw, root, plain = work / "raw" / name, work / "cache", work / "plain.npz"
    n_processes = os.cpu_count() or 1
    synthetic.write_dataset(
        name, raw, n_videos=n_videos, n_frames=args.frames or n_frames, workers=n_processes
    )
    if name in PLAIN:
        runs[PLAINLY] = run([sys.executable, __file__, "--plain", name, str(raw), str(plain)])
    for way in WAYS:
        runs[way] = convert(name, raw, root, work, way)
    split = cache.open(root)[f"{name}/train"]
    if name in PLAIN:
        compare(plain, split)
    for folder in (root, raw):
        shutil.rmtree(folder)
    print(
        f"{name} {n_videos} videos: "
        + ", ".join(f"{way} {result.seconds:.1f} s" for way, result in runs.items())
    )
    return Measured(name, n_videos, split.manifest["rows"], runs)


def convert(name: str, raw: Path, root: Path, work: Path, way: str) -> Measurement:
    """Run the command, into an empty cache unless `way` is to have nothing to do."""
    if way != "nothing to do":
        shutil.rmtree(root, ignore_errors=True)
    words = [
        sys.executable,
        "-m",
        "pipeline",
        "convert",
        name,
        "train",
        "--raw",
        str(raw),
        "--cache",
        str(root),
    ]
    words += ["--workers", "2" if way == "two processes" else "1"]
    words += ["--body", str(work / "body")] if datasets.get(name).uses_body else []
    return run(words)


def run(words: Sequence[str]) -> Measurement:
    """Run a command and watch its memory. Raises SystemExit if it fails."""
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
    """A process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # the process has ended
            continue
        for child in children:
            yield from family(int(child))


def proportional_set(pid: int) -> float:
    """MiB, of which each process gets its share of shared pages."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


# --------------------------------------------------------------------------------------------------
# plain scripts


def plain_penn_action(raw: Path, out: Path) -> None:
    """Collect labels in lists, with the labelled boxes, as published scripts do."""
    from scipy.io import loadmat

    frames, boxes = [], []
    for file in sorted((raw / "labels").glob("*.mat")):
        label = loadmat(file)
        if int(label["train"].item()) != 1:
            continue
        n_images = len(list((raw / "frames" / file.stem).iterdir()))
        for frame in range(min(int(label["nframes"].item()), n_images)):
            frames.append(frame)
            boxes.append(np.asarray(label["bbox"][min(frame, len(label["bbox"]) - 1)], np.float64))
    np.savez(out, frame_index=np.array(frames), bbox=np.array(boxes))


def plain_amass(raw: Path, out: Path) -> None:
    """Collect all motions at 25 poses a second, by the nearest pose, in a list."""
    poses, trans = [], []
    for file in sorted(raw.rglob("*_poses.npz")):
        motion = np.load(file)
        step = float(motion["mocap_framerate"]) / 25
        chosen = np.arange(0, len(motion["poses"]), step).round().astype(int)
        chosen = chosen[chosen < len(motion["poses"])]
        poses.append(motion["poses"][chosen, :72].astype(np.float32))
        trans.append(motion["trans"][chosen].astype(np.float32))
    frames = [np.arange(len(pose)) for pose in poses]
    np.savez(
        out,
        frame_index=np.concatenate(frames),
        pose=np.concatenate(poses),
        trans=np.concatenate(trans),
    )


PLAIN: Final = {"penn_action": plain_penn_action, "amass": plain_amass}


def compare(plain: Path, split: cache.Split) -> None:
    """Raise SystemExit if the plain script has another number of rows; its resampling may differ by
    one per motion.
    """
    rows, theirs = split.manifest["rows"], len(np.load(plain)["frame_index"])
    if abs(rows - theirs) > (len(split.tracks) if "pose" in split.columns else 0):
        raise SystemExit(f"{split.name}: {theirs} rows by the plain script, {rows} by the pipeline")


# --------------------------------------------------------------------------------------------------
# report


def tables(pairs: Sequence[tuple[Measured, ...]]) -> Iterator[str]:
    """Speed and memory for N and 4 N videos of each dataset."""
    yield (
        "One run each: wall time of the whole command with its start; the files are in "
        "memory. Memory is the largest"
    )
    yield (
        "sum of proportional set sizes (PSS) of all its processes, sampled every "
        f"{EVERY * 1000:.0f} ms."
    )
    yield "\n## Speed at 4 N videos\n"
    header = (
        "dataset",
        "videos",
        "person-frames",
        "one process/s",
        "two/s",
        "plain script/s",
        "nothing to do",
    )
    speeds = []
    for _, large in pairs:
        rates = {way: f"{large.rows / result.seconds:,.0f}" for way, result in large.runs.items()}
        cells = (rates.get(way, "-") for way in (*WAYS[:2], PLAINLY))
        speeds.append(
            (
                large.name,
                f"{large.n_videos:,}",
                f"{large.rows:,}",
                *cells,
                f"{large.runs[WAYS[2]].seconds:.1f} s",
            )
        )
    yield from table(header, speeds)
    yield "\n## Memory from N to 4 N videos\n"
    memory = [
        (
            large.name,
            *(f"{small.runs[way].peak:.0f} -> {large.runs[way].peak:.0f}" for way in WAYS[:2]),
        )
        for small, large in pairs
    ]
    yield from table(("dataset", "one process MiB", "two processes MiB"), memory)


if __name__ == "__main__":
    main()
