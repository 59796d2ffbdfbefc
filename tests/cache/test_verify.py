"""Verification finds every change, and tells left-overs from damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import cache
from cache import CacheError, SplitWriter


@pytest.fixture
def root(tmp_path: Path, toy: Any) -> Path:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    return tmp_path


def test_an_intact_cache_has_neither_problems_nor_notes(root: Path) -> None:
    seen: list[int] = []
    report = cache.verify(root, progress=lambda file, size: seen.append(size))
    assert report.ok
    assert report.problems == report.notes == ()
    assert (report.splits, report.shards) == (1, 5 * (9 + 3))
    tables = (".", "track_", "video_", "run_")
    columns = [path for path in root.glob("toy/train/*") if not path.name.startswith(tables)]
    shards = [file for column in columns for file in column.rglob("*") if file.is_file() and "c" in file.parts]
    assert sum(seen) == report.bytes == sum(len(file.read_bytes()) for file in shards)


def test_a_flipped_bit_in_any_file_is_found(root: Path, toy: Any) -> None:
    # zarr.json of groups holds nothing that a reader of this project relies on
    groups = {"zarr.json", "toy/zarr.json", "toy/train/zarr.json", "toy/train/features/zarr.json"}
    files = [name for name in toy.tree(root) if name not in groups]
    for name in files[::5]:
        file = root / name
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 2):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            report = cache.verify(root)
            assert not report.ok, (name, place)
        file.write_bytes(whole)
    assert cache.verify(root).ok


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
