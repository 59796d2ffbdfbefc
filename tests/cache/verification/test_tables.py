"""Tables whose checksums all match and that still contradict themselves: every contradiction is found."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.format.layout import Geometry
from cache.format.manifest import Commit, Place, load
from cache.format.records import find_runs
from cache.format.tables import Tables
from cache.storage import store_at
from cache.verification.tables import contradictions, runs_against_frames, runs_without_frames

# Of `toy.videos()`: tracks a 0-10, b 10-17 and 17-37, d 37-107, e 107-110 and 110-115, f 115-143; shards of 32 rows.


@pytest.fixture
def commit(tmp_path: Path, toy: Any) -> Commit:
    toy.write(tmp_path, toy.videos())
    committed = load(Place.of(store_at(tmp_path), "toy/train"))
    assert committed is not None
    return replace(committed, manifest=copy.deepcopy(dict(committed.manifest)))


@pytest.mark.parametrize(
    ("table", "at", "value", "match"),
    [
        ("track_stop", 0, 12, "tracks overlap, or are empty"),
        ("track_stop", 0, 0, "tracks overlap, or are empty"),
        ("track_stop", 6, 144, "tracks are outside what was committed"),
        ("track_video", 3, 6, "tracks are of no video"),
        ("track_video", 3, -1, "tracks are of no video"),
        ("track_step", 3, 0, "or without a step"),
        ("video_account_stop", 5, 7, "accounts"),
        ("video_account_stop", 0, 10_000, "accounts"),
        ("track_name", 1, 0, "track_name has a name twice"),
        ("video_name", 1, 0, "video_name has a name twice"),
    ],
)
def test_one_wrong_number_in_a_table_is_found(table: str, at: int, value: int, match: str, commit: Commit) -> None:
    tables = Tables.from_files(commit.files)
    assert list(contradictions(tables, commit)) == []
    array = np.array(tables[table])
    array[at] = array[value] if array.ndim == 2 else value  # of texts: the same as another
    assert match in list(contradictions(Tables({**tables, table: array}), commit))[-1]


def test_tables_that_do_not_fit_each_other_or_the_manifest_are_found(commit: Commit) -> None:
    tables = Tables.from_files(commit.files)
    shorter = Tables({**tables, "track_step": tables["track_step"][:-1]})
    assert list(contradictions(shorter, commit)) == ["the tables of the tracks are of different lengths, [6, 7]"]
    for key in ("tracks", "videos", "rows"):
        commit.manifest[key] += 1
        (problem,) = contradictions(tables, commit)
        assert f"counts {commit.manifest[key]} {key}" in problem
        commit.manifest[key] -= 1
    del commit.manifest["shards"]["bbox"]["1"]
    assert "shards [1] of bbox" in "".join(contradictions(tables, commit))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_runs_are_checked_as_if_track_by_track(data: Any) -> None:
    """Against `find_runs`, one track after the other, over shards of 4 rows."""
    lengths = data.draw(st.lists(st.integers(1, 11), min_size=1, max_size=6))
    gaps = data.draw(st.lists(st.integers(0, 5), min_size=len(lengths), max_size=len(lengths)))  # rows of no track
    starts = np.cumsum([0, *lengths[:-1]]) + np.cumsum(gaps)
    stops = starts + lengths
    steps = data.draw(st.lists(st.integers(1, 2), min_size=len(lengths), max_size=len(lengths)))
    frames = np.full(-(-stops[-1] // 4) * 4, -1, np.int64)
    runs = []
    for start, length, step in zip(starts.tolist(), lengths, steps, strict=True):
        jumps = data.draw(st.lists(st.sampled_from([step, step, 3]), min_size=length - 1, max_size=length - 1))
        frames[start : start + length] = np.cumsum([0, *jumps])
        runs += find_runs(frames[start : start + length], step, start)
    changed = data.draw(st.one_of(st.none(), st.integers(0, len(frames) - 1)))
    if changed is not None:
        frames[changed] += data.draw(st.sampled_from([-7, -1, 1, 2]))
    run_start, run_stop = np.array(runs).T
    tables: Any = {
        "track_start": starts,
        "track_stop": stops,
        "track_step": np.array(steps),
        "run_start": run_start,
        "run_stop": run_stop,
    }
    expected = []
    for number, (start, stop, step) in enumerate(zip(starts.tolist(), stops.tolist(), steps, strict=True)):
        own = [run for run in runs if start <= run[0] < stop]
        of_track = frames[start:stop]
        wrong = own != find_runs(of_track, step, start) or (np.diff(of_track) <= 0).any() or (of_track < 0).any()
        expected += [f"track {number} (rows {start} to {stop})"] * bool(wrong)
    found = runs_against_frames(tables, Geometry(4, 2), lambda shard: frames[4 * shard : 4 * shard + 4], few=99)
    assert list(runs_without_frames(tables)) == []
    assert [problem.partition(":")[0] for problem in found] == expected


@pytest.mark.parametrize(
    ("frames", "wrong"), [([0, 1, 2, 7, 8, 9], False), ([6, 7, 8, 1, 2, 3], True), ([-2, -1, 0, 7, 8, 9], True)]
)
def test_frame_indices_that_do_not_ascend_are_found_though_the_runs_fit_them(frames: list[int], wrong: bool) -> None:
    assert find_runs(np.array(frames), 1, 0) == [(0, 3), (3, 6)]
    tables: Any = {"track_start": [0], "track_stop": [6], "track_step": [1], "run_start": [0, 3], "run_stop": [3, 6]}
    tables = {name: np.array(values) for name, values in tables.items()}
    assert bool(list(runs_against_frames(tables, Geometry(6, 3), lambda shard: np.array(frames)))) == wrong


def test_tracks_that_their_runs_do_not_fill_are_found() -> None:
    tables: Any = {"track_start": np.array([0, 10]), "track_stop": np.array([10, 15]), "track_step": np.array([1, 1])}
    intact = {"run_start": np.array([0, 4, 10]), "run_stop": np.array([4, 10, 15])}
    assert list(runs_without_frames({**tables, **intact})) == []
    for name, number, value in (("run_stop", 0, 3), ("run_stop", 2, 14), ("run_start", 0, 1), ("run_start", 2, 11)):
        other = {key: array.copy() for key, array in intact.items()}
        other[name][number] = value
        assert list(runs_without_frames({**tables, **other})), (name, number)
    lacking = {key: array[:2] for key, array in intact.items()}
    assert list(runs_without_frames({**tables, **lacking})) == ["track 1 (rows 10 to 15): is not filled by its runs"]
