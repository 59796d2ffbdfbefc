"""Killed at any point and started again, a run ends with the same bytes; readers meanwhile see old or new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import crashes
from cache import StreamWriter

crashes.FRESH.set_forkserver_preload(["pytest", "cache"])


def test_videos_in_finished_shards_are_not_asked_for_again(tmp_path: Path, toy: Any) -> None:
    toy.unfinished(tmp_path, toy.videos()[:4], "plan")  # a 0-10, b 10-37, c none, d 37-107; shards of 32 rows
    with toy.writer(tmp_path, "plan") as writer:
        assert writer.committed_videos == {}
        writer.begin()
        assert writer.journalled == ("a", "b", "c")  # d reaches beyond the last journalled shard, 64-96


def test_a_torn_or_changed_journal_line_counts_as_never_written(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    whole = toy.unfinished(tmp_path / "whole", toy.videos(), "plan").read_bytes()
    changed = whole.replace(b'"fps": 25.0', b'"fps": 26.0')
    for number, journal in enumerate((b"", whole[:5], whole[: len(whole) // 3], whole[:-1], changed)):
        root = tmp_path / str(number)
        toy.unfinished(root, toy.videos(), "plan").write_bytes(journal)
        toy.write(root, toy.videos())
        assert toy.tree(root) == toy.tree(tmp_path / "calm")


@pytest.mark.parametrize(("number", "damage"), [(0, "lost"), (1, "lost"), (1, "damaged")])
def test_a_journalled_shard_that_is_lost_or_damaged_is_written_again(
    tmp_path: Path, toy: Any, number: int, damage: str
) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    toy.unfinished(tmp_path / "killed", toy.videos()[:4], "plan")
    shard = tmp_path / f"killed/toy/train/bbox/c/{number}/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.unlink() if damage == "lost" else shard.write_bytes(data)
    toy.write(tmp_path / "killed", toy.videos())
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "calm")


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tracks: Path, toy: Any) -> None:
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        writer.write(*toy.given(writer, 1))
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        assert writer.pending == [0, 2, 3, 4]
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="new") as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
