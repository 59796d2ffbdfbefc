"""`compact` writes a split without the rows of replaced tracks, and exchanges it for the old one in one step."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheChanged, CacheError, MissingSplit
from cache.write import compact

SPLIT = "toy/train"


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture(scope="module")
def replaced(made: Path, toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos and features of them; then b and d got other lengths, f went, and features followed."""
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("replaced") / "cache"))
    with toy.writer(root, "second", provenance={"raw": "/raw"}) as writer:
        writer.begin(["b", "d", "f"])
        for name, lengths in {"b": [40], "d": [1, 30]}.items():
            writer.append(*toy.video(name, lengths, seed=5))
        writer.commit({"dataset": "toy", "plan": "second", "stand_in": True})
    toy.write_stream(root, bad_rows=[170, 200])
    (root / SPLIT / "stamps.json").write_text("{}")
    return root


@pytest.fixture
def root(replaced: Path, tmp_path: Path) -> Path:
    """A copy of it to compact."""
    return Path(shutil.copytree(replaced, tmp_path / "cache"))


def contents(root: Path) -> dict[str, Any]:
    """Every number of every track, by its name; of the stream too."""
    split = cache.open(root)[SPLIT]
    streams = [f"features/{name}{part}" for name in split.streams for part in ("", "_ok", "_key")]
    return {
        track.name: (track[4:], [split.rows(name, *track[2:4]).tobytes() for name in (*split.columns, *streams)])
        for track in split.tracks
    }


def test_it_keeps_every_number_of_every_track_and_none_of_what_was_replaced(root: Path) -> None:
    before, old = contents(root), cache.open(root)[SPLIT]
    done = cache.compact(root, SPLIT)
    split = cache.open(root)[SPLIT]
    assert contents(root) == before
    assert (done.before, done.after) == (old.manifest["extent"], split.manifest["extent"])
    assert split.manifest["extent"] == split.manifest["rows"] == sum(t.stop - t.start for t in split.tracks)
    assert [video.name for video in split.videos] == ["a", "b", "c", "d", "e"]
    assert len(split.manifest["commits"]) == 1
    assert cache.verify(root).ok
    assert cache.verify(root).notes == ()
    assert not (root / ".compacting").exists()
    # The callers' entries, notes and stamps go along.
    assert (split.manifest["plan"], split.manifest["stand_in"]) == ("second", True)
    assert split.stream_manifest("resnet50")["weights"] == "known"
    assert split.stream_manifest("resnet50")["split_digest"] == split.manifest["digest"]
    assert (split.provenance["raw"], split.provenance["compacted"]) == ("/raw", old.manifest["digest"])
    assert (root / SPLIT / "stamps.json").read_text() == "{}"


def test_it_gives_the_bytes_of_a_split_that_was_never_replaced(root: Path, tmp_path: Path, toy: Any) -> None:
    cache.delete_stream(root, SPLIT, "resnet50")
    cache.compact(root, SPLIT)
    videos = [video for video in toy.videos() if video[0].name in "ace"]
    videos += [toy.video(name, lengths, seed=5) for name, lengths in {"b": [40], "d": [1, 30]}.items()]
    fresh = tmp_path / "fresh"
    with toy.writer(fresh, "p") as writer:
        writer.begin()
        for video in sorted(videos, key=lambda video: video[0].name):
            writer.append(*video)
        writer.commit({"dataset": "toy", "plan": "second", "stand_in": True})
    (root / SPLIT / "stamps.json").unlink()
    assert toy.tree(root) == toy.tree(fresh)


def test_what_people_keep_in_a_split_stays_where_it_was(root: Path, tmp_path: Path, toy: Any) -> None:
    fresh = Path(shutil.copytree(root, tmp_path / "without"))
    theirs = {
        "README.md": b"ours",
        "notes.json": b"{}",
        "empty": b"",
        "kp_2d/checked-by-hand.txt": b"x",
        "features/seen.csv": b"1,2",
        "features/resnet50/left-out.json": b"[]",
        "mine/zarr.json": b"{}",
        "mine/c/0": bytes(3 << 20),
    }
    for name, data in theirs.items():
        (root / SPLIT / name).parent.mkdir(exist_ok=True)
        (root / SPLIT / name).write_bytes(data)
    cache.compact(root, SPLIT)
    assert {name: (root / SPLIT / name).read_bytes() for name in theirs} == theirs
    assert cache.verify(root).ok
    assert not list((root / SPLIT).rglob("*.tmp"))
    cache.compact(fresh, SPLIT)
    assert toy.tree(root).keys() - toy.tree(fresh).keys() == {f"{SPLIT}/{name}" for name in theirs}


