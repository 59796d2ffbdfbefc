"""Any bytes, written at any moment: they come back, and a run that was killed ends with the same ones."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from cache import SplitWriter
from tests.cache.write.blobs import FEATURES, ROOM, SPLIT, of_track, writer_of

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3] / "benchmarks")]

from interrupted_runs import watched  # noqa: E402
from power_cut import Model, Recorder, on_disk, put_back  # noqa: E402


@pytest.fixture(scope="module")
def tracks_only(tmp_path_factory: pytest.TempPathFactory, toy: Any) -> Path:
    """Three videos in 23 rows, of which one came anew: rows 5 to 12 are of a replaced track."""
    root = tmp_path_factory.mktemp("tracks") / "cache"
    sizes: Any = {"columns": ("bbox",), "rows_per_shard": 8, "rows_per_chunk": 4}
    for drop, videos in (((), {"a": [5], "b": [8], "c": [10]}), (("b",), {"b": [6]})):
        with SplitWriter(root, SPLIT, plan=f"drop {drop}", **sizes) as writer:
            writer.begin(drop)
            for name, lengths in videos.items():
                entry, tracks = toy.video(name, lengths)
                narrow = [_narrow(track) for track in tracks]
                writer.append(entry, narrow)
            writer.commit({})
    return root


def _narrow(track: cache.TrackRows) -> cache.TrackRows:
    columns = {name: track.columns[name] for name in ("frame_index", "bbox")}
    return cache.TrackRows(
        name=track.name, video=track.video, step=1, fps=25.0, crop_scale=1.3, gender="neutral", columns=columns
    )


def _bytes(size: int) -> bytes:
    return (np.arange(size) * 7 % 251).astype(np.uint8).tobytes()


BLOBS = st.none() | st.binary(max_size=12) | st.sampled_from([1000, ROOM - 1, ROOM, ROOM + 1]).map(_bytes)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(given_blobs=st.lists(BLOBS, min_size=32, max_size=32), seed=st.integers(0, 99))
def test_any_bytes_come_back_from_the_writer_the_verification_and_the_compaction(
    tracks_only: Path, tmp_path_factory: pytest.TempPathFactory, given_blobs: list[bytes | None], seed: int
) -> None:
    root = tmp_path_factory.mktemp("any") / "cache"
    shutil.copytree(tracks_only, root)
    with writer_of(root) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            mine = [given_blobs[row] for row in rows]
            ok = np.array([blob is not None for blob in mine])
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, [blob or b"" for blob in mine], ok, keys)
        writer.commit({})
    assert cache.verify(root).ok
    split = cache.open(root)[SPLIT]
    expected = {t.name: given_blobs[t.start : t.stop] for t in split.tracks}
    held = [r for t in split.tracks for r in range(t.start, t.stop) if given_blobs[r] is not None]
    mixed = np.random.default_rng(seed).permutation(np.array(held, np.int64))
    assert split.blobs("crops", mixed) == [given_blobs[row] for row in mixed]
    assert {track.name: of_track(split, track) for track in split.tracks} == expected
    cache.compact(root, SPLIT)
    compacted = cache.open(root)[SPLIT]
    assert {track.name: of_track(compacted, track) for track in compacted.tracks} == expected
    assert cache.verify(root).problems == ()
    shutil.rmtree(root.parent)


def _extract(root: Path, toy: Any, *, staged: bool) -> None:
    """The bytes of every row that has none, one shard directly, or each by stage and accept."""
    with writer_of(root) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            given: Any = (shard, [b"%d" % row for row in rows], rows % 5 > 0, toy.keys(rows))
            if staged:
                writer.accept(writer.shards.stage(*given))
            else:
                writer.write(*given)
        writer.commit({})


def _seen(root: Path) -> list[list[bytes | None]] | None:
    split = cache.open(root)[SPLIT]
    return [of_track(split, track) for track in split.tracks] if split.streams else None


@pytest.mark.slow
@pytest.mark.parametrize("staged", [False, True])
def test_killed_or_cut_off_at_any_moment_the_next_run_ends_with_the_same_bytes(
    tracks_only: Path, tmp_path: Path, toy: Any, staged: bool
) -> None:
    top, again = tmp_path / "top", tmp_path / "again"
    top.mkdir()
    again.mkdir()
    recorder = Recorder(top)
    with watched(recorder):
        _convert_again(top / "cache", toy)
        converted = len(recorder.calls)
        _extract(top / "cache", toy, staged=staged)
    expected, whole = toy.tree(top / "cache"), _seen(top / "cache")
    model, states = Model(), []
    for number, call in enumerate(recorder.calls, start=1):
        model.do(*call)
        if number < converted:
            continue
        killed = model.live()
        disks = [killed, model.lost()] if number % 3 == 0 else [killed]
        for disk in disks:
            put_back(disk, again)
            states.append(_seen(again / "cache"))
            if number % 3:
                continue
            assert cache.verify(again / "cache").problems == (), call[:2]
            _extract(again / "cache", toy, staged=staged)
            assert toy.tree(again / "cache") == expected, call[:2]
            writing = again / "cache" / FEATURES / "crops/.writing"
            assert not writing.exists(), call[:2]
    assert on_disk(top) == model.live()
    assert {state is None for state in states} == {True, False}
    assert all(state in (None, whole) for state in states)


def _convert_again(root: Path, toy: Any) -> None:
    with SplitWriter(root, SPLIT, columns=["bbox"], plan="p", rows_per_shard=8, rows_per_chunk=4) as writer:
        writer.begin()
        entry, tracks = toy.video("a", [5, 6])
        writer.append(entry, [_narrow(track) for track in tracks])
        writer.commit({})
