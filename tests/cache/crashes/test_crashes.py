"""Killed at any point and started again, a run ends with the same bytes; readers meanwhile see old or new."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from benchmarks import crashes
from benchmarks.crash_runs import RUNS
from cache import StreamWriter

KILLS = 3  # of each run, and every other one is killed again while it goes on; `benchmarks/crashes.py` has hundreds

crashes.FRESH.set_forkserver_preload(["pytest", "cache"])


@pytest.mark.slow
def test_every_run_survives_sigkill_and_readers_beside_it_see_old_or_new(tmp_path: Path) -> None:
    jobs = [crashes.Toy(name) for name in RUNS]
    tallies = crashes.chain(jobs, tmp_path, KILLS * len(jobs), random.Random(0))
    assert [text for tally in tallies for text in tally.wrong] == []
    assert all(tally.kills >= KILLS for tally in tallies)
    assert sum(tally.kills for tally in tallies) >= 20
    for tally in tallies:  # some kills came before the commit, some after it, and no two left the same behind
        assert tally.old >= 1
        assert tally.reads > 0
        assert len(tally.states) >= KILLS
    assert sum(tally.new for tally in tallies) >= 3
    assert "kills. Every cache verified" in "\n".join(crashes.results(tallies, seed=0, seconds=1))


def test_videos_in_finished_shards_are_not_asked_for_again(tmp_path: Path, toy: Any) -> None:
    toy.unfinished(tmp_path, toy.videos()[:4], "plan")  # a 0-10, b 10-37, c none, d 37-107; shards of 32 rows
    with toy.writer(tmp_path, "plan") as writer:
        assert writer.committed_videos == {}
        writer.begin()
        assert writer.journalled == ("a", "b", "c")  # d reaches beyond the last journalled shard, 64-96


def test_another_plan_starts_from_the_beginning(tmp_path: Path, toy: Any) -> None:
    toy.unfinished(tmp_path / "x", toy.videos(seed=1), "old")
    short = [toy.video("a", [10])]
    toy.write(tmp_path / "x", short, plan="new")
    toy.write(tmp_path / "calm", short, plan="new")
    assert toy.tree(tmp_path / "x") == toy.tree(tmp_path / "calm")
    assert cache.verify(tmp_path / "x").notes == ()


def test_a_torn_or_changed_journal_line_counts_as_never_written(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    whole = toy.unfinished(tmp_path / "whole", toy.videos(), "plan").read_bytes()
    changed = whole.replace(b'"fps": 25.0', b'"fps": 26.0')
    for number, journal in enumerate((b"", whole[:5], whole[: len(whole) // 3], whole[:-1], changed)):
        root = tmp_path / str(number)
        toy.unfinished(root, toy.videos(), "plan").write_bytes(journal)
        toy.write(root, toy.videos())
        assert toy.tree(root) == toy.tree(tmp_path / "calm")


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_a_journalled_shard_that_is_lost_or_damaged_is_written_again(tmp_path: Path, toy: Any, damage: str) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    toy.unfinished(tmp_path / "killed", toy.videos()[:4], "plan")
    shard = tmp_path / "killed/toy/train/bbox/c/1/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.unlink() if damage == "lost" else shard.write_bytes(data)
    toy.write(tmp_path / "killed", toy.videos())
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "calm")


def test_a_reader_sees_nothing_of_what_is_not_committed(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    opened = cache.open(tmp_path)["toy/train"]
    with toy.writer(tmp_path, "next") as writer:
        writer.begin(["a"])
        writer.append(*toy.video("b", [100]))
        for split in (opened, cache.open(tmp_path)["toy/train"]):
            assert [track.name for track in split.tracks] == ["a/0"]
            assert len(split.windows(16, 16)) == 2
        writer.commit({})
    assert [track.name for track in opened.tracks] == ["a/0"]
    np.testing.assert_array_equal(opened.rows("bbox", 0, 40), toy.track("a/0", 40).columns["bbox"])
    assert [track.name for track in cache.open(tmp_path)["toy/train"].tracks] == ["b/0"]


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tracks: Path, toy: Any) -> None:
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        writer.write(*toy.given(writer, 1))
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="old") as writer:
        assert writer.pending == [0, 2, 3, 4]
    with StreamWriter(tracks, "toy/train", "resnet50", dim=4, plan="new") as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
