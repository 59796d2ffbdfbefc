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

import numpy as np

import cache
from benchmarks.common import write_split
from cache.format import layout
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.records import VideoRecord
from cache.format.tables import Tables
from cache.write import base
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.files.raw import MARKER
from pipeline.files.raw import changes as inputs
from pipeline.steps.conversion.identity import reader_parts
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.extraction.plan import plan_extraction
from pipeline.steps.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, in_a_process, parser, peak_mib, report, table

SIZES: Final = (10_000, 100_000, 1_000_000)  # tracks
SPLITS: Final = {"train": 1.0, "val": 0.01}  # of the number of tracks; Luigi wants both
NAME: Final = "kinetics/train"
ROWS: Final = 128  # a track: five seconds at 25 a second, and a whole number of tracks a shard
TRACKS: Final = 4  # a video
SHARD: Final = layout.ROWS_PER_SHARD // (TRACKS * ROWS)  # videos
CLASSES: Final = 400
LINKS: Final = 30_000  # names of one file, of the 65,000 that ext4 allows
DIM: Final = 2048

RESNET50: Final = ResNet50(weights=WeightsSpec("untrained", "0"))
KINETICS: Final = datasets.get("kinetics")

# Each is measured in its own process: the cache and the raw folder -> the call.
CALLS: Final[Mapping[str, Callable[[Path, Path], Callable[[], Any]]]] = {
    "cache.open(root)[name]": lambda root, _: lambda: cache.open(root)[NAME],
    "split.windows(16, 16)": lambda root, _: partial(cache.open(root)[NAME].windows, 16, 16),
    'split.windows(16, 16, stream="resnet50")': lambda root, _: partial(
        cache.open(root)[NAME].windows, 16, 16, stream="resnet50"
    ),
    "plan_conversion(...)": lambda root, raw: partial(
        plan_conversion, Recipe(KINETICS, "train", raw, root)
    ),
    "plan_extraction(...)": lambda root, _: partial(
        plan_extraction, root, NAME, StreamSpec(stream=RESNET50)
    ),
}
COMMANDS: Final = (".venv/bin/python -m pipeline plan", "luigi Data, nothing to do")


class _Figure(NamedTuple):
    """Cost of one call or command."""

    seconds: float
    cpu: float  # s, of this process only: other programs do not count
    peak: float  # MiB: the largest resident set, mapped tables included


def _measure(folder: Path, n_tracks: int) -> tuple[str, dict[str, _Figure]]:
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
    figures = {call: in_a_process(_call_figure, call, root, raw) for call in CALLS}
    plan = [sys.executable, "-m", "pipeline", "plan", NAME]
    luigi = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", "Data"]
    for name, command in zip(COMMANDS, (plan, luigi), strict=True):
        figures[name] = _command_figure(command, "up to date", folder)
    return size, figures


def _call_figure(call: str, root: Path, raw: Path) -> _Figure:
    """Time one of CALLS in this process."""
    work = CALLS[call](root, raw)
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    figure = _Figure(time.perf_counter() - began, time.process_time() - cpu, peak_mib())
    if call.startswith("plan") and not result.up_to_date:
        raise SystemExit(f"{call}: expected nothing to do, found: {result.why}")
    return figure


