"""Verification finds every change, and tells left-overs from damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from cache import CacheError, SplitWriter
from cache.format import shard as shards
from cache.format.layout import Geometry
from cache.format.tables import find_runs
from cache.verification.tables import runs_against_frames, runs_without_frames
from tests.cache.verification.flipping import flip

verification = sys.modules["cache.verification.verify"]  # `cache.verify` is the function


@pytest.fixture
def root(tmp_path: Path, toy: Any) -> Path:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    return tmp_path


def test_an_intact_cache_has_neither_problems_nor_notes(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = cache.verify(root, progress=lambda done, total, rate: seen.append((done, total)))
    assert report.ok
    assert report.problems == report.notes == ()
    assert (report.splits, report.shards) == (1, 5 * (9 + 3))
    tables = (".", "track_", "video_", "run_")
    columns = [path for path in root.glob("toy/train/*") if not path.name.startswith(tables)]
    shards = [file for column in columns for file in column.rglob("*") if file.is_file() and "c" in file.parts]
    assert report.bytes == sum(len(file.read_bytes()) for file in shards)
    assert seen == [(number + 1, 60) for number in range(60)]


NOTES = "provenance.json"  # a note that no manifest names


def files_of(root: Path) -> list[Path]:
    return [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != NOTES]


def test_a_flipped_bit_anywhere_in_any_file_is_found_and_named(root: Path) -> None:
    rng = random.Random(0)
    copies = [file for file in files_of(root) if ".copy" in file.parts]
    in_place = [file for file in files_of(root) if file not in copies]
    assert len(copies) > 50
    trials = 0
    for files in (in_place, copies):  # one of the two stays intact, and says what the other should be
        for first in range(0, len(files), 12):
            some = {file.relative_to(root).as_posix(): file for file in files[first : first + 12]}
            for _ in range(2):
                before = {file: flip(file, rng.randrange(8 * file.stat().st_size)) for file in some.values()}
                report = cache.verify(root)
                assert sorted(damage.key for damage in report.damaged) == sorted(some)
                assert [damage.what for damage in report.damaged] == list(report.problems)
                assert all(damage.key in damage.what for damage in report.damaged)
                for file, data in before.items():
                    file.write_bytes(data)
                trials += len(some)
    assert trials > 300
    assert cache.verify(root).ok


def test_a_file_that_is_longer_or_shorter_than_it_was_is_found(root: Path) -> None:
    some = [file for file in files_of(root) if ".copy" not in file.parts][::9]
    before = [file.read_bytes() for file in some]
    for change in (lambda data: data + b"\0", lambda data: data[:-1], lambda data: b""):
        for file, data in zip(some, before, strict=True):
            file.write_bytes(change(data))
        report = cache.verify(root, fast=True)
        assert sorted(d.key for d in report.damaged) == [file.relative_to(root).as_posix() for file in some]
    for file, data in zip(some, before, strict=True):
        file.write_bytes(data)
    assert cache.verify(root, fast=True).ok


def test_damage_is_told_by_split_stream_array_and_shard(root: Path) -> None:
    flip(root / "toy/train/kp_2d/c/2/0/0", 80)
    flip(root / "toy/train/features/resnet50_ok/c/3", 80)
    flip(root / "toy/train/features/resnet50/manifest.json", 80)
    flip(root / "toy/train/track_start/c/0", 80)
    flip(root / "toy/zarr.json", 80)
    told = [(d.split, d.stream, d.array, d.shard, d.key) for d in cache.verify(root).damaged]
    assert told == [
        ("", None, None, None, "toy/zarr.json"),
        ("toy/train", None, "track_start", None, "toy/train/track_start/c/0"),
        ("toy/train", None, "kp_2d", 2, "toy/train/kp_2d/c/2/0/0"),
        ("toy/train", "resnet50", None, None, "toy/train/features/resnet50/manifest.json"),
        ("toy/train", "resnet50", "resnet50_ok", 3, "toy/train/features/resnet50_ok/c/3"),
    ]


def test_fast_finds_what_sizes_and_indexes_tell_and_reads_no_chunk(root: Path) -> None:
    shard = root / "toy/train/kp_2d/c/2/0/0"
    assert cache.verify(root, fast=True).fast
    before = flip(shard, 80)  # in a chunk
    assert cache.verify(root, fast=True).ok
    shard.write_bytes(before)
    flip(shard, 8 * (len(before) - 30))  # in the index
    (problem,) = cache.verify(root, fast=True).problems
    assert "a damaged index" in problem


def test_an_index_with_its_own_checksum_that_points_elsewhere_is_found(root: Path) -> None:
    shard = root / "toy/train/bbox/c/1/0"
    data = bytearray(shard.read_bytes())
    index = np.frombuffer(bytes(data[-68:-4]), "<u8").reshape(4, 2).copy()
    for change in ({"swap": (0, 1)}, {"absent": 2}, {"overlap": 1}):
        other = index.copy()
        if "swap" in change:  # intact chunks in the places of others
            other[[0, 1]] = other[[1, 0]]
        elif "absent" in change:
            other[2] = 2**64 - 1
        else:
            other[1, 0] = other[0, 0]
        packed = other.tobytes()
        shard.write_bytes(bytes(data[:-68]) + packed + shards.crc32c(packed))
        (damage,) = cache.verify(root).damaged
        assert damage.key == "toy/train/bbox/c/1/0", change


def test_only_the_splits_that_are_named_are_looked_at(root: Path, toy: Any) -> None:
    with SplitWriter(root, "toy/val", columns=toy.columns, plan="p", rows_per_shard=32, rows_per_chunk=8) as writer:
        writer.begin()
        writer.append(*toy.video("a", [40]))
        writer.commit({})
    flip(root / "toy/val/bbox/c/0/0", 5)
    assert cache.verify(root, splits=["toy/train"]).ok
    assert not cache.verify(root, splits=["toy/val"]).ok
    with pytest.raises(CacheError, match=r"no split 'toy/test'; there are: toy/train, toy/val"):
        cache.verify(root, splits=["toy/test"])


def test_a_damaged_manifest_hides_no_other_damage(root: Path) -> None:
    flip(root / "toy/train/manifest.json", 3000)
    flip(root / "toy/train/kp_2d/c/2/0/0", 80)
    keys = [damage.key for damage in cache.verify(root).damaged]
    assert keys == ["toy/train/manifest.json", "toy/train/kp_2d/c/2/0/0"]


def test_a_file_that_cannot_be_read_is_damage_and_no_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    bad = (root / "toy/train/kp_2d/c/2/0/0").stat().st_ino

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    (problem,) = cache.verify(root).problems
    assert "kp_2d/c/2/0/0" in problem
    assert "cannot be read (Input/output error)" in problem


def test_a_file_that_may_not_be_read_is_an_error_and_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(PermissionError):
        cache.verify(root)


def test_an_intact_cache_is_left_as_it_was(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
    cache.verify(root)
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before


def test_a_commit_meanwhile_is_no_damage(root: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verification.small_file_problems
    commits = iter([[*toy.videos(), toy.video("x", [40])]])

    def committed_just_now(*args: Any, **options: Any) -> Any:
        for videos in commits:
            toy.write(root, videos, plan="x")
        return real(*args, **options)

    monkeypatch.setattr(verification, "small_file_problems", committed_just_now)
    assert cache.verify(root).problems == ()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
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
    assert [told.partition(":")[0] for told in found] == expected


def test_frame_indices_that_do_not_ascend_are_found_though_the_runs_fit_them() -> None:
    tables: Any = {"track_start": np.array([0]), "track_stop": np.array([6]), "track_step": np.array([1])}
    for frames, wrong in (([0, 1, 2, 7, 8, 9], False), ([6, 7, 8, 1, 2, 3], True), ([-2, -1, 0, 7, 8, 9], True)):
        assert find_runs(np.array(frames), 1, 0) == [(0, 3), (3, 6)]
        runs: Any = {**tables, "run_start": np.array([0, 3]), "run_stop": np.array([3, 6])}
        told = list(runs_against_frames(runs, Geometry(6, 3), lambda shard, frames=frames: np.array(frames)))
        assert bool(told) == wrong, frames


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


def test_a_missing_shard_is_a_problem_that_names_the_file(root: Path) -> None:
    (root / "toy/train/kp_2d/c/2/0/0").unlink()
    (problem,) = cache.verify(root).problems
    assert "kp_2d/c/2/0/0" in problem
    assert "no file" in problem


def test_an_exchanged_shard_is_found_though_all_its_checksums_match(root: Path) -> None:
    shutil.copy(root / "toy/train/pose/c/1/0", root / "toy/train/pose/c/2/0")
    (problem,) = cache.verify(root).problems
    assert "pose/c/2/0" in problem
    assert "something else" in problem


def test_a_lost_manifest_is_a_problem(root: Path) -> None:
    (root / "toy/train/manifest.json").unlink()
    assert any("manifest.json" in problem for problem in cache.verify(root).problems)


def test_left_overs_of_a_killed_run_are_notes(root: Path, toy: Any) -> None:
    with SplitWriter(root, "toy/train", columns=toy.columns, plan="next") as writer:
        writer.begin()
        writer.append(*toy.video("z", [40]))
    report = cache.verify(root)
    assert report.ok
    assert any("goes on from there" in note for note in report.notes)
    assert any("named by no manifest" in note for note in report.notes)


def test_a_folder_that_nothing_names_is_told(root: Path) -> None:
    (root / "toy/train/what").mkdir()
    report = cache.verify(root)
    assert report.ok
    assert any("what" in note for note in report.notes)


def test_a_conversion_that_never_committed_is_told(tmp_path: Path, toy: Any) -> None:
    sizes: Any = {"rows_per_shard": 32, "rows_per_chunk": 8}
    with SplitWriter(tmp_path, "toy/train", columns=toy.columns, plan="p", **sizes) as writer:
        writer.begin()
        writer.append(*toy.video("a", [40]))
    report = cache.verify(tmp_path)
    assert report.ok
    assert any("nothing is committed" in note for note in report.notes)


def test_no_cache_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="feature cache"):
        cache.verify(tmp_path)
