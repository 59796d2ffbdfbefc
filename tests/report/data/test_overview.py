"""What is in the cache, and what became of everything that was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.accounting import VideoAccount
from pipeline.datasets import get
from pipeline.datasets.release import Totals
from pipeline.reasons import REASONS
from report.data.opened import open_splits
from report.data.overview import accounting_section, overview_section


def rows(section: Any, key: str = "rows") -> dict[str, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in section.data[key]}


def test_a_split_tells_how_much_it_holds(root: Path) -> None:
    told = rows(overview_section(open_splits(root)))
    assert told["penn_action/train"] == ("stand-in", 2, 2, 40, "2 s", "resnet50 (untrained)")
    assert told["amass/train"] == ("stand-in", 1, 1, 12, "rate not known", "none")
    assert told["all"] == ("", 3, 3, 52, "2 s (of 2 tracks; no rate for the others)", "")  # 40 rows at 25 a second


def test_every_split_tells_its_columns(root: Path) -> None:
    told = rows(overview_section(open_splits(root)), "columns")
    assert told["amass/train"] == ("frame_index, pose, betas, has_smpl",)


def test_only_tracks_with_a_rate_count_as_hours(tmp_path: Path) -> None:
    columns = {"frame_index": np.arange(0, 7200, 2)}
    with cache.SplitWriter(tmp_path, "a/train", columns=columns, plan="by hand") as writer:
        writer.begin()
        for video, fps in (("known", 2.0), ("not", np.nan)):
            track = cache.TrackRows(name=f"{video}/0", video=video, step=2, fps=fps, crop_scale=1.3, columns=columns)
            writer.append(cache.VideoEntry(name=video), [track])
        writer.commit({})
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    assert row[5] == "60 min (of 1 track; no rate for the others)"  # 3,600 rows, two frames each, two frames a second


def test_a_stream_that_lags_behind_says_how_many_rows_it_lacks(tmp_path: Path, make: Any) -> None:
    make.write_split(tmp_path, "penn_action/train", {"0001/0": make.person(20)})
    make.write_stream(tmp_path, "penn_action/train", np.ones((20, 4)))
    columns = make.person(15)
    with cache.SplitWriter(tmp_path, "penn_action/train", columns=columns, plan="more") as writer:
        writer.begin()
        track = cache.TrackRows(name="0002/0", video="0002", step=1, fps=25.0, crop_scale=1.3, columns=columns)
        writer.append(cache.VideoEntry(name="0002"), [track])
        writer.commit({})
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    assert row[6] == "resnet50 (untrained, lags behind: lacks 15 rows)"


def test_found_is_kept_and_what_was_left_out_by_reason(root: Path) -> None:
    told = rows(accounting_section(open_splits(root)))
    # 7 videos of 3 person-frames each were set aside; one of the other two lost 5
    reasons = "videos: 7 bad_labels; person-frames: 21 bad_labels, 5 no_box"
    assert told["penn_action/train"] == (9, 2, 2, 2, 66, 40, reasons)
    assert 66 == 40 + 21 + 5
    assert told["amass/train"] == (1, 1, 1, 1, 12, 12, "nothing")
    assert told["all"] == (10, 3, 3, 3, 78, 52, "")


def test_reasons_that_occur_are_explained_faults_first(tmp_path: Path, make: Any) -> None:
    account = VideoAccount("0", found=20)
    account.drop("resampled", 7)
    account.drop("bad_camera", 3)
    account.keep_track(10)
    make.write_split(tmp_path, "a/train", {"0/0": make.person(10)}, accounts=[account])
    fault, harmless = accounting_section(open_splits(tmp_path)).data["reasons"]
    assert fault == ("bad_camera", "something is wrong", "3 person-frames", REASONS["bad_camera"].meaning)
    assert harmless[:3] == ("resampled", "by design", "7 person-frames")


def test_videos_set_aside_are_told_in_words_and_the_rest_is_counted(root: Path) -> None:
    data = accounting_section(open_splits(root)).data
    (aside,) = data["aside"]
    assert (aside.split, aside.n, len(aside.first)) == ("penn_action/train", 7, 5)
    assert aside.first[0] == "1000: bad_labels: labels/1000.mat: expected 13 joints, <found> 12."
    assert data["command"].endswith(f"-m pipeline status --all --cache {root}")


def found(videos: int) -> list[VideoAccount]:
    """So many videos, each with one track of ten rows."""
    accounts = [VideoAccount(f"{i:04d}", found=10) for i in range(videos)]
    for account in accounts:
        account.keep_track(10)
    return accounts


def test_real_data_is_compared_with_what_the_release_has(tmp_path: Path, make: Any) -> None:
    tracks = {"0000/0": make.person(10)}
    known = Totals(videos=8)
    make.write_split(tmp_path, "posetrack/val", tracks, accounts=found(2), known=known, stand_in=False)
    data = accounting_section(open_splits(tmp_path)).data
    assert data["coverage"] == [("posetrack/val", "videos", 2, 8, 25.0)]
    (short,) = data["missing"]
    assert "2 videos found of 8 in the release" in short


def test_a_release_known_over_all_splits_is_compared_when_all_are_here(tmp_path: Path, make: Any) -> None:
    (total,) = (get("penn_action").totals["all"].as_dict()[what] for what in ("videos",))
    for n, split in ((3, "train"), (4, "test")):
        assert accounting_of(tmp_path)["coverage"] == []
        make.write_split(tmp_path, f"penn_action/{split}", {"0/0": make.person(10)}, accounts=found(n), stand_in=False)
    told = {what: numbers for _, what, *numbers in accounting_of(tmp_path)["coverage"]}
    assert told["videos"] == [7, total, pytest.approx(100 * 7 / total)]
    assert told["person-frames"][0] == 70


def accounting_of(root: Path) -> Any:
    return accounting_section(open_splits(root)).data if (root / "zarr.json").exists() else {"coverage": []}


def test_stand_ins_are_not_compared_with_a_release(root: Path) -> None:
    data = accounting_section(open_splits(root)).data
    assert data["coverage"] == []
    assert data["stand_ins"] == ["amass/train", "penn_action/train"]


def test_a_split_that_somebody_else_wrote_says_that_nothing_was_recorded(tmp_path: Path) -> None:
    with cache.SplitWriter(tmp_path, "a/train", columns=["frame_index"], plan="by hand") as writer:
        writer.begin()
        writer.commit({})
    data = accounting_section(open_splits(tmp_path)).data
    assert (data["rows"], data["unrecorded"]) == ([], ["a/train"])
