"""How do times and memory grow, up to a million tracks? How long does it take from a clone to the
report?

    .venv/bin/python benchmarks/scale.py --out benchmarks/scale.md
    .venv/bin/python benchmarks/scale.py clone

tracks, the default: opening, windows, `plan`, a run with nothing to do, and `verify`. For 10^4,
10^5 and 10^6 tracks of 128 rows, four per video (Kinetics-400 has 250,000 videos): a raw folder and
a cache made from it. Made up: all clips are one file under many names, and so are all shards of a
column; so ten terabytes take seconds and no space. True: all names, sizes, digests, checksums and
records in manifests, tables and shards, which verifying a small cache shows. Nothing is decoded or
converted. Each figure is of a fresh process, with all files in memory. `verify` and `cat` read a
cache of `--rows` rows: with the files in memory, and after dropping them from it (posix_fadvise).

clone: this repository's last commit in its own folder, and the README's commands there. The speed
of pip depends on the network.
"""

from __future__ import annotations

import argparse
import itertools
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
from benchmarks.scale_data import KINETICS, RESNET50, TRACKS, make, write_template

SIZES: Final = (10_000, 100_000, 1_000_000)  # tracks
SPLITS: Final = {"train": 1.0, "val": 0.01}  # of the number of tracks; Luigi wants both
NAME: Final = "kinetics/train"
GOAL: Final = 15.0  # s


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
        in_a_process(make, folder, split, max(TRACKS, int(n_tracks * share)))
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
    for call, figure in figures.items():
        print(
            f"{n_tracks:>9,} tracks  {call:<41} {figure.seconds:8.2f} s {figure.peak:7.0f} MiB",
            flush=True,
        )
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
        seconds, process.returncode = (
            time.perf_counter() - started,
            os.waitstatus_to_exitcode(status),
        )
        output.seek(0)
        shown = output.read()
    if (
        process.returncode != 0
        or expected not in shown
        or "convert " in shown.replace("· convert ", "")
    ):
        raise SystemExit(
            f"{' '.join(command)}: expected {expected!r}, found exit code {process.returncode}: "
            f"{shown}"
        )
    return Figure(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


# -------------------------------------------------------------------------------------------------
# verify and cat


def verify_speeds(root: Path, times: int) -> dict[tuple[str, str], float]:
    """(way, "in memory" or "on the disk") -> MB/s, the best of several times."""
    files = [
        file
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.name != "provenance.json"
    ]
    n_bytes = sum(file.stat().st_size for file in files)
    ways: dict[str, Callable[[], object]] = {
        "cat": lambda: subprocess.run(
            ["cat", *map(str, files)], check=True, stdout=subprocess.DEVNULL
        ),
        "verify": lambda: cache.verify(root),
    }
    best: dict[tuple[str, str], float] = {}
    for state, (what, way), _ in itertools.product(
        ("in memory", "on the disk"), ways.items(), range(times)
    ):
        for file in files:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                advice = os.POSIX_FADV_WILLNEED if state == "in memory" else os.POSIX_FADV_DONTNEED
                os.posix_fadvise(stream.fileno(), 0, 0, advice)
        if state == "in memory":
            ways["cat"]()
        started = time.perf_counter()
        way()
        best[what, state] = max(
            best.get((what, state), 0.0), n_bytes / 1e6 / (time.perf_counter() - started)
        )
    return best


def tracks(args: argparse.Namespace, work: Path) -> Iterator[str]:
    """All sizes, and `verify` compared with `cat`."""
    sizes = [measure(work / str(n), n) for n in args.tracks]
    write_template(work / "verified", NAME, args.rows)
    speeds = verify_speeds(work / "verified", 3)
    slow = [call for call, figure in sizes[-1][1].items() if figure.cpu > GOAL]
    yield (
        "SIMULATED data: clips and shards are each one file under many names; names, sizes, "
        "digests, tables and"
    )
    yield (
        "manifests are true. One run each, in a fresh process, with all files in memory. "
        "Seconds of a call are"
    )
    yield "without Python's start and imports, those of a command with them.\n"
    yield (
        f"The goal, at most {GOAL:.0f} s of CPU time at {args.tracks[-1]:,} tracks, is reached by "
    )
    yield f"{'all but ' + ', '.join(slow) if slow else 'all of them'}.\n"
    yield (
        "Seconds by the clock; in brackets those of CPU time, without other programs; MiB of "
        "the largest resident"
    )
    yield "set, mapped tables included.\n"
    rows: list[tuple[str, ...]] = [("", *(size for size, _ in sizes), "")]
    for call in sizes[0][1]:
        figures = [of_size[call] for _, of_size in sizes]
        growth = ", ".join(
            f"{later.cpu / earlier.cpu:.1f}" for earlier, later in itertools.pairwise(figures)
        )
        cells = (
            f"{figure.seconds:.3g} ({figure.cpu:.3g}), {figure.peak:,.0f} MiB" for figure in figures
        )
        rows.append((f"`{call}`", *cells, growth))
    yield from table(("", *(f"{n:,} tracks" for n in args.tracks), "CPU time, times as much"), rows)
    yield f"\n## Verify\n\n{args.rows:,} rows.\n"
    both = [
        (state, speeds["cat", state], speeds["verify", state])
        for state in ("in memory", "on the disk")
    ]
    ratios = (
        (state, f"{cat:,.0f}", f"{ours:,.0f}", f"**{ours / cat:.2f}**") for state, cat, ours in both
    )
    yield from table(("files", "cat MB/s", "verify MB/s", "verify : cat"), ratios)


# ---------------------------------------------------------------------------------------- from a
# clone to the report

STEPS: Final = (  # a command, and its effect
    ("make setup", "packages"),
    ("make data", "data, converted and extracted"),
    ("make data", "again: nothing to do"),
    ("make train", "VIBE and its per-frame baseline trained and evaluated"),
    ("make report", "HMMR trained and evaluated, and the report"),
    ("make report", "again: nothing to do"),
)


def clone(_: argparse.Namespace, work: Path) -> Iterator[str]:
    """Run all steps in a clone. Raises CalledProcessError if one fails."""
    rows, after = list[tuple[str, str, str]](), 0.0
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(work / "clone")], check=True)
    for command, effect in STEPS:
        began = time.monotonic()
        # shows the progress
        subprocess.run(command.split(), cwd=work / "clone", check=True, stdout=sys.stderr)
        seconds = time.monotonic() - began
        rows.append((f"`{command}`", effect, f"{seconds:.0f}"))
        after += 0 if command == "make setup" or "again" in effect else seconds
    yield from table(("command", "what", "seconds"), rows)
    size = (work / "clone/runs/report.html").stat().st_size / 1e6
    yield (
        f"\nFrom data to report, with the packages installed: {after / 60:.1f} minutes. The "
        f"report has {size:.1f} MB."
    )


PARTS: Final[Mapping[str, tuple[str, Callable[[argparse.Namespace, Path], Iterator[str]]]]] = {
    "tracks": ("How do times and memory grow, up to a million tracks?", tracks),
    "clone": ("How long does it take from a clone to the report?", clone),
}


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__, at="raw data and caches")
    options.add_argument("part", nargs="?", choices=list(PARTS), default="tracks")
    options.add_argument("--tracks", type=int, nargs="+", default=list(SIZES))
    options.add_argument("--rows", type=int, default=262_144, help="of the cache that is verified")
    args = options.parse_args()
    title, part = PARTS[args.part]
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        report(
            "DEMO or simulated data: no result about a dataset.",
            title,
            list(part(args, Path(folder))),
            args,
        )


if __name__ == "__main__":
    main()
