"""How fast is conversion, and does its memory stay flat? Against a plain script that does the same, in one run.

    .venv/bin/python benchmarks/convert.py --full

For each dataset raw data of two sizes, N videos and 4 N (`raw_at_scale.py`), and for each of them, in turn and each in
a fresh process: the plain script (`plain_scripts.py`), and `python -m pipeline convert` with one process and with two,
into a fresh cache on the same disk. The numbers of both are compared, so that they are known to do the same. `--full`
adds AMASS's 10,000 motions; Penn Action at 4 N is the full 2,326 videos anyway. Writes benchmarks/convert.md.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import raw_at_scale

import cache
from pipeline import datasets
from pipeline.synthetic.layouts import writing

ROOT: Final = Path(__file__).parents[1]
GOAL: Final = 5.0  # times the plain script's speed, with two processes
LARGE: Final = {  # 4 N: videos of which the plain script takes some seconds
    "penn_action": raw_at_scale.FULL["penn_action"],
    "posetrack": 1600,
    "insta_variety": 720,
    "kinetics": 160,
    "mpi_inf_3dhp": 64,
    "h36m": 240,
    "3dpw": 24,
    "amass": 400,
}
WAYS: Final = ("plain", "ours, 1 process", "ours, 2 processes")
COLUMNS: Final = ("bbox", "kp_2d", "kp_3d", "pose", "betas", "trans")  # whose sums are compared
LOOK_EVERY: Final = 0.05  # s, at the memory
# What is told apart of a conversion, and which function does it; below, of reading a dataset's labels.
STAGES: Final = {
    "listing what is there": "pipeline.raw.changes:stamp",
    "fingerprints of raw files": "pipeline.raw.changes:video_digest",
    "labels into tracks": "pipeline.datasets.base:Dataset.read_accounted",
    "size and fingerprint of pictures": "pipeline.conversion.convert:_pixels",
    "rows into shards": "cache:SplitWriter.append",
    "commit": "cache:SplitWriter.commit",
}
READING: Final[Mapping[str, Mapping[str, str]]] = {
    "penn_action": {
        "parsing .mat": "pipeline.datasets.penn_action:load_mat",
        "listing pictures": "pipeline.pixels.frames:Pictures.indices",
    },
    "posetrack": {"parsing JSON": "pipeline.formats.coco:load_json"},
    "insta_variety": {"checking and parsing records": "pipeline.pixels.records:Records.example"},
    "kinetics": {
        "parsing JSON": "pipeline.formats.detections:load_json",
        "linking people": "pipeline.datasets.people:link",
        "opening the video": "pipeline.pixels.frames:Video.header",
        "decoding its first frame": "pipeline.pixels.frames:Video.require_decodable",
    },
    "mpi_inf_3dhp": {"parsing .mat": "pipeline.datasets.mpi_inf_3dhp:load_mat"},
    "h36m": {
        "parsing CDF": "pipeline.datasets.h36m:load_cdf",
        "opening the video": "pipeline.pixels.frames:Video.header",
        "decoding its first frame": "pipeline.pixels.frames:Video.require_decodable",
    },
    "3dpw": {"the body model": "pipeline.body:Body.forward"},
    "amass": {
        "parsing .npz": "pipeline.datasets.amass:load_npz",
        "resampling": "pipeline.datasets.amass:resample_rotations",
    },
}
NOT_PLAIN: Final = (  # stages of which a plain script has nothing
    "listing what is there",
    "fingerprints of raw files",
    "size and fingerprint of pictures",
    "commit",
)
REASONS: Final[Mapping[str, str]] = {
    "3dpw": "Nearly all of the rest is the body model, and the plain script calls the same.",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One process from its start to its end."""

    seconds: float
    peak: float  # MiB: proportional set sizes of the process and those it started, added up


@dataclass(slots=True)
class Measured:
    """A dataset at one size."""

    name: str
    n_videos: int
    rows: int = 0  # person-frames that both keep
    runs: dict[str, Run] = field(default_factory=dict)  # by WAYS
    stages: dict[str, float] = field(default_factory=dict)  # share of the time of one process

    def speed(self, way: str) -> float:
        """Person-frames per second."""
        return self.rows / self.runs[way].seconds

    def ratio(self, way: str) -> float:
        return self.runs["plain"].seconds / self.runs[way].seconds


