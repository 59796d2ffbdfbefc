"""How do times and memory grow, up to a million tracks?

    .venv/bin/python benchmarks/scale.py --out benchmarks/scale.md

Opening, windows, `plan`, a run with nothing to do, and `verify`. For 10^4, 10^5 and 10^6 tracks of
128 rows, four per video (Kinetics-400 has 250,000 videos): a raw folder and a cache made from it.
Made up: all clips are one file under many names, and so are all shards of a column; so ten
terabytes take seconds and no space. True: all names, sizes, digests, checksums and records in
manifests, tables and shards, which verifying a small cache shows. Nothing is decoded or converted.
Each figure is of a fresh process, with all files in memory. `verify` and `cat` read a cache of
`--rows` rows: with the files in memory, and after dropping them from it (posix_fadvise).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from pipeline.conversion.plan import plan_conversion
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import StreamSpec

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, in_a_process, parser, peak_mib, report, table
from benchmarks.scale_data import KINETICS, RESNET50, make, write_template

SIZES: Final = (10_000, 100_000, 1_000_000)  # tracks
SPLITS: Final = {"train": 1.0, "val": 0.01}  # of the number of tracks; Luigi wants both
NAME: Final = "kinetics/train"


# Each is measured in its own process: the cache and the raw folder -> the call.
CALLS: Final[Mapping[str, Callable[[Path, Path], Callable[[], Any]]]] = {
    "cache.open(root)[name]": lambda root, _: lambda: cache.open(root)[NAME],
    "split.windows(16, 16)": lambda root, _: partial(cache.open(root)[NAME].windows, 16, 16),
    'split.windows(16, 16, stream="resnet50")': lambda root, _: partial(
        cache.open(root)[NAME].windows, 16, 16, stream="resnet50"
    ),
    "plan_conversion(...)": lambda root, raw: partial(
        plan_conversion, KINETICS, "train", raw=raw, root=root
    ),
    "plan_extraction(...)": lambda root, _: partial(
        plan_extraction, root, NAME, StreamSpec(stream=RESNET50)
    ),
}
COMMANDS: Final = (".venv/bin/python -m pipeline plan", "luigi Data, nothing to do")


class Figure(NamedTuple):
    """Cost of one call or command."""

    seconds: float
    cpu: float  # s, of this process only: other programs do not count
    peak: float  # MiB: the largest resident set, mapped tables included


def measure(folder: Path, n_tracks: int) -> tuple[str, dict[str, Figure]]:
    """Make a cache of one size. Return its size in words, and the figures of all calls and
    commands.
    """
    for split, share in SPLITS.items():
        # in its own process: a command's peak begins with its parent's
        in_a_process(make, folder, split, max(1, int(n_tracks * share)))
    root, raw = folder / "cache", folder / "raw/kinetics"
    counts = cache.open(root)[NAME].manifest
    size = (
        f"{counts['rows']:,} rows, {counts['videos']:,} videos, "
        f"{len(counts['shards']['bbox']):,} shards"
    )
    figures = {call: in_a_process(call_figure, call, root, raw) for call in CALLS}
    plan = [sys.executable, "-m", "pipeline", "plan", NAME]
    luigi = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "Data"]
    for name, command in zip(COMMANDS, (plan, luigi), strict=True):
        figures[name] = command_figure(command, "up to date", folder)
    return size, figures


def call_figure(call: str, root: Path, raw: Path) -> Figure:
    """Time one of CALLS in this process."""
    work = CALLS[call](root, raw)
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    figure = Figure(time.perf_counter() - began, time.process_time() - cpu, peak_mib())
    if call.startswith("plan") and not result.up_to_date:
        raise SystemExit(f"{call}: expected nothing to do, found: {result.why}")
    return figure


def command_figure(command: Sequence[str], expected: str, folder: Path) -> Figure:
    """Time a whole command with its start. Ends the benchmark unless the command has nothing to
    do.
    """
    environment = {
        **os.environ,
        "LUIGI_CONFIG_PATH": str(folder / "luigi.cfg"),
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        shown = output.read()
    if status or expected not in shown or "convert " in shown.replace("· convert ", ""):
        raise SystemExit(f"{' '.join(command)}: expected {expected!r}, found {status}: {shown}")
    return Figure(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def verify_speeds(root: Path) -> Iterator[tuple[str, ...]]:
    """Rows of the table: MB/s of `cat` and `verify`, the best of three times."""
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    ways: tuple[Callable[[], object], ...] = (
        lambda: subprocess.run(["cat", *map(str, files)], check=True, stdout=subprocess.DEVNULL),
        lambda: cache.verify(root),
    )
    for state in ("in memory", "on the disk"):
        best = []
        for way in ways:
            times = []
            for _ in range(3):
                ways[0]()  # into memory
                if state == "on the disk":
                    drop(files)
                started = time.perf_counter()
                way()
                times.append(time.perf_counter() - started)
            best.append(megabytes / min(times))
        cat, verify = best
        yield (state, f"{cat:,.0f}", f"{verify:,.0f}", f"**{verify / cat:.2f}**")


def drop(files: Sequence[Path]) -> None:
    """Drop files from memory."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tracks(args: argparse.Namespace, work: Path) -> Iterator[str]:
    """All sizes, and `verify` compared with `cat`."""
    sizes = [measure(work / str(n), n) for n in args.tracks]
    yield (
        "Clips and shards are each one file under many names; names, sizes, digests, tables and "
        "manifests are true. One run each, in a fresh process, with all files in memory. Seconds "
        "by the clock, of a call without Python's start and imports, of a command with them; in "
        "brackets those of CPU time, without other programs; MiB of the largest resident set, "
        "mapped tables included.\n"
    )
    rows: list[tuple[str, ...]] = [("", *(size for size, _ in sizes))]
    for call in sizes[0][1]:
        figures = [of_size[call] for _, of_size in sizes]
        cells = (
            f"{figure.seconds:.3g} ({figure.cpu:.3g}), {figure.peak:,.0f} MiB" for figure in figures
        )
        rows.append((f"`{call}`", *cells))
    yield from table(("", *(f"{n:,} tracks" for n in args.tracks)), rows)
    yield f"\n## Verify\n\n{args.rows:,} rows.\n"
    write_template(work / "verified", NAME, args.rows)
    yield from table(
        ("files", "cat MB/s", "verify MB/s", "verify : cat"), verify_speeds(work / "verified")
    )


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--tracks", type=int, nargs="+", default=list(SIZES))
    options.add_argument("--rows", type=int, default=262_144, help="of the cache that is verified")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = tracks(args, Path(folder))
        about = "SIMULATED data: no result about a dataset."
        report(about, "How do times and memory grow, up to a million tracks?", lines, args)


if __name__ == "__main__":
    main()
