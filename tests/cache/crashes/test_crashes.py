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
from cache import SplitWriter, StreamWriter

KILLS = 3  # of each run, and every other one is killed again while it goes on; `benchmarks/crashes.py` has hundreds

crashes.FRESH.set_forkserver_preload(["pytest", "cache"])


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


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
    assert "kills. Every cache verified" in crashes.report(tallies, seed=0, seconds=1)


def interrupted(root: Path, toy: Any, videos: Any, plan: str = "plan") -> Path:
    """A conversion that dies when it has appended these videos; its journal."""
    sizes: Any = {"rows_per_shard": 32, "rows_per_chunk": 8}
    with pytest.raises(Killed), SplitWriter(root, "toy/train", columns=toy.columns, plan=plan, **sizes) as writer:
        writer.begin()
        for video in videos:
            writer.append(*video)
        raise Killed
    return root / "toy/train/.writing/journal.jsonl"


def test_videos_in_finished_shards_are_not_asked_for_again(tmp_path: Path, toy: Any) -> None:
    interrupted(tmp_path, toy, toy.videos()[:4])  # a 0-10, b 10-37, c none, d 37-107; shards of 32 rows
    with SplitWriter(tmp_path, "toy/train", columns=toy.columns, plan="plan") as writer:
        assert writer.committed_videos == {}
    with SplitWriter(
        tmp_path, "toy/train", columns=toy.columns, plan="plan", rows_per_shard=32, rows_per_chunk=8
    ) as writer:
        writer.begin()
        assert writer.journalled == ("a", "b", "c")  # d reaches beyond the last journalled shard, 64-96


def test_another_plan_starts_from_the_beginning(tmp_path: Path, toy: Any) -> None:
    interrupted(tmp_path / "x", toy, toy.videos(seed=1), plan="old")
    short = [toy.video("a", [10])]
    toy.write(tmp_path / "x", short, plan="new")
    toy.write(tmp_path / "calm", short, plan="new")
    assert toy.tree(tmp_path / "x") == toy.tree(tmp_path / "calm")
    assert cache.verify(tmp_path / "x").notes == ()


def test_a_torn_or_changed_journal_line_counts_as_never_written(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    whole = interrupted(tmp_path / "whole", toy, toy.videos()).read_bytes()
    changed = whole.replace(b'"fps": 25.0', b'"fps": 26.0')
    for number, journal in enumerate((b"", whole[:5], whole[: len(whole) // 3], whole[:-1], changed)):
        root = tmp_path / str(number)
        interrupted(root, toy, toy.videos()).write_bytes(journal)
        toy.write(root, toy.videos())
        assert toy.tree(root) == toy.tree(tmp_path / "calm")


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_a_journalled_shard_that_is_lost_or_damaged_is_written_again(tmp_path: Path, toy: Any, damage: str) -> None:
    toy.write(tmp_path / "calm", toy.videos())
    interrupted(tmp_path / "killed", toy, toy.videos()[:4])
    shard = tmp_path / "killed/toy/train/bbox/c/1/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.unlink() if damage == "lost" else shard.write_bytes(data)
    toy.write(tmp_path / "killed", toy.videos())
    assert toy.tree(tmp_path / "killed") == toy.tree(tmp_path / "calm")


def test_a_reader_sees_nothing_of_what_is_not_committed(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    opened = cache.open(tmp_path)["toy/train"]
    with SplitWriter(tmp_path, "toy/train", columns=toy.columns, plan="next") as writer:
        writer.begin(["a"])
        writer.append(*toy.video("b", [100]))
        for split in (opened, cache.open(tmp_path)["toy/train"]):
            assert [track.name for track in split.tracks] == ["a/0"]
            assert len(split.windows(16, 16)) == 2
        writer.commit({})
    assert [track.name for track in opened.tracks] == ["a/0"]
    np.testing.assert_array_equal(opened.rows("bbox", 0, 40), toy.track("a/0", 40).columns["bbox"])
    assert [track.name for track in cache.open(tmp_path)["toy/train"].tracks] == ["b/0"]


def test_an_extraction_with_other_weights_does_not_take_over_journalled_shards(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    with pytest.raises(Killed), StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="old") as writer:
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        raise Killed
    with StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="old") as writer:
        assert writer.pending == [0, 2, 3, 4]
    with StreamWriter(tmp_path, "toy/train", "resnet50", dim=4, plan="new") as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
