"""How long do opening, windows, `plan` and a run with nothing to do take, up to a million tracks and 10^8 rows?

    .venv/bin/python benchmarks/scale.py

For 10^4, 10^5 and 10^6 tracks of 128 rows, four to a video (Kinetics-400 has 250,000 videos): a raw folder in its
layout, and a cache that was made from it. What is made up: all clips are one file under many names, and so are all
shards of a column, so that ten terabytes take seconds and no room. What is true: every name, size, digest, checksum
and record in manifests, tables and shards; a small cache is verified to show it. Nothing is decoded or converted.

Each figure is of a fresh process that finds all files in memory, since they were just written. Writes
benchmarks/scale.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from cache.format import layout, manifest, tables
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.conversion.plan import reader_parts
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.raw import changes as inputs
from pipeline.raw.stand_in import MARKER

ROOT: Final = Path(__file__).parents[1]
SIZES: Final = (10_000, 100_000, 1_000_000)  # tracks
ROWS: Final = 128  # a track: five seconds at 25 a second, and a whole number of tracks a shard
TRACKS: Final = 4  # a video
CLASSES: Final = 400
LINKS: Final = 30_000  # names of one file, of the 65,000 that ext4 allows
DIM: Final = 2048
SPLITS: Final = {"train": 1.0, "val": 0.01}  # of the number of tracks; Luigi wants both
GOAL: Final = 10.0  # s: "in seconds"
LOOK_EVERY: Final = 0.02  # s, at the memory of a command

# What is measured in one process, in order: name -> what it calls, given a split and what went before.
CALLS: Final[Mapping[str, str]] = {
    "open": "cache.open(root)[name]",
    "windows(16, 16)": "split.windows(16, 16)",
    "windows(16, 16, stream)": 'split.windows(16, 16, stream="resnet50")',
    "plan of the conversion": "plan_conversion(...)",
    "plan of the extraction": "plan_extraction(...)",
}
COMMANDS: Final = ("python -m pipeline plan", "luigi Data, nothing to do")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was done once."""

    seconds: float
    cpu: float  # s, of this process alone: other people's work does not count
    peak: float  # MiB: the largest resident set, mapped tables included


@dataclass(slots=True)
class Size:
    """One number of tracks, and everything that was measured of it."""

    n_tracks: int
    n_rows: int = 0
    n_videos: int = 0
    n_shards: int = 0
    n_windows: int = 0
    made: float = 0.0  # s
    small_files: float = 0.0  # MiB: tables and manifests
    figures: dict[str, Figure] = field(default_factory=dict)


def main() -> None:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; a temporary one by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/scale.md")
    parser.add_argument("--measure", nargs=3, metavar=("CALL", "ROOT", "RAW"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured_here(*args.measure)))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        args.out.write_text(report([measure(Path(folder) / str(n), n) for n in args.tracks]))
        print(f"{args.out}; millions of files are being removed", flush=True)


def measure(folder: Path, n_tracks: int) -> Size:
    """Make a cache of one size, and ask it everything."""
    size = Size(n_tracks)
    started = time.perf_counter()
    for split, share in SPLITS.items():
        make(folder, split, max(TRACKS, int(n_tracks * share)))
    size.made = time.perf_counter() - started
    name = "kinetics/train"
    held = cache.open(folder / "cache")[name].manifest
    size.n_rows, size.n_videos, size.n_shards = held["rows"], held["videos"], len(held["shards"]["frame_index"])
    below = folder / "cache" / name
    size.small_files = sum((below / file).stat().st_size for file in (*held["files"], layout.MANIFEST)) / 2**20
    for call in CALLS:
        command = [sys.executable, __file__, "--measure", call, str(folder / "cache"), str(folder / "raw/kinetics")]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size.figures[call] = Figure(told["seconds"], told["cpu"], told["peak"])
        size.n_windows = told["windows"] or size.n_windows
    where = ["--raw", str(folder / "raw/kinetics"), "--cache", str(folder / "cache"), "--weights", "untrained:0"]
    size.figures[COMMANDS[0]] = command_figure(
        [sys.executable, "-m", "pipeline", "plan", "kinetics", "train", *where], "nothing to do", folder
    )
    size.figures[COMMANDS[1]] = command_figure(
        [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "Data", "--local-scheduler"],
        "up to date",
        folder,
    )
    for call, figure in size.figures.items():
        print(
            f"{n_tracks:>9,} tracks  {call:<28} {figure.seconds:8.2f} s {figure.cpu:8.2f} s  {figure.peak:7.0f} MiB",
            flush=True,
        )
    return size