def _command_figure(command: Sequence[str], expected: str, folder: Path) -> _Figure:
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
    return _Figure(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


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
                    _drop(files)
                started = time.perf_counter()
                way()
                times.append(time.perf_counter() - started)
            best.append(megabytes / min(times))
        cat, verify = best
        yield (state, f"{cat:,.0f}", f"{verify:,.0f}", f"**{verify / cat:.2f}**")


def _drop(files: Sequence[Path]) -> None:
    """Drop files from memory."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tracks(args: argparse.Namespace, work: Path) -> Iterator[str]:
    """All sizes, and `verify` compared with `cat`."""
    sizes = [_measure(work / str(n), n) for n in args.tracks]
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
    _write_template(work / "verified", NAME, args.rows)
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
        report(
            "SIMULATED data: no result about a dataset.",
            "How do times and memory grow, up to a million tracks?",
            lines,
            args,
        )


def make(folder: Path, split: str, n_tracks: int) -> None:
    """Write raw/kinetics with the clips of one split, and a cache made from it, with features.

    It has at least `n_tracks` tracks, in whole shards.
    """
    raw = folder / "raw/kinetics"
    root = folder / "cache"
    videos = list(_make_raw(raw, split, -(-n_tracks // (SHARD * TRACKS)) * SHARD))
    _make_cache(root, raw, split, videos)
    (folder / "luigi.cfg").write_text(
        f"[paths]\nraw = {folder / 'raw'}\nbody = body\ncache = {root}\nruns = "
        "runs\n[data]\ndatasets = kinetics\n[core]\nlocal_scheduler = true\nautoload_range = "
        f"false\nlock_pid_dir = {folder / 'locks'}\n"
    )


def _make_raw(raw: Path, split: str, n_videos: int) -> Iterator[str]:
    """Write a clip and AlphaPose's file for each video. Yield the videos' names, ascending."""
    raw.mkdir(parents=True, exist_ok=True)
    (raw / MARKER).write_text("{}\n")
    per_class = -(-n_videos // min(CLASSES, n_videos))
    sources: dict[str, Path] = {}
    for i in range(n_videos):
        label = f"class_{i // per_class:03d}"
        clip = f"{i:011d}_000000_000010"
        (raw / split / label).mkdir(parents=True, exist_ok=True)
        (raw / "keypoints" / split / clip).mkdir(parents=True)
        for name, content in (
            (f"{split}/{label}/{clip}.mp4", "a clip"),
            (f"keypoints/{split}/{clip}/{clip}.json", "[]"),
        ):
            if i % LINKS == 0:
                sources[content] = raw / name
                (raw / name).write_text(content)
            else:
                os.link(sources[content], raw / name)
        yield f"{split}/{label}/{clip}"


def _make_cache(root: Path, raw: Path, split: str, videos: Sequence[str]) -> None:
    """A committed split with one stream: one shard is written, the others are links to it."""
    name = f"kinetics/{split}"
    extent = len(videos) * TRACKS * ROWS
    written = _write_template(root, name, layout.ROWS_PER_SHARD)
    listed = KINETICS.videos(raw, split)
    if [video.name for video in listed] != list(videos):
        raise SystemExit(f"{raw}: the reader lists other videos than were made")
    digests = [inputs.video_digest(raw, video) for video in listed]
    accounts = []
    for video in videos:
        accounts.append(VideoAccount(video, found=TRACKS * ROWS))
        for _ in range(TRACKS):
            accounts[-1].keep_track(ROWS)
    described = [
        _video_record(video, digest, account, number * TRACKS * ROWS)
        for number, (video, digest, account) in enumerate(
            zip(videos, digests, accounts, strict=True)
        )
    ]
    own = {column: layout.COLUMNS[column] for column in KINETICS.columns(split, body=False)}
    published = publish(
        Place(cache.store_at(root), name),
        {
            "rows": extent,
            "tracks": len(videos) * TRACKS,
            "videos": len(videos),
            "extent": extent,
            "commits": [[0, extent]],
            "shards": {
                column: linked(root / name / column, extent, written, spec)
                for column, spec in own.items()
            },
            "reader": reader_parts(KINETICS, split, raw, None),
            "stand_in": True,
            "accounting": Accounting(accounts).totals(),
        },
        Tables.from_records(described),
    )
    _publish_stream(root, name, published, written)
    stamps = {
        video.name: inputs.LastReading(inputs.stamp(raw, video), digest)
        for video, digest in zip(listed, digests, strict=True)
    }
    inputs.write_stamps(root, name, stamps)


def _publish_stream(
    root: Path, name: str, split: Mapping[str, Any], written: Mapping[str, Mapping[str, str]]
) -> None:
    """Commit the stream of a split, whose manifest is given, with its shards linked."""
    extent = split["extent"]
    committed = Commit.empty(Place(cache.store_at(root), name), split)
    arrays = layout.StreamForm(DIM).columns("resnet50")
    below = root / name / layout.FEATURES
    publish(
        Place(cache.store_at(root), name, "resnet50"),
        {
            "extent": extent,
            "commits": [[0, extent]],
            "split_digest": split["digest"],
            "rows": {
                str(shard): committed.rows_record(shard)
                for shard in range(layout.Geometry().shards(extent))
            },
            "shards": {
                array: linked(below / array, extent, written, spec)
                for array, spec in arrays.items()
            },
        },
        Tables(),
    )


def _video_record(video: str, digest: str, account: VideoAccount, start: int) -> VideoRecord:
    """The record that a conversion writes for a video."""
    track = {"step": 1, "fps": 25.0, "crop_scale": 1.3, "gender": "neutral", "intrinsics": None}
    stop = start + TRACKS * ROWS
    tracks = [
        {
            **track,
            "name": f"{video}/{k}",
            "start": row,
            "stop": row + ROWS,
            "runs": [(row, row + ROWS)],
        }
        for k, row in enumerate(range(start, stop, ROWS))
    ]
    return VideoRecord(
        name=video,
        source=f"video:{video}.mp4",
        pixels=digest[::-1],
        width=340,
        height=256,
        fingerprint=digest,
        account=account.as_dict(),
        tracks=tracks,
        stop=stop,
        key=digest,
    )


def _write_template(root: Path, name: str, n_rows: int) -> dict[str, dict[str, str]]:
    """Write a small cache in the usual way. Return its records, by array and shard."""
    columns = KINETICS.columns("train", body=False)
    rows: dict[str, Any] = {}
    for column in columns:
        spec = layout.COLUMNS[column]
        one_shard = np.arange(layout.ROWS_PER_SHARD, dtype=spec.dtype).reshape(
            -1, *[1] * len(spec.shape)
        )
        rows[column] = np.resize(one_shard, (n_rows, *spec.shape))
    rows["frame_index"] = np.arange(n_rows)
    write_split(root, name, columns, [[rows]])
    form = cache.StreamForm(DIM)
    with cache.StreamWriter(root, name, "resnet50", form, plan="template") as stream:
        for shard in stream.shards.pending:
            n = len(stream.shards.rows(shard))
            stream.write(
                shard, np.zeros((n, DIM), np.float16), np.ones(n), np.zeros((n, 2), np.uint64)
            )
        stream.commit(
            {"identity": RESNET50.identity(), "backbone": {"stand_in": True}, "stand_in": True}
        )
    split = cache.open(root)[name]
    return {**split.manifest["shards"], **split.open_stream("resnet50").manifest["shards"]}


def linked(
    array: Path, extent: int, written: Mapping[str, Mapping[str, str]], spec: layout.Column
) -> dict[str, str]:
    """Link an array's shards of `extent` rows to the first one. Return their records."""
    shards = range(extent // layout.ROWS_PER_SHARD)
    first, *others = (Path(layout.shard_key(str(array), shard, spec.shape)) for shard in shards)
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, file)
    return {str(shard): written[array.name]["0"] for shard in shards}


def publish(place: Place, entries: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Commit other entries and tables, as a writer does."""
    before = Commit.load(place)
    assert before is not None
    unchanged = {key: value for key, value in before.manifest.items() if key != "digest"}
    return base.publish(
        place,
        {**unchanged, **entries},
        tables,
        before=before,
        note={},
        started=time.time(),
        keep_staged=False,
    )


if __name__ == "__main__":
    main()
