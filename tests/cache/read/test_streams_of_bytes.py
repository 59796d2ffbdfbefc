"""A cache with a stream of bytes, which an earlier version wrote: all else is read as ever, and nothing is damaged."""

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.layout import BYTES, ROOM, Geometry
from cache.format.manifest import Place
from cache.storage import store_at
from tests.cache.toy import SPLIT, keys

PATTERN = r"stream 'crops' holds bytes .*does not read.*cache\.delete_stream.*earlier version"


def write_bytes_stream(root: Path, name: str = SPLIT) -> None:
    """As the earlier version wrote it, in four arrays: row r has r zero bytes, and row 1 could not be decoded."""
    store = store_at(root)
    split = manifest.load(Place(store, name))
    assert split is not None
    place, geometry = Place(store, name, "crops"), Geometry(**split.manifest["geometry"])
    specs, extent = layout.stream_columns("crops", 0, BYTES), int(split.manifest["extent"])
    records: dict[str, dict[str, str]] = {name: {} for name in specs}
    for shard in range(geometry.shards(extent)):
        rows = np.asarray(manifest.shard_rows(split.manifest, shard))
        ok, stops = (rows != 1).astype(np.uint8), np.cumsum(np.where(rows == 1, 0, rows))
        first = shard * geometry.rows_per_shard * ROOM
        at = np.where(ok[:, None] == 1, np.stack([stops - rows, stops], axis=1) + first, -1)
        arrays = {"crops": np.zeros(stops[-1], np.uint8), "crops_at": at, "crops_ok": ok, "crops_key": keys(rows)}
        for name, values in arrays.items():
            file, records[name][str(shard)] = shards.encode(values, specs[name], specs[name].cut(geometry))
            key = layout.shard_key(place.array(name), shard, specs[name].trailing)
            store.put(key, file, temporary=place.temporary)
    entries = {
        **{name: split.manifest[name] for name in ("extent", "commits", "geometry")},
        "stream": "crops",
        "dim": 0,
        "dtype": BYTES,
        "split_digest": split.digest,
        "shards": records,
        "rows": {shard: manifest.rows_record(split.manifest, int(shard)) for shard in records["crops"]},
    }
    files = {f"{name}/zarr.json": layout.column_metadata(spec, extent, geometry) for name, spec in specs.items()}
    manifest.publish(place, entries, files, before=None, note={}, started=time.time())


@pytest.fixture
def old(root: Path) -> Path:
    write_bytes_stream(root)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (file for file in root.rglob("*") if file.is_file() and ".writing" not in file.parts)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_labels_and_other_streams_are_read_as_before(old: Path, made: Path) -> None:
    split, before = cache.open(old)[SPLIT], cache.open(made)[SPLIT]
    assert split.streams == ("crops", "resnet50")
    windows = before.windows(4, 4, stream="resnet50")
    np.testing.assert_array_equal(split.windows(4, 4, stream="resnet50"), windows)
    assert split.windows(4, 4).tobytes() == before.windows(4, 4).tobytes()
    read, expected = (s.read(windows, "resnet50", ["features", "kp_2d"]) for s in (split, before))
    assert {name: a.tobytes() for name, a in read.items()} == {name: a.tobytes() for name, a in expected.items()}


def test_reading_its_rows_says_to_delete_it_or_to_use_an_earlier_version(old: Path) -> None:
    split = cache.open(old)[SPLIT]
    windows = split.windows(4, 4, stream="crops")
    assert len(windows)
    for read in (
        lambda: split.read(windows, "crops", ["features"]),
        lambda: split.rows("features/crops", 0, 4),
        lambda: cache.copy_split(old, SPLIT, old.with_name("copy")),
    ):
        with pytest.raises(CacheError, match=PATTERN):
            read()
    assert not old.with_name("copy").exists()
    for writer in (cache.StreamShards, cache.StreamWriter):
        with pytest.raises(CacheError, match="expected 0 numbers of bytes, found 2048 numbers"):
            more: dict[str, Any] = {} if writer is cache.StreamShards else {"plan": "weights"}
            writer(old, SPLIT, "crops", **more)


def test_nothing_damages_it_until_it_is_deleted(old: Path, made: Path) -> None:
    before = digests(old)
    report = cache.verify(old)
    assert report.ok, report.damaged
    cache.gc(old, unfinished=True)
    cache.tag(old, "v1")
    cache.delete_tag(old, "v1")
    cache.copy_split(old, SPLIT, old.with_name("copy"), streams=["resnet50"])
    assert cache.verify(old.with_name("copy")).ok
    assert digests(old) == before
    file = old / SPLIT / "features/crops/c/1"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert len(cache.verify(old).damaged) == 1
    cache.delete_stream(old, SPLIT, "crops")
    assert digests(old) == digests(made)
