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
from pipeline import datasets, synthetic

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import report

ROOT: Final = Path(__file__).parents[1]
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


@dataclass(frozen=True, slots=True)
class Run:
    """One process from its start to its end."""

    seconds: float
    peak: float  # MiB: the largest sum of proportional set sizes of the process and those that it started


@dataclass(slots=True)
class Measured:
    """A dataset at one size."""

    name: str
    n_videos: int
    rows: int = 0
    runs: dict[str, Run] = field(default_factory=dict)

    def per_second(self, way: str) -> float:
        """Person-frames a second, the start of the process included."""
        return self.rows / self.runs[way].seconds


def main() -> None:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of videos")
    parser.add_argument("--frames", type=int, help="of each video, instead of the usual number")
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; default: a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/convert.md")
    parser.add_argument("--plain", nargs=3, metavar=("DATASET", "RAW", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        name, raw, out = args.plain
        PLAIN[name](Path(raw), Path(out))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        synthetic.write_body(Path(folder) / "body")
        measured = [
            measure(Path(folder), name, share, args.scale, args.frames) for name in args.datasets for share in (1, 4)
        ]
    about = "Demo data in the official layouts: no result about the datasets."
    report(about, "How fast is conversion, and does its memory stay flat?", tables(measured), args)


def measure(work: Path, name: str, share: int, scale: float, frames: int | None) -> Measured:
    """A dataset at `share` times N videos."""
    n_videos, n_frames = SIZES[name]
    found = Measured(name, max(1, round(n_videos * scale / 4)) * share)
    raw, root, plain = work / "raw" / name, work / "cache", work / "plain.npz"
    synthetic.write_dataset(
        name, raw, n_videos=found.n_videos, n_frames=frames or n_frames, workers=os.cpu_count() or 1
    )
    if name in PLAIN:
        found.runs["plain script"] = run([sys.executable, __file__, "--plain", name, str(raw), str(plain)])
    for way in WAYS:
        found.runs[way] = convert(name, raw, root, work, way)
    split = cache.open(root)[f"{name}/train"]
    found.rows = split.manifest["rows"]
    if name in PLAIN:
        compare(plain, split)
    for folder in (root, raw):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{name} {found.n_videos} videos: " + ", ".join(f"{w} {r.seconds:.1f} s" for w, r in found.runs.items()))
    return found


def convert(name: str, raw: Path, root: Path, work: Path, way: str) -> Run:
    """The command, into an empty cache unless there is to be nothing to do."""
    if way != "nothing to do":
        shutil.rmtree(root, ignore_errors=True)
    words = [sys.executable, "-m", "pipeline", "convert", name, "train", "--raw", str(raw), "--cache", str(root)]
    words += ["--workers", "2" if way == "two processes" else "1"]
    words += ["--body", str(work / "body")] if datasets.get(name).uses_body else []
    return run(words)


def run(words: Sequence[str]) -> Run:
    """Start a command, and look at its memory until it ends. Raises SystemExit when it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set, family(process.pid))))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:6])} ended with {process.returncode}")
    return Run(time.perf_counter() - began, peak)


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


def tables(measured: Sequence[Measured]) -> list[str]:
    """What was measured."""
    large = [found for found in measured if found.n_videos == max(m.n_videos for m in measured if m.name == found.name)]
    small = {found.name: found for found in reversed(measured)}
    lines = [
        "One run each: wall time of the whole command, its start included; the files are in memory. Memory is the "
        f"largest sum of proportional set sizes (PSS) of all its processes, looked at every {EVERY * 1000:.0f} ms.",
        "",
        "## Speed at 4 N videos",
        "",
        *table("dataset", "videos", "person-frames", "one process/s", "two/s", "plain script/s", "nothing to do"),
    ]
    for found in large:
        plain = f"{found.per_second('plain script'):,.0f}" if "plain script" in found.runs else "-"
        speeds = [f"{found.per_second(way):,.0f}" for way in WAYS[:2]]
        idle = f"{found.runs['nothing to do'].seconds:.1f} s"
        lines.append(row(found.name, f"{found.n_videos:,}", f"{found.rows:,}", *speeds, plain, idle))
    lines += ["", "## Memory from N to 4 N videos", "", *table("dataset", "one process MiB", "two processes MiB")]
    for found in large:
        pairs = [(small[found.name].runs[way].peak, found.runs[way].peak) for way in WAYS[:2]]
        lines.append(row(found.name, *(f"{before:.0f} -> {after:.0f}" for before, after in pairs)))
    return lines


def table(*names: str) -> list[str]:
    return [row(*names), "|---" * len(names) + "|"]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
