"""Sampled rows stand for all rows of committed tracks, and for no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import cache
from report.data.samples import sample, spread_ranks


def test_each_of_so_many_equal_parts_gives_one_row() -> None:
    ranks = spread_ranks(1_000_000, 1000)
    assert (ranks // 1000).tolist() == list(range(1000))
    assert len({int(rank) % 1000 for rank in ranks}) > 500  # not always the same place: rows may be periodic
    assert np.array_equal(ranks, spread_ranks(1_000_000, 1000))


def test_of_few_rows_all_are_taken(root: Path) -> None:
    split = cache.open(root)["penn_action/train"]
    taken = sample([split])
    assert taken.in_words == "all 40 rows"
    assert split.track_of(taken.of[0][1]).tolist() == [0] * 30 + [1] * 10


def test_rows_of_no_track_are_never_taken(tmp_path: Path) -> None:
    columns = {"frame_index": np.arange(10)}
    for drop in ([], ["b"]):  # the second commit drops a video, whose rows stay behind between the others
        with cache.SplitWriter(tmp_path, "a/train", columns=columns, plan="by hand") as writer:
            writer.begin(drop=drop)
            for video in "abc" if not drop else "":
                track = cache.TrackRows(
                    name=f"{video}/0", video=video, step=1, fps=25.0, crop_scale=1.3, columns=columns
                )
                writer.append(cache.VideoEntry(name=video), [track])
            writer.commit({})
    taken = sample([cache.open(tmp_path)["a/train"]], 7)
    ((_, rows),) = taken.of
    assert taken.in_words == "7 of 20 rows"
    assert len(set(rows.tolist())) == 7
    assert set(rows.tolist()) <= {*range(10), *range(20, 30)}
    assert any(row >= 20 for row in rows.tolist())


def test_splits_of_a_dataset_give_rows_by_their_size(root: Path) -> None:
    opened = cache.open(root)
    taken = sample([opened["penn_action/train"], opened["amass/train"]], 13)  # 40 and 12 rows: a row of each four
    assert [len(rows) for _, rows in taken.of] == [10, 3]
    assert (taken.taken, taken.total) == (13, 52)