def main() -> None:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=list(LARGE), default=list(LARGE))
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of videos")
    parser.add_argument("--frames", type=int, help="a video, where it is made as long as the release's; for a trial")
    parser.add_argument("--full", action="store_true", help="AMASS's 10,000 motions too (two minutes)")
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; a temporary one by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/convert.md")
    parser.add_argument("--stages", nargs=3, metavar=("DATASET", "RAW", "WORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stages:
        print(json.dumps(stages(*args.stages)))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        writing.write_body(work / "body")
        measured = [measure(work, name, args.scale, args.frames) for name in args.datasets]
        full = [measure_ours(work, "amass", raw_at_scale.FULL["amass"])] if args.full else []
    args.out.write_text(report(measured, full))
    print(args.out)


def measure(work: Path, name: str, scale: float, n_frames: int | None) -> tuple[Measured, Measured]:
    """A dataset at 4 N, and at N."""
    seed = raw_at_scale.seed_of(name, work / "seeds")
    both = []
    for share in (4, 1):
        found = Measured(name, max(2, round(LARGE[name] * scale / share)))
        raw = raw_at_scale.write(name, seed, work / "raw" / name, found.n_videos, n_frames)
        for way in WAYS:
            found.runs[way] = run(command(way, name, raw, work))
        found.rows = compare(name, work)
        if share == 1:  # of 4 N
            found.stages = json.loads(subprocess.check_output(stages_command(name, raw, work), cwd=ROOT))
        forget(work, raw)
        both.append(found)
        print(one_line(found), flush=True)
    small, large = both
    return large, small


def measure_ours(work: Path, name: str, n_videos: int) -> Measured:
    """A dataset at full size, without the plain script."""
    found = Measured(name, n_videos)
    raw = raw_at_scale.write(name, raw_at_scale.seed_of(name, work / "seeds"), work / "raw" / name, n_videos)
    for way in WAYS[1:]:
        found.runs[way] = run(command(way, name, raw, work))
    found.rows = cache.open(work / "cache")[f"{name}/train"].manifest["rows"]
    forget(work, raw)
    print(one_line(found), flush=True)
    return found


def command(way: str, name: str, raw: Path, work: Path) -> list[str]:
    """What is measured. What an earlier run left behind is removed."""
    body = [str(work / "body")] if datasets.get(name).uses_body else []
    if way == "plain":
        return [sys.executable, str(ROOT / "benchmarks/plain_scripts.py"), name, str(raw), str(work / "plain"), *body]
    shutil.rmtree(work / "cache", ignore_errors=True)
    options = ["--raw", str(raw), "--cache", str(work / "cache"), "--workers", way.split()[1]]
    options += ["--body", *body] if body else []
    return [sys.executable, "-m", "pipeline", "convert", name, "train", *options]


def run(order: Sequence[str]) -> Run:
    """Start it, look at the memory until it ends."""
    began = time.perf_counter()
    process = subprocess.Popen(order, stdout=subprocess.DEVNULL, cwd=ROOT)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(map(proportional_set, family(process.pid))))
        time.sleep(LOOK_EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(order)} ended with {process.returncode}")
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


def compare(name: str, work: Path) -> int:
    """The number of rows, after making sure that both have the same, and the same numbers in them."""
    plain, split = joblib.load(work / "plain"), cache.open(work / "cache")[f"{name}/train"]
    rows = [(track.start, track.stop) for track in split.tracks]
    n_rows = sum(stop - start for start, stop in rows)
    if len(plain["frame_id"]) != n_rows:
        raise SystemExit(f"{name}: {len(plain['frame_id'])} rows by the plain script, {n_rows} by the pipeline")
    for column in sorted(set(COLUMNS) & plain.keys() & set(split.columns)):
        ours = [np.asarray(split.rows(column, start, stop), np.float64) for start, stop in rows]
        sums = [float(plain[column].sum(dtype=np.float64)), sum(float(part.sum()) for part in ours)]
        size = float(np.abs(plain[column]).sum(dtype=np.float64))
        if abs(sums[0] - sums[1]) > 1e-6 * size:
            raise SystemExit(f"{name}: {column} adds up to {sums[0]} by the plain script, to {sums[1]} by the pipeline")
    return n_rows


def forget(work: Path, raw: Path) -> None:
    (work / "plain").unlink(missing_ok=True)
    for folder in (work / "cache", raw):
        shutil.rmtree(folder, ignore_errors=True)


def stages_command(name: str, raw: Path, work: Path) -> list[str]:
    return [sys.executable, __file__, "--stages", name, str(raw), str(work)]


def stages(name: str, raw: str, work: str) -> dict[str, float]:
    """Share of each part in the time of a conversion by one process, imports left out."""
    dataset, watch = datasets.get(name), Stopwatch()
    for stage, place in (*STAGES.items(), *READING[name].items()):
        holder, attribute = found_at(place)
        setattr(holder, attribute, watch.watched(stage, getattr(holder, attribute)))
    root, body = Path(work, "cache of stages"), Path(work, "body") if dataset.uses_body else None
    convert = watch.watched("rest", importlib.import_module("pipeline.conversion.convert").convert)
    plan = watch.watched("rest", importlib.import_module("pipeline.conversion.plan").plan_conversion)
    convert(plan(dataset, "train", raw=Path(raw), root=root, body=body))
    shutil.rmtree(root)
    whole = sum(watch.spent.values())
    return {stage: seconds / whole for stage, seconds in watch.spent.items()}


def found_at(place: str) -> tuple[Any, str]:
    """ "module:Class.method" -> the class and "method"."""
    module, _, path = place.partition(":")
    *holders, attribute = path.split(".")
    return functools.reduce(getattr, holders, importlib.import_module(module)), attribute


class Stopwatch:
    """Adds up the time that calls take, less that of watched calls within them."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._within = [0.0]  # s of finished calls within each of the open ones

    def watched(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.spent[stage] = self.spent.get(stage, 0.0) + took - self._within.pop()
                self._within[-1] += took

        return call


def one_line(found: Measured) -> str:
    told = [f"{way} {r.seconds:.1f} s {r.peak:.0f} MiB" for way, r in found.runs.items()]
    return f"{found.name} {found.n_videos} videos {found.rows} rows: {', '.join(told)}"


def report(measured: Sequence[tuple[Measured, Measured]], full: Sequence[Measured]) -> str:
    """What was measured, on what, ratios first."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB"
    reached = [large.name for large, _ in measured if large.ratio(WAYS[2]) >= GOAL]
    lines = [
        "# How fast is conversion, and does its memory stay flat?",
        "",
        "STAND-IN data in the official layouts, in the releases' lengths: it says nothing about the datasets. Made by",
        "`.venv/bin/python benchmarks/convert.py --full`; what is compared, and how, stands at its beginning.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}. One run each: wall time of the whole command, its start included; files were written "
        "just before, so that they lie in memory. Memory is the largest sum of proportional set sizes (PSS) of all its "
        f"processes, looked at every {1000 * LOOK_EVERY:.0f} ms.",
        "",
        f"The goal, {GOAL:.0f} times the plain script's speed with two processes, is reached for "
        f"{', '.join(reached) or 'none'}.",
        "",
        "## Speed, at 4 N videos",
        "",
        "| dataset | two processes : plain | one : plain | videos | person-frames | plain/s | one process/s | two/s | "
        "plain s | one s | two s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(speed_line(large) for large, _ in measured),
        "",
        "## Memory, from N to 4 N videos",
        "",
        "Times as much at 4 N as at N. The pipeline starts a second process only where that pays, which may be at 4 N "
        "alone, so that growth is told of one process.",
        "",
        "| dataset | plain | one process | plain MiB | one process MiB | two MiB |",
        "|---|---|---|---|---|---|",
        *(memory_line(large, small) for large, small in measured),
        "",
        *full_size([*(large for large, _ in measured if large.name == "penn_action"), *full]),
        *where_time_goes(measured),
    ]
    return "\n".join(lines)


def speed_line(found: Measured) -> str:
    ratios = f"**{found.ratio(WAYS[2]):.1f}** | {found.ratio(WAYS[1]):.1f}"
    speeds = " | ".join(f"{found.speed(way):,.0f}" for way in WAYS)
    seconds = " | ".join(f"{found.runs[way].seconds:.1f}" for way in WAYS)
    return f"| {found.name} | {ratios} | {found.n_videos:,} | {found.rows:,} | {speeds} | {seconds} |"


def memory_line(large: Measured, small: Measured) -> str:
    grows = " | ".join(f"{large.runs[way].peak / small.runs[way].peak:.2f}" for way in WAYS[:2])
    peaks = " | ".join(f"{small.runs[way].peak:.0f} -> {large.runs[way].peak:.0f}" for way in WAYS)
    return f"| {large.name} | {grows} | {peaks} |"


def full_size(found: Sequence[Measured]) -> list[str]:
    lines = ["## At full size", "", "| dataset | videos | person-frames | one process | two |", "|---|---|---|---|---|"]
    for one in found:
        runs = " | ".join(f"{one.runs[way].seconds:.0f} s, {one.runs[way].peak:.0f} MiB" for way in WAYS[1:])
        lines.append(f"| {one.name} | {one.n_videos:,} | {one.rows:,} | {runs} |")
    return [*lines, ""]


def where_time_goes(measured: Sequence[tuple[Measured, Measured]]) -> list[str]:
    """What one process does with its time, and what that means where the goal is not reached."""
    lines = ["## Where the time of one process goes", "", "Start and imports left out, at 4 N.", ""]
    for large, _ in measured:
        shares = sorted(large.stages.items(), key=lambda item: -item[1])
        told = ", ".join(f"{stage} {100 * share:.0f}%" for stage, share in shares if share >= 0.005)
        lines.append(f"- **{large.name}** ({large.ratio(WAYS[2]):.1f}): {told}.{why(large)}")
    return [*lines, ""]


def why(found: Measured) -> str:
    """The reason why the goal is not reached; nothing where it is."""
    if found.ratio(WAYS[2]) >= GOAL:
        return ""
    alone = sum(found.stages.get(stage, 0.0) for stage in NOT_PLAIN)
    best = 2 * found.ratio(WAYS[1]) / (1 - alone)
    told = (
        f" {100 * alone:.0f}% is work that the plain script leaves undone; without that, and with nothing lost between "
        f"two processes, the ratio would be {best:.1f}."
    )
    return f"{told} {REASONS[found.name]}" if found.name in REASONS else told


if __name__ == "__main__":
    main()
