"""A cache that is copied while a writer commits: docs/operations.md has the order, the small files first."""

import shutil
from pathlib import Path
from typing import Any

import cache

TABLES = ("run_", "track_", "video_")


def copy(root: Path, to: Path, *, shards: bool) -> None:
    """One of the two passes: all but shards, replacing what is there; or what is not there yet."""
    for file in sorted(file for file in root.rglob("*") if file.is_file()):
        place = file.relative_to(root)
        small = "c" not in place.parts or any(part.startswith(TABLES) for part in place.parts)
        if ".writing" not in place.parts and (not (to / place).exists() if shards else small):
            (to / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to / place)


def boxes(split: cache.Split) -> list[Any]:
    """Those of every track."""
    places = zip(split.tracks.start, split.tracks.stop, strict=True)
    return [split.rows("bbox", int(start), int(stop)).tolist() for start, stop in places]


def commit_more(root: Path, toy: Any, *videos: str) -> None:
    drop = [name for name in cache.open(root)["toy/train"].videos.names if name == "b"]
    toy.write(root, [toy.video(name, [40]) for name in videos], drop=drop, plan=" ".join(videos))
    toy.write_stream(root)


def test_a_copy_has_the_commit_of_its_small_files_and_all_that_it_names(root: Path, toy: Any, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    for videos in (("x",), ("y", "z")):  # the second one updates an earlier copy
        expected = cache.open(root)["toy/train"]
        names, rows = expected.videos.names, boxes(expected)
        copy(root, backup, shards=False)
        commit_more(root, toy, *videos)
        copy(root, backup, shards=True)
        assert cache.verify(backup).ok
        found = cache.open(backup)["toy/train"]
        assert (found.videos.names, boxes(found)) == (names, rows)
        cache.gc(backup)  # shards of the commit in between
        assert cache.verify(backup).ok