def command_figure(command: Sequence[str], expected: str, folder: Path) -> Figure:
    """A whole command, its start included. Ends the benchmark when it does anything but say that nothing is to do."""
    environment = {
        **os.environ,
        "LUIGI_CONFIG_PATH": str(folder / "luigi.cfg"),
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, high_water_mark(process.pid))
            time.sleep(LOOK_EVERY)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        shown = output.read()
    if process.returncode != 0 or expected not in shown or "convert " in shown.replace("· convert ", ""):
        raise SystemExit(f"{' '.join(command)}: expected {expected!r}, found exit code {process.returncode}: {shown}")
    return Figure(seconds, used.ru_utime + used.ru_stime, peak)


def high_water_mark(process: int | str) -> float:
    """MiB: the largest resident set that a process has had since its start; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return found[0] / 1024 if found else 0.0


def measured_here(call: str, root: str, raw: str) -> dict[str, Any]:
    """One of CALLS in this process: {seconds, peak in MiB, windows}."""
    from pipeline.conversion import plan
    from pipeline.features import extract

    name = "kinetics/train"
    split = cache.open(root)[name] if call.startswith("windows") else None
    spec = StreamSpec(stream=ResNet50(weights=WeightsSpec("untrained", "0")))
    kinetics = datasets.get("kinetics")
    todo: dict[str, Callable[[], Any]] = {
        "open": lambda: cache.open(root)[name],
        "windows(16, 16)": lambda: split.windows(16, 16) if split else None,
        "windows(16, 16, stream)": lambda: split.windows(16, 16, stream="resnet50") if split else None,
        "plan of the conversion": lambda: plan.plan_conversion(kinetics, "train", raw=Path(raw), root=Path(root)),
        "plan of the extraction": lambda: extract.plan_extraction(Path(root), name, spec),
    }
    started, worked = time.perf_counter(), time.process_time()
    found = todo[call]()
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    if call.startswith("plan") and not found.up_to_date:
        raise SystemExit(f"{call}: expected nothing to do, found: {found.why}")
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": high_water_mark("self"),
        "windows": len(found) if call.startswith("windows") else None,
    }


# ------------------------------------------------------------------------------------------- what is measured on


def make(folder: Path, split: str, n_tracks: int) -> None:
    """raw/kinetics with the clips of one split, and a cache made from it, complete with features."""
    raw, root = folder / "raw/kinetics", folder / "cache"
    videos = list(make_raw(raw, split, n_tracks // TRACKS))
    make_cache(root, raw, split, videos)
    (folder / "luigi.cfg").write_text(
        f"[paths]\nraw = {folder / 'raw'}\nbody = body\ncache = {root}\nruns = runs\n[data]\ndatasets = kinetics\n"
        f"[core]\nautoload_range = false\nlock_pid_dir = {folder / 'locks'}\n"
    )


def make_raw(raw: Path, split: str, n_videos: int) -> Iterator[str]:
    """Clips and AlphaPose's files, one each a video. Gives the videos' names, ascending."""
    raw.mkdir(parents=True, exist_ok=True)
    (raw / MARKER).write_text("{}\n")
    links = Links(raw)
    n_classes = min(CLASSES, n_videos)
    per_class = -(-n_videos // n_classes)
    for i in range(n_videos):
        label, clip = f"class_{i // per_class:03d}", f"{i:011d}_000000_000010"
        if i % per_class == 0:
            (raw / split / label).mkdir(parents=True)
            (raw / f"keypoints/{split}").mkdir(parents=True, exist_ok=True)
        os.mkdir(f"{raw}/keypoints/{split}/{clip}")  # noqa: PTH102 - a quarter of a million of them
        links.put(b"a clip", f"{raw}/{split}/{label}/{clip}.mp4")
        links.put(b"[]", f"{raw}/keypoints/{split}/{clip}/{clip}.json")
        yield f"{split}/{label}/{clip}"


class Links:
    """Small files under many names: hard links to one, to another one when that has too many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[bytes, tuple[str, int]] = {}

    def put(self, content: bytes, name: str) -> None:
        copy, left = self._copies.get(content, ("", 0))
        if left:
            os.link(copy, name)
        else:
            Path(name).write_bytes(content)
            copy, left = name, LINKS
        self._copies[content] = (copy, left - 1)


