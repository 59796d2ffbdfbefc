"""A cache with a stream of bytes, which an earlier version wrote: all else is read as ever, and nothing is damaged."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError, StreamWriter
from cache.format import manifest
from cache.format.layout import BYTES
from cache.format.manifest import Place
from cache.storage import store_at
from tests.cache.toy import SPLIT, keys

PATTERN = r"stream 'crops' holds bytes .*does not read.*cache\.delete_stream.*earlier version"


def write_bytes_stream(root: Path, name: str = SPLIT) -> None:
    """As the earlier version wrote it, with an array more than a stream of numbers. Row 1 could not be decoded."""
    with StreamWriter(root, name, "crops", dim=1, plan="crops") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, np.zeros((len(rows), 1)), rows != 1, keys(rows))
        writer.commit({})
    place = Place(store_at(root), name, "crops")
    commit = manifest.load(place)
    assert commit is not None
    home = root / name / "features"
    shutil.copytree(home / "crops/c", home / "crops_at/c")
    shards = {**commit.manifest["shards"], "crops_at": commit.manifest["shards"]["crops"]}
    files = {key: bytes(data) for key, data in commit.files.items()}
    files["crops_at/zarr.json"] = files["crops/zarr.json"]
    entries = {**commit.manifest, "dim": 0, "dtype": BYTES, "shards": shards}
    del entries["digest"]
    manifest.publish(place, entries, files, before=commit, note={}, started=time.time())


@pytest.fixture
def old(root: Path) -> Path:
    write_bytes_stream(root)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (file for file in root.rglob("*") if file.is_file() and ".writing" not in file.parts)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


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
    assert ["holds bytes" in note for note in report.notes] == [True]
    cache.gc(old, unfinished=True)
    cache.tag(old, "v1")
    cache.delete_tag(old, "v1")
    cache.copy_split(old, SPLIT, old.with_name("copy"), streams=["resnet50"])
    assert cache.verify(old.with_name("copy")).ok
    assert digests(old) == before
    file = old / SPLIT / "features/crops_ok/c/1"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert len(cache.verify(old).damaged) == 1
    cache.delete_stream(old, SPLIT, "crops")
    assert digests(old) == digests(made)