def test_labels_that_one_track_lacked_stay_lacking(tmp_path: Path, toy: Any) -> None:
    def lacking(name: str) -> Any:
        entry, (track,) = toy.video(name, [40])
        columns = {column: rows for column, rows in track.columns.items() if column not in ("kp_3d", "has_3d")}
        return entry, [dataclasses.replace(track, columns=columns)]

    toy.write(tmp_path, [toy.video("a", [9]), lacking("b")])
    toy.write(tmp_path, [toy.video("a", [9], seed=2)], drop=["a"], plan="again")
    before = contents(tmp_path)
    cache.compact(tmp_path, SPLIT)
    assert contents(tmp_path) == before
    split = cache.open(tmp_path)[SPLIT]
    assert np.isnan(split.rows("kp_3d", 9, 49)).all()
    assert (split.rows("has_3d", 9, 49) == 255).all()


def test_a_split_without_replaced_rows_is_left_as_it_is(tracks: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in tracks.rglob("*") if path.is_file()}
    done = cache.compact(tracks, SPLIT)
    assert done.before == done.after == 143
    assert {path: path.stat().st_mtime_ns for path in tracks.rglob("*") if path.is_file()} == times


def test_a_reader_of_the_old_split_goes_on_with_what_it_has_open_and_is_refused_the_rest(root: Path) -> None:
    old = cache.open(root)[SPLIT]
    held = old.rows("bbox", 0, 10)
    cache.compact(root, SPLIT)
    np.testing.assert_array_equal(old.rows("bbox", 0, 10), held)
    track = old.tracks[-1]
    with pytest.raises(CacheChanged, match="open it again"):
        old.rows("bbox", track.start, track.stop)
    with pytest.raises(CacheChanged, match="open it again"):
        old.rows("kp_2d", 0, 10)
    with pytest.raises(CacheChanged, match="open it again"):
        old.read(old.windows(5, 5)[:1], stream=None, fields=["pose"])


def test_a_stream_opened_after_the_exchange_is_not_taken_for_one_of_the_old_rows(root: Path) -> None:
    old = cache.open(root)[SPLIT]
    lazily, features = old.column("bbox"), cache.open(root)[SPLIT].column("features/resnet50")
    cache.compact(root, SPLIT)
    for look in (lambda: old.windows(4, 4, "resnet50"), lambda: lazily[:], lambda: features[:]):
        with pytest.raises(CacheChanged, match="open it again"):
            look()


def test_what_a_killed_compaction_has_written_is_not_used(root: Path, toy: Any) -> None:
    cache.delete_stream(root, SPLIT, "resnet50")

    def killed(done: int, total: int, what: str) -> None:
        if done > 40:
            raise Killed

    with pytest.raises(Killed):
        cache.compact(root, SPLIT, progress=killed)
    assert (root / ".compacting" / SPLIT).is_dir()
    toy.write(root, [toy.video("a", [12], seed=9)], drop=["a"], plan="third")
    now = contents(root)
    cache.compact(root, SPLIT)
    assert contents(root) == now
    assert cache.verify(root).notes == ()


def test_it_refuses_what_it_could_not_carry_over(root: Path, tmp_path: Path, toy: Any) -> None:
    lagging = Path(shutil.copytree(root, tmp_path / "lagging"))
    toy.write(lagging, [toy.video("g", [4])], plan="third")
    with pytest.raises(CacheError, match="lags behind"):
        cache.compact(lagging, SPLIT)
    toy.unfinished(root, [toy.video("z", [40])])
    with pytest.raises(CacheError, match="unfinished"):
        cache.compact(root, SPLIT)
    with pytest.raises(MissingSplit):
        cache.compact(root, "toy/val")


def test_no_writer_is_let_in_meanwhile(root: Path, toy: Any) -> None:
    tried = []

    def write(done: int, total: int, what: str) -> None:
        for attempt in (lambda: toy.write(root, [toy.video("x", [2])]), lambda: toy.write_stream(root)):
            with pytest.raises(CacheError, match="no other writer"):
                attempt()
            tried.append(1)

    cache.compact(root, SPLIT, progress=write)
    assert tried
    toy.write(root, [toy.video("x", [2])], plan="after")
    assert "x" in [video.name for video in cache.open(root)[SPLIT].videos]


def test_a_file_system_that_cannot_exchange_folders_loses_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(root)
    monkeypatch.setattr(compact.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(CacheError, match="cannot exchange"):
        cache.compact(root, SPLIT)
    assert contents(root) == before