def make_cache(root: Path, raw: Path, split: str, videos: Sequence[str]) -> None:
    """A committed split with one stream: one full shard and the last one written, the others linked to the first."""
    name = f"kinetics/{split}"
    n_rows = len(videos) * TRACKS * ROWS
    full, rest = divmod(n_rows, layout.ROWS_PER_SHARD)
    written = write_template(root, name, min(full, 1) * layout.ROWS_PER_SHARD + rest)
    dataset = datasets.get("kinetics")
    listed = dataset.videos(raw, split)
    if [video.name for video in listed] != list(videos):
        raise SystemExit(f"{raw}: the reader lists other videos than were made")
    digests = [inputs.video_digest(raw, video) for video in listed]
    accounts = [account(video) for video in videos]
    files = tables_of(videos, digests, accounts).to_files()
    extent, geometry = n_rows, layout.Geometry()
    own = {name: layout.COLUMNS[name] for name in dataset.columns(split, body=False)}
    files |= {f"{column}/zarr.json": layout.column_metadata(spec, extent, geometry) for column, spec in own.items()}
    changes = {
        "rows": n_rows,
        "tracks": len(videos) * TRACKS,
        "videos": len(videos),
        "extent": extent,
        "commits": [[0, extent]],
        "shards": {column: linked(root / name / column, full, rest, written, spec) for column, spec in own.items()},
        "reader": reader_parts(dataset, split, raw, None),
        "stand_in": True,
        "accounting": Accounting(accounts).totals(),
    }
    sealed = publish(manifest.Place.of_split(cache.store_at(root), name), changes, files)
    streams = layout.stream_columns("resnet50", DIM, "float16")
    below = root / name / layout.FEATURES
    metadata = {f"{array}/zarr.json": layout.column_metadata(spec, extent, geometry) for array, spec in streams.items()}
    publish(
        manifest.Place.of_stream(cache.store_at(root), name, "resnet50"),
        {
            "extent": extent,
            "commits": [[0, extent]],
            "split_digest": sealed["digest"],
            "rows": {str(shard): manifest.rows_record(sealed, shard) for shard in range(geometry.shards(extent))},
            "shards": {array: linked(below / array, full, rest, written, spec) for array, spec in streams.items()},
        },
        metadata,
    )
    seen = {video.name: (inputs.stamp(raw, video), digest) for video, digest in zip(listed, digests, strict=True)}
    inputs.write_stamps(root, name, seen)


def write_template(root: Path, name: str, n_rows: int) -> dict[str, dict[str, str]]:
    """A small cache written as every cache is: at most two shards. Returns its records, by array and shard."""
    columns = datasets.get("kinetics").columns("train", body=False)
    rows = {
        column: np.resize(
            np.arange(layout.ROWS_PER_SHARD, dtype=layout.COLUMNS[column].dtype).reshape(-1, *[1] * len(trailing)),
            (n_rows, *trailing),
        )
        for column in columns
        for trailing in [layout.COLUMNS[column].trailing]
    }
    rows["frame_index"] = np.arange(n_rows)
    track = cache.TrackRows(name="a/0", video="a", step=1, fps=25.0, crop_scale=1.3, columns=rows)
    with cache.SplitWriter(root, name, columns=columns, plan="template") as writer:
        writer.begin()
        writer.append(cache.VideoEntry(name="a"), [track])
        writer.commit({})
    with cache.StreamWriter(root, name, "resnet50", dim=DIM, plan="template") as stream:
        for shard in stream.pending:
            n = len(stream.rows(shard))
            stream.write(shard, np.zeros((n, DIM), np.float16), np.ones(n), np.zeros((n, 2), np.uint64))
        identity = StreamSpec(stream=ResNet50(weights=WeightsSpec("untrained", "0"))).identity()
        stream.commit({"identity": identity, "backbone": {"stand_in": True}, "stand_in": True})
    split = cache.open(root)[name]
    return {**split.manifest["shards"], **split.stream_manifest("resnet50")["shards"]}


def linked(
    array: Path, full: int, rest: int, written: Mapping[str, Mapping[str, str]], spec: layout.ColumnSpec
) -> dict[str, str]:
    """The records of an array's shards; those from 1 to `full` - 1 become links to the first, the last moves behind."""
    records = written[array.name]
    first = shard_file(array, 0, spec)
    found = {str(shard): records["0"] for shard in range(full)}
    if full > 1 and rest:
        last = shard_file(array, full, spec)
        last.parent.mkdir(parents=True, exist_ok=True)
        shard_file(array, 1, spec).rename(last)
    for shard in range(1, full):
        file = shard_file(array, shard, spec)
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, file)
    return found | ({str(full): records["1" if full else "0"]} if rest else {})


def shard_file(array: Path, shard: int, spec: layout.ColumnSpec) -> Path:
    return Path(layout.shard_key(str(array), shard, spec.trailing))


