"""A raw folder and a cache of any size, in seconds and without space, to measure how commands grow.

All clips are one file under many names, and so are all shards of a column. All names, sizes,
digests, checksums and records in manifests, tables and shards are true, so that commands take the
cache for one that they made. `scale.py` measures it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from benchmarks.common import write_split
from cache.format import layout
from cache.format.manifest import Commit, rows_record
from cache.format.place import Place
from cache.format.tables import Tables
from cache.write import base
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.conversion.identity import reader_parts
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.files.raw import MARKER
from pipeline.files.raw import changes as inputs

ROWS: Final = 128  # a track: five seconds at 25 a second, and a whole number of tracks a shard
TRACKS: Final = 4  # a video
SHARD: Final = layout.ROWS_PER_SHARD // (TRACKS * ROWS)  # videos
CLASSES: Final = 400
LINKS: Final = 30_000  # names of one file, of the 65,000 that ext4 allows
DIM: Final = 2048

RESNET50: Final = ResNet50(weights=WeightsSpec("untrained", "0"))
KINETICS: Final = datasets.get("kinetics")


def make(folder: Path, split: str, n_tracks: int) -> None:
    """Write raw/kinetics with the clips of one split, and a cache made from it, with features.

    It has at least `n_tracks` tracks, in whole shards.
    """
    raw = folder / "raw/kinetics"
    root = folder / "cache"
    videos = list(make_raw(raw, split, -(-n_tracks // (SHARD * TRACKS)) * SHARD))
    make_cache(root, raw, split, videos)
    (folder / "luigi.cfg").write_text(
        f"[paths]\nraw = {folder / 'raw'}\nbody = body\ncache = {root}\nruns = "
        "runs\n[data]\ndatasets = kinetics\n[core]\nlocal_scheduler = true\nautoload_range = "
        f"false\nlock_pid_dir = {folder / 'locks'}\n"
    )


def make_raw(raw: Path, split: str, n_videos: int) -> Iterator[str]:
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


def make_cache(root: Path, raw: Path, split: str, videos: Sequence[str]) -> None:
    """A committed split with one stream: one shard is written, the others are links to it."""
    name = f"kinetics/{split}"
    extent = len(videos) * TRACKS * ROWS
    written = write_template(root, name, layout.ROWS_PER_SHARD)
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
        video_record(video, digest, account, number * TRACKS * ROWS)
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
    publish_stream(root, name, published, written)
    stamps = {
        video.name: inputs.Seen(inputs.stamp(raw, video), digest, "")
        for video, digest in zip(listed, digests, strict=True)
    }
    inputs.write_stamps(root, name, stamps)


def publish_stream(
    root: Path, name: str, split: Mapping[str, Any], written: Mapping[str, Mapping[str, str]]
) -> None:
    """Commit the stream of a split, whose manifest is given, with its shards linked."""
    extent = split["extent"]
    arrays = layout.stream_columns("resnet50", DIM, "float16")
    below = root / name / layout.FEATURES
    publish(
        Place(cache.store_at(root), name, "resnet50"),
        {
            "extent": extent,
            "commits": [[0, extent]],
            "split_digest": split["digest"],
            "rows": {
                str(shard): rows_record(split, shard)
                for shard in range(layout.Geometry().shards(extent))
            },
            "shards": {
                array: linked(below / array, extent, written, spec)
                for array, spec in arrays.items()
            },
        },
        Tables(),
    )


def video_record(video: str, digest: str, account: VideoAccount, start: int) -> dict[str, Any]:
    """The record that a conversion writes for a video."""
    track = {"step": 1, "fps": 25.0, "crop_scale": 1.3, "gender": "neutral", "intrinsics": None}
    starts = range(start, start + TRACKS * ROWS, ROWS)
    tracks = [
        {
            **track,
            "name": f"{video}/{k}",
            "start": row,
            "stop": row + ROWS,
            "runs": [(row, row + ROWS)],
        }
        for k, row in enumerate(starts)
    ]
    pixels = {"source": f"video:{video}.mp4", "pixels": digest[::-1], "width": 340, "height": 256}
    account_dict = json.loads(layout.canonical(account.as_dict()))
    return {
        "name": video,
        "fingerprint": digest,
        "account": account_dict,
        "tracks": tracks,
        **pixels,
    }


def write_template(root: Path, name: str, n_rows: int) -> dict[str, dict[str, str]]:
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
    with cache.StreamWriter(root, name, "resnet50", dim=DIM, plan="template") as stream:
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
