"""A cache with a stream of bytes, which an earlier version wrote: all else is read as ever, and
nothing is damaged.
"""

from pathlib import Path
from typing import Any

import pytest

import cache
from cache import CacheError
from tests.cache.toy import SPLIT

PATTERN = r"stream 'crops' holds bytes .*does not read.*cache\.delete_stream.*earlier version"


@pytest.fixture
def old(root: Path, toy: Any) -> Path:
    toy.write_bytes_stream(root)
    return root


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


def test_nothing_damages_it_until_it_is_deleted(old: Path, made: Path, toy: Any) -> None:
    before = toy.tree(old)
    report = cache.verify(old)
    assert report.ok, report.damaged
    assert ["holds bytes" in note for note in report.notes] == [True]
    cache.gc(old, unfinished=True)
    cache.copy_split(old, SPLIT, old.with_name("copy"), streams=["resnet50"])
    assert cache.verify(old.with_name("copy")).ok
    assert toy.tree(old) == before
    toy.spoil(old / SPLIT / "features/crops_ok/c/1")
    assert len(cache.verify(old).damaged) == 1
    cache.delete_stream(old, SPLIT, "crops")
    assert toy.tree(old) == toy.tree(made)