def publish(place: manifest.Place, changes: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Commit other entries and small files in the place of those that are there, as a writer does."""
    found = manifest.read_manifest(place)
    assert found is not None
    held, tag = found
    named = {"files": {name: manifest.sha256(data) for name, data in files.items()}}
    sealed = manifest.with_digest(
        {**{key: value for key, value in held.items() if key != "digest"}, **changes, **named}
    )
    manifest.publish(place, sealed, files, expected=tag)
    return sealed


def account(video: str) -> VideoAccount:
    made = VideoAccount(video, found=TRACKS * ROWS)
    for _ in range(TRACKS):
        made.keep_track(ROWS)
    return made


def tables_of(videos: Sequence[str], digests: Sequence[str], accounts: Sequence[VideoAccount]) -> tables.Tables:
    """Every table, as a conversion writes them."""
    n = len(videos) * TRACKS
    start = np.arange(n) * ROWS
    texts = [cache_json(account.as_dict()) for account in accounts]
    numbers: dict[str, Any] = {
        "track_video": np.repeat(np.arange(len(videos)), TRACKS),
        "track_start": start,
        "track_stop": start + ROWS,
        "track_step": np.ones(n),
        "track_fps": np.full(n, 25.0),
        "track_crop_scale": np.full(n, 1.3),
        "track_intrinsics": np.full((n, 3, 3), np.nan),
        "run_start": start,
        "run_stop": start + ROWS,
        "video_width": np.full(len(videos), 340),
        "video_height": np.full(len(videos), 256),
        "video_account": np.frombuffer(b"".join(texts), np.uint8),
        "video_account_stop": np.cumsum([len(text) for text in texts]),
    }
    arrays = {key: np.asarray(numbers[key]).astype(dtype) for key, (dtype, _) in tables.TABLES.items()}
    columns = {
        "track_name": [f"{video}/{person}" for video in videos for person in range(TRACKS)],
        "track_gender": ["neutral"] * n,
        "video_name": videos,
        "video_source": [f"video:{video}.mp4" for video in videos],
        "video_pixels": [digest[::-1] for digest in digests],
        "video_fingerprint": digests,
    }
    return tables.Tables({**arrays, **{key: tables.encode_texts(values) for key, values in columns.items()}})


def cache_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# ---------------------------------------------------------------------------------------------------- the report


def report(sizes: Sequence[Size]) -> str:
    """benchmarks/scale.md."""
    return "\n".join([*head(sizes), *seconds(sizes), *memory(sizes), *what_was_made(sizes)]) + "\n"


def head(sizes: Sequence[Size]) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield "# How long do opening, windows, `plan` and a run with nothing to do take, up to a million tracks?"
    yield ""
    yield "SIMULATED data: clips and shards are each one file under many names; names, sizes, digests, tables and"
    yield "manifests are true. Made by `.venv/bin/python benchmarks/scale.py`; what is made up stands at its beginning."
    yield ""
    yield (
        f"{datetime.date.today()}, {cores} cores ({platform.machine()}), Python {platform.python_version()}, NumPy "
        f"{np.__version__}, a load of {os.getloadavg()[1]:.0f}. One run each, in a fresh process, with all files in "
        "memory. Seconds of a call are without Python's start and imports, those of a command with them."
    )
    yield ""
    largest = sizes[-1]
    slow = [call for call, figure in largest.figures.items() if figure.cpu > GOAL]
    told = f"all but {', '.join(slow)}" if slow else "all of it"
    yield f"The goal, at most {GOAL:.0f} s of CPU time at {largest.n_tracks:,} tracks, is reached by {told}."


def seconds(sizes: Sequence[Size]) -> Iterator[str]:
    yield "\n## Seconds\n"
    yield "By the clock, and in brackets of CPU time, which does not count what else ran on the machine."
    yield ""
    yield f"| | {' | '.join(f'{size.n_tracks:,} tracks' for size in sizes)} | CPU time, times as much |"
    yield f"|---|{'---|' * (len(sizes) + 1)}"
    for call in (*CALLS, *COMMANDS):
        found = [size.figures[call] for size in sizes]
        growth = ", ".join(f"{later.cpu / earlier.cpu:.1f}" for earlier, later in itertools.pairwise(found))
        told = " | ".join(f"{figure.seconds:.3g} ({figure.cpu:.3g})" for figure in found)
        yield f"| `{CALLS.get(call, call)}` | {told} | {growth} |"


def memory(sizes: Sequence[Size]) -> Iterator[str]:
    yield "\n## Peak memory, MiB\n"
    yield "The largest resident set, tables that are mapped included."
    yield ""
    yield f"| | {' | '.join(f'{size.n_tracks:,} tracks' for size in sizes)} |"
    yield f"|---|{'---|' * len(sizes)}"
    for call in (*CALLS, *COMMANDS):
        yield f"| `{CALLS.get(call, call)}` | {' | '.join(f'{size.figures[call].peak:,.0f}' for size in sizes)} |"


def what_was_made(sizes: Sequence[Size]) -> Iterator[str]:
    yield "\n## What it was measured on\n"
    yield "| tracks | rows | videos | shards a column | windows | tables and manifest, MiB | made in, s |"
    yield "|---|---|---|---|---|---|---|"
    for size in sizes:
        yield (
            f"| {size.n_tracks:,} | {size.n_rows:,} | {size.n_videos:,} | {size.n_shards:,} | {size.n_windows:,} | "
            f"{size.small_files:,.0f} | {size.made:.0f} |"
        )


if __name__ == "__main__":
    main()
