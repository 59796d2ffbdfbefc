"""Windows against their definition in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from cache.tables import find_runs
from cache.windows import intersect, join_adjacent, ranges_where, windows_of


def plain_windows(tracks: list[list[int]], step: int, seqlen: int, stride: int, there: set[int]) -> list[list[int]]:
    """Row by row: a run ends at a gap and at a row that is not there; windows start at its start and every stride."""
    found, row = [], 0
    for frames in tracks:
        run: list[int] = []
        runs = [run]
        for k, frame in enumerate(frames):
            if run and (run[-1] != row - 1 or frame - frames[k - 1] != step):
                runs.append(run := [])
            if row in there:
                run.append(row)
            row += 1
        for rows in runs:
            found += [[a, a + seqlen] for a in rows[::stride] if a + seqlen <= rows[0] + len(rows)]
    return found


frame_lists = st.lists(st.integers(1, 3), min_size=1, max_size=30).map(lambda gaps: np.cumsum(gaps).tolist())


@given(st.lists(frame_lists, max_size=5), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.data())
def test_windows_are_what_their_definition_says(
    tracks: list[list[int]], step: int, seqlen: int, stride: int, data: st.DataObject
) -> None:
    n_rows = sum(map(len, tracks))
    missing = data.draw(st.sets(st.integers(0, max(n_rows - 1, 0))))
    runs, row = [], 0
    for frames in tracks:
        runs += find_runs(np.array(frames), step, row)
        row += len(frames)
    there = np.isin(np.arange(n_rows), list(missing), invert=True)
    cut = intersect(np.array(runs, np.int64).reshape(-1, 2), ranges_where(there))
    found = windows_of(cut, seqlen=seqlen, stride=stride)
    assert found.tolist() == plain_windows(tracks, step, seqlen, stride, set(np.flatnonzero(there).tolist()))


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 10))
def test_ranges_found_shard_by_shard_are_those_found_at_once(flags: list[bool], size: int) -> None:
    array = np.array(flags, bool)
    parts = [ranges_where(array[k : k + size], k) for k in range(0, len(array), size)]
    joined = join_adjacent(np.concatenate([np.zeros((0, 2), np.int64), *parts]))
    assert joined.tolist() == ranges_where(array).tolist()


@settings(max_examples=10, deadline=None)
@given(st.lists(frame_lists, min_size=1, max_size=4), st.sets(st.integers(0, 100), max_size=5), st.booleans())
def test_a_split_gives_the_same_windows(
    tmp_path_factory: pytest.TempPathFactory, toy: Any, tracks: list[list[int]], bad: set[int], half: bool
) -> None:
    root: Path = tmp_path_factory.mktemp("windows")
    entry, _ = toy.video("a", [])
    toy.write(root, [(entry, [toy.track(f"a/{k}", 0, frame_index=frames) for k, frames in enumerate(tracks)])])
    toy.write_stream(root, bad_rows=sorted(bad), shards=[0] if half else None)
    split = cache.open(root)["toy/train"]
    rows = set(range(sum(map(len, tracks))))
    assert split.windows(4, 3).tolist() == plain_windows(tracks, 1, 4, 3, rows)
    held = {row for row in rows - bad if row < 32 or not half}
    windows = split.windows(4, 3, "resnet50")
    assert windows.dtype == np.int64
    assert windows.tolist() == plain_windows(tracks, 1, 4, 3, held)
    if len(windows):
        features = split.read(windows, "resnet50", fields=["features"])["features"]
        np.testing.assert_array_equal(features[:, :, 0], windows[:, :1] + np.arange(4))


def test_no_window_crosses_from_one_track_into_the_next() -> None:
    runs = np.array([[0, 5], [5, 10]])
    assert windows_of(runs, seqlen=4, stride=1).tolist() == [[0, 4], [1, 5], [5, 9], [6, 10]]


@pytest.mark.parametrize(("seqlen", "stride"), [(0, 1), (1, 0), (-3, 1)])
def test_windows_of_nothing_are_refused(seqlen: int, stride: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        windows_of(np.array([[0, 5]]), seqlen=seqlen, stride=stride)
