"""What does `status --csv` cost with and without stored grades?

    .venv/bin/python benchmarks/stored_grades.py --out benchmarks/stored_grades.md

A split of `--tracks` tracks of 128 rows, four in each video. Made up: 64 tracks of people who move
and shake are written, and all other shards are links to theirs. First `status --csv` computes all
grades, as there is no file of them. Then the grades of the 64 tracks are computed, and stored for
all; and `status --csv` reads them. Both must print the same. Last, it reads those of `--stored`
tracks, which would take an hour to compute. Each figure is of a process of its own, with all files
in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from cache.format import layout
from cache.format.place import Place
from cache.format.tables import Tables
from pipeline.grades.stored import StoredGrades
from pipeline.steps.grading import store_grades

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, in_a_process, parser, report, table, write_split
from benchmarks.scale import linked, publish

NAME: Final = "made/train"
COLUMNS: Final = ("frame_index", "bbox", "kp_2d")
ROWS: Final = 128  # a track
TRACKS: Final = 4  # a video
A_SHARD: Final = layout.ROWS_PER_SHARD // ROWS  # tracks


def make(root: Path, n_tracks: int) -> None:
    """Write a split: one shard of each column, and links to it."""
    rng = np.random.default_rng(0)
    videos = [[_person(rng) for _ in range(TRACKS)] for _ in range(A_SHARD // TRACKS)]
    write_split(root, NAME, COLUMNS, videos, width=4500, height=480)
    split = cache.open(root)[NAME]
    n_shards = -(-n_tracks // A_SHARD)
    extent = n_shards * layout.ROWS_PER_SHARD
    written = split.manifest["shards"]
    shards = {
        column: linked(root / NAME / column, extent, written, layout.COLUMNS[column])
        for column in COLUMNS
    }
    tables = _repeat(split.tables, n_shards)
    entries = {
        "rows": extent,
        "tracks": len(tables["track_start"]),
        "videos": len(tables["video_name"]),
        "extent": extent,
        "commits": [[0, extent]],
        "shards": shards,
    }
    publish(Place(split.store, NAME), entries, tables)


def _person(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """The rows of a person who walks across the image, shaken by up to 2 px."""
    frames = np.arange(ROWS)
    start = rng.uniform(100, 4000)
    centre = np.stack([start + 3 * frames, 240 + 20 * np.sin(frames / 10)], axis=1)
    joints = rng.uniform(-40, 40, (49, 2)) * np.array([1, 2])
    places = centre[:, None] + joints + rng.normal(0, rng.uniform(0, 2), (ROWS, 49, 2))
    confidence = np.tile(rng.random((1, 49, 1)) < rng.uniform(0.5, 1), (ROWS, 1, 1))
    side = np.full((ROWS, 2), 180.0)
    return {
        "frame_index": frames,
        "bbox": np.concatenate([centre, side], axis=1).astype(np.float32),
        "kp_2d": np.concatenate([places, confidence], axis=2).astype(np.float32),
    }


def _repeat(tables: Tables, n: int) -> Tables:
    """The tables of a shard, n times, with numbers and names that go on."""
    n_tracks = len(tables["track_start"])
    n_videos = len(tables["video_name"])
    made = Tables()
    for name, array in tables.items():
        made[name] = np.concatenate([array] * n)
    first_row = np.repeat(np.arange(n) * layout.ROWS_PER_SHARD, n_tracks)
    for name in ("track_start", "track_stop", "run_start", "run_stop"):
        made[name] = made[name] + first_row
    first_video = np.repeat(np.arange(n) * n_videos, n_tracks)
    made["track_video"] = (made["track_video"] + first_video).astype("<i4")
    account_stops = np.repeat(np.arange(n) * len(tables["video_account"]), n_videos)
    made["video_account_stop"] = made["video_account_stop"] + account_stops
    videos = [f"{number:07d}" for number in range(n * n_videos)]
    made["video_name"] = Tables.encode_texts(videos)
    names = [f"{video}/{person}" for video in videos for person in range(TRACKS)]
    made["track_name"] = Tables.encode_texts(names)
    return made


def store(root: Path, one_shard: Path) -> None:
    """Compute the grades of the split of one shard, and store them for the tracks of all shards."""
    store_grades(one_shard, NAME)
    one = StoredGrades(cache.open(one_shard)[NAME]).numbers
    grades = StoredGrades(cache.open(root)[NAME])
    grades.numbers = np.concatenate([one] * (len(grades.numbers) // len(one)))
    grades.is_known[:] = True
    grades.write(is_complete=True)


class _Figure(NamedTuple):
    """Cost of a command."""

    cpu: float  # s
    peak: float  # MiB, mapped tables and numbers included
    n_lines: int
    digest: str  # of what it printed


def _measure(*words: object) -> _Figure:
    """Run a command of the pipeline."""
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    digest = hashlib.sha256()
    n_lines = 0
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            digest.update(line)
            n_lines += 1
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return _Figure(
        used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, n_lines, digest.hexdigest()
    )


def lines(args: argparse.Namespace, work: Path) -> Iterator[str]:
    """Measure, and yield the report."""
    one_shard, less, more = (work / name for name in ("one", "less", "more"))
    for root, n_tracks in ((one_shard, A_SHARD), (less, args.tracks), (more, args.stored)):
        in_a_process(make, root, n_tracks)
    computed = _measure("status", NAME, "--cache", less, "--csv")
    figures = [("`status --csv`, computed", args.tracks, computed)]
    for root, n_tracks in ((less, args.tracks), (more, args.stored)):
        in_a_process(store, root, one_shard)
        stored = _measure("status", NAME, "--cache", root, "--csv")
        if root == less and stored.digest != computed.digest:
            raise SystemExit("stored grades are printed otherwise than computed ones")
        figures.append(("`status --csv`, stored", n_tracks, stored))
        figures.append(("`status`", n_tracks, _measure("status", NAME, "--cache", root)))

    yield "64 tracks under many names. One run each.\n"
    rows = []
    for what, n_tracks, figure in figures:
        per_track = 1e6 * figure.cpu / n_tracks
        cells = (f"{n_tracks:,}", f"{figure.cpu:,.1f}", f"{per_track:,.0f}", f"{figure.peak:,.0f}")
        rows.append((what, *cells))
    yield from table(("", "tracks", "CPU s", "µs a track", "MiB at most"), rows)
    size = (more / NAME / layout.MEASURES).stat().st_size / 2**20
    yield (
        f"\nThe tables of {args.tracks:,} tracks have the same bytes, {computed.n_lines:,} lines. "
        f"`measures.npz` of {args.stored:,} tracks has {size:,.1f} MiB."
    )


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--tracks", type=int, default=100_000)
    options.add_argument("--stored", type=int, default=1_000_000, help="tracks of the second split")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        title = "What does `status --csv` cost with and without stored grades?"
        about = "SIMULATED data: no result about a dataset."
        report(about, title, lines(args, Path(folder)), args)


if __name__ == "__main__":
    main()
