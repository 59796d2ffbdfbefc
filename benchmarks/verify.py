"""How fast is `verify`, beside the disk? Against `cat` of the same files to /dev/null, in one run.

    .venv/bin/python benchmarks/verify.py

Writes a cache of `--rows` rows with all columns of a split and a stream of 2048 float16 numbers. Its files are read by
`cat` and by `cache.verify`, in turn and each in a fresh process, the best of `--times`: with the files in memory, and
with them dropped from it before each run (posix_fadvise). Of `cache.verify` the call is timed, without Python's start;
of `cat` the whole command. Processor time is told too: it counts where other work disturbs the clock. Then the tables
of 10^4, 10^5 and 10^6 tracks are compared with their frame indices. Writes benchmarks/verify.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import SplitWriter, StreamWriter, TrackRows, VideoEntry
from cache.format.layout import Geometry
from cache.verification.tables import runs_against_frames, runs_without_frames

ROOT: Final = Path(__file__).parents[1]
SPLIT: Final = "penn_action/train"
ROWS: Final = 262_144
TRACK: Final = 512  # rows
DIM: Final = 2048
CALL: Final = """
import json, sys, time
import cache

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before, started, busy = peak(), time.perf_counter(), time.process_time()
report = cache.verify(sys.argv[1], fast=sys.argv[2] == "fast")
assert report.ok, report.problems
print(json.dumps([time.perf_counter() - started, time.process_time() - busy, report.bytes, (peak() - before) / 1024]))
"""


@dataclass(frozen=True, slots=True)
class Speed:
    """The best of some runs."""

    seconds: float
    busy: float  # s of processors
    mb: float  # 10^6 bytes
    grown: float = 0.0  # MiB that the process grew by

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.mb / self.seconds


def write_cache(root: Path, rows: int) -> None:
    """A split with all columns, and a stream, of random numbers."""
    rng = np.random.default_rng(0)
    with SplitWriter(root, SPLIT, columns=cache.COLUMNS, plan="benchmark") as writer:
        writer.begin()
        for number in range(rows // TRACK):
            name = f"{number:06d}"
            columns: dict[str, Any] = {
                column: rng.random((TRACK, *spec.trailing), np.float32)
                for column, spec in cache.COLUMNS.items()
                if spec.dtype.kind == "f"
            }
            columns |= {flag: np.ones(TRACK, bool) for flag in ("has_3d", "has_smpl", "valid")}
            columns["frame_index"] = np.arange(TRACK)
            track = TrackRows(name=f"{name}/0", video=name, step=1, fps=25.0, crop_scale=1.3, columns=columns)
            writer.append(VideoEntry(name=name, fingerprint="0"), [track])
        writer.commit({})
    with StreamWriter(root, SPLIT, "resnet50", dim=DIM, plan="benchmark") as stream:
        for shard in stream.pending:
            n_rows = len(stream.rows(shard))
            keys = rng.integers(0, 2**63, (n_rows, 2)).astype(np.uint64)
            stream.write(shard, rng.random((n_rows, DIM), np.float32), np.ones(n_rows, bool), keys)
        stream.commit({})


def files_of(root: Path) -> list[Path]:
    """What `verify` reads: every file of the cache, the notes left out."""
    return [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != "provenance.json"]


def drop(files: Sequence[Path]) -> None:
    """Take files out of memory: the next one to read them waits for the disk."""
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def cat(files: Sequence[Path]) -> Speed:
    with Path(os.devnull).open("wb") as nowhere:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["cat", *map(str, files)], check=True, stdout=nowhere)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Speed(seconds, max(busy, 1e-6), sum(file.stat().st_size for file in files) / 1e6)


def verify(root: Path, how: str) -> Speed:
    called = subprocess.run(
        [sys.executable, "-c", CALL, str(root), how], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, busy, n_bytes, grown = json.loads(called.stdout)
    return Speed(seconds, busy, n_bytes / 1e6, grown)


def measure(root: Path, times: int) -> dict[tuple[str, str], Speed]:
    """(what, warm or cold) -> the best."""
    files = files_of(root)
    best: dict[tuple[str, str], Speed] = {}
    for state in ("warm", "cold"):
        if state == "warm":
            cat(files)
        for _ in range(times):
            for what in ("cat", "verify", "verify --fast"):
                if state == "cold":
                    drop(files)
                found = cat(files) if what == "cat" else verify(root, "fast" if what.endswith("fast") else "")
                if (what, state) not in best or found.seconds < best[what, state].seconds:
                    best[what, state] = found
    return best


def tables(n_tracks: int, rows_a_track: int) -> float:
    """Seconds of one processor to compare the runs of so many tracks with their frame indices, which are at hand."""
    size = Geometry().rows_per_shard
    starts = np.arange(n_tracks, dtype=np.int64) * rows_a_track
    stops = starts + rows_a_track
    of_all: Any = {
        "track_start": starts,
        "track_stop": stops,
        "track_step": np.ones(n_tracks, np.int32),
        "run_start": starts,
        "run_stop": stops,
    }

    def frames_of(shard: int) -> NDArray[np.int64]:
        return np.arange(shard * size, (shard + 1) * size) % rows_a_track

    started = time.process_time()
    told = list(runs_without_frames(of_all))
    told += runs_against_frames(of_all, Geometry(), frames_of)
    if told:
        raise SystemExit(f"intact tables are told of: {told[:3]}")
    return time.process_time() - started


def report(speeds: dict[tuple[str, str], Speed], scale: dict[int, float], rows: int, rows_a_track: int) -> str:
    """benchmarks/verify.md."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"
    lines = [
        "# How fast is `verify`, beside the disk?",
        "",
        f"A cache of {rows:,} rows, {speeds['cat', 'warm'].mb:,.0f} MB of random numbers. Made by",
        "`.venv/bin/python benchmarks/verify.py`; what is compared, and how, stands at its beginning.",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {machine}, NumPy {np.__version__}. What else went on: a "
        f"load of {max(0.0, os.getloadavg()[0] - 1):.1f}.",
        "",
        "| files | cat MB/s | verify MB/s | verify : cat | the same of processor time | --fast s | grows by MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for state, told in (("warm", "in memory"), ("cold", "on the disk")):
        plain, full, fast = (speeds[what, state] for what in ("cat", "verify", "verify --fast"))
        lines.append(
            f"| {told} | {plain.rate:,.0f} | {full.rate:,.0f} | **{full.rate / plain.rate:.2f}** | "
            f"{full.mb / full.busy / (plain.mb / plain.busy):.2f} | {fast.seconds:.2f} | {full.grown:.0f} |"
        )
    lines += ["", f"The runs of so many tracks of {rows_a_track} rows against their frame indices:", ""]
    lines += ["| tracks | rows | s of one processor |", "|---|---|---|"]
    lines += [f"| {n:,} | {n * rows_a_track:,} | {seconds:.2f} |" for n, seconds in scale.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--tracks", type=int, nargs="*", default=[10**4, 10**5, 10**6])
    parser.add_argument("--rows-a-track", type=int, default=100)
    parser.add_argument("--work", type=Path, help="where the cache is written, and removed: on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=args.work))
    try:
        write_cache(work / "cache", args.rows)
        speeds = measure(work / "cache", args.times)
    finally:
        shutil.rmtree(work)
    scale = {n: tables(n, args.rows_a_track) for n in args.tracks}
    text = report(speeds, scale, args.rows, args.rows_a_track)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
