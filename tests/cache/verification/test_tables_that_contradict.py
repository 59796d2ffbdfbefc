"""Tables whose checksums all match and that yet say what cannot be: every contradiction is told by `verify`."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.format.manifest import Commit, Place, load
from cache.format.tables import Tables
from cache.storage.base import store_at
from cache.verification.tables import contradictions

# Of `toy.videos()`: tracks a 0-10, b 10-17 and 17-37, d 37-107, e 107-110 and 110-115, f 115-143; shards of 32 rows.


@pytest.fixture
def commit(tmp_path: Path, toy: Any) -> Commit:
    toy.write(tmp_path, toy.videos())
    committed = load(Place.of_split(store_at(tmp_path), "toy/train"))
    assert committed is not None
    return replace(committed, manifest=copy.deepcopy(dict(committed.manifest)))


def told(commit: Commit, **changed: Any) -> list[str]:
    return list(contradictions(Tables({**Tables.from_files(commit.files), **changed}), commit))


def with_one(commit: Commit, table: str, at: int, value: int) -> dict[str, Any]:
    """A table in which one number is another."""
    array = np.array(Tables.from_files(commit.files)[table])
    array[at] = value
    return {table: array}


def test_what_was_written_contradicts_nothing(commit: Commit) -> None:
    assert told(commit) == []


@pytest.mark.parametrize(("key", "right"), [("tracks", 7), ("videos", 6), ("rows", 143)])
def test_a_manifest_that_counts_otherwise(key: str, right: int, commit: Commit) -> None:
    commit.manifest[key] += 1
    assert told(commit) == [f"the manifest counts {right + 1} {key}, the tables {right}"]


def test_tables_of_different_lengths(commit: Commit) -> None:
    steps = Tables.from_files(commit.files)["track_step"]
    assert told(commit, track_step=steps[:-1]) == ["the tables of the tracks are of different lengths, [6, 7]"]


@pytest.mark.parametrize(("at", "stop"), [(0, 12), (0, 0)], ids=["overlap", "empty"])
def test_tracks_that_overlap_or_are_empty(at: int, stop: int, commit: Commit) -> None:
    assert told(commit, **with_one(commit, "track_stop", at, stop))[-1] == "tracks overlap, or are empty"


def test_tracks_outside_what_was_committed(commit: Commit) -> None:
    assert told(commit, **with_one(commit, "track_stop", 6, 144))[-1] == "tracks lie outside what was committed"


def test_a_shard_with_rows_of_tracks_that_the_manifest_does_not_name(commit: Commit) -> None:
    del commit.manifest["shards"]["bbox"]["1"]
    assert told(commit) == ["tracks have rows in shards [1] of bbox, which the manifest does not name"]


@pytest.mark.parametrize(("table", "value"), [("track_video", 6), ("track_video", -1), ("track_step", 0)])
def test_tracks_of_no_video_or_without_a_step(table: str, value: int, commit: Commit) -> None:
    assert told(commit, **with_one(commit, table, 3, value)) == ["tracks are of no video, or without a step"]


def test_accounts_that_do_not_fill_their_table(commit: Commit) -> None:
    last = int(Tables.from_files(commit.files)["video_account_stop"][-1])
    expected = ["the accounts of the videos do not fill their table"]
    assert told(commit, **with_one(commit, "video_account_stop", 5, last - 1)) == expected
    assert told(commit, **with_one(commit, "video_account_stop", 0, last)) == expected


@pytest.mark.parametrize("table", ["track_name", "video_name"])
def test_a_name_that_is_there_twice(table: str, commit: Commit) -> None:
    names = np.array(Tables.from_files(commit.files)[table])
    names[1] = names[0]
    assert told(commit, **{table: names}) == [f"{table} holds a name twice"]
