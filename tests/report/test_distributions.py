"""Sampled rows and the measures of a dataset, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.skeletons import JOINTS
from report.data.distributions import GROUPS, distances_from_mean, distributions_section, visible_share
from report.data.splits import open_splits, sample, spread_ranks
from report.figures import Plot
from tests.report.conftest import moving, person, write_split

NAMES = JOINTS["spin49"]


def plots(root: Path) -> dict[str, Plot]:
    return {plot.title: plot for plot in distributions_section(open_splits(root)).data["plots"]}


def row(plot: Plot, name: str) -> dict[str, Any]:
    (found,) = (dict(zip(plot.header, row, strict=True)) for row in plot.rows if row[0] == name)
    return found


def test_each_of_so_many_equal_parts_gives_one_row() -> None:
    ranks = spread_ranks(1_000_000, 1000)
    assert (ranks // 1000).tolist() == list(range(1000))
    assert len({int(rank) % 1000 for rank in ranks}) > 500  # not always the same place: rows may be periodic
    assert np.array_equal(ranks, spread_ranks(1_000_000, 1000))


def test_splits_give_rows_by_their_size_and_all_where_there_are_few(root: Path) -> None:
    opened = cache.open(root)
    penn, amass = opened["penn_action/train"], opened["amass/train"]
    every = sample([penn])
    assert str(every) == "all 40 rows"
    assert penn.track_of(every.of[0][1]).tolist() == [0] * 30 + [1] * 10
    taken = sample([penn, amass], 13)  # 40 and 12 rows: a row of each four
    assert [len(rows) for _, rows in taken.of] == [10, 3]
    assert (taken.taken, taken.total) == (13, 52)


def test_rows_of_no_track_are_never_taken(tmp_path: Path) -> None:
    columns = {"frame_index": np.arange(10)}
    write_split(tmp_path, "a/train", {f"{video}/0": columns for video in "abc"})
    write_split(tmp_path, "a/train", {}, drop=["b"])  # its rows stay between the others
    taken = sample([cache.open(tmp_path)["a/train"]], 7)
    ((_, rows),) = taken.of
    assert str(taken) == "7 of 20 rows"
    assert len(set(rows.tolist())) == 7
    assert set(rows.tolist()) <= {*range(10), *range(20, 30)}
    assert any(row >= 20 for row in rows.tolist())


def test_poses_turned_by_so_much_to_either_side_are_so_far_from_their_mean() -> None:
    pose = moving(10, 12)["pose"].astype(np.float64).reshape(12, 24, 3)
    assert distances_from_mean(pose.reshape(12, 72)) == pytest.approx(10, abs=1e-5)
    pose[:, [0, 22, 23]] = np.random.default_rng(0).normal(size=(12, 3, 3))  # root and hands do not count
    assert distances_from_mean(pose.reshape(12, 72)) == pytest.approx(10, abs=1e-5)
    one = np.zeros((2, 24, 3))  # one joint in 21 that moves counts for a 21st
    one[0, 4, 1], one[1, 4, 1] = np.deg2rad(42), -np.deg2rad(42)
    assert distances_from_mean(one.reshape(2, 72)) == pytest.approx(2)


def test_a_point_is_visible_at_either_of_its_places() -> None:
    visible = np.zeros((4, 49), bool)
    visible[0, NAMES.index("OP LKnee")] = True
    visible[1, NAMES.index("lknee")] = True
    visible[2, [NAMES.index("OP LKnee"), NAMES.index("lknee")]] = True
    assert visible_share(visible, GROUPS["knees"]) == pytest.approx(100 * 3 / 8)  # 3 left knees of 8 knees
    names = {name.removeprefix("OP ").lower() for name in NAMES}
    assert {point for points in GROUPS.values() for point in points} <= names


def test_lengths_boxes_joints_and_poses_are_those_of_the_cache(root: Path) -> None:
    shown = plots(root)
    length = row(shown["Track length"], "penn_action")
    assert (length["values"], length["median"]) == (2, 20)  # 30 and 10
    box = row(shown["Box size"], "penn_action")
    assert (box["values"], box["5 %"], box["median"]) == (40, 50, 100)  # 10 rows of 50 px, 30 of 100
    visible = row(shown["Visible joints in a frame"], "penn_action")
    assert (visible["5 %"], visible["median"]) == (25, 49)
    pose = row(shown["Pose variety"], "amass")
    assert (pose["values"], pose["median"]) == (12, pytest.approx(10, abs=1e-4))
    data = distributions_section(open_splits(root)).data
    assert data["without"] == {"2D keypoints": ["amass"], "boxes": ["amass"], "SMPL poses": ["penn_action"]}
    assert row(shown["Visible joints in a frame"], "amass")["values"] == 0
    assert row(shown["Pose variety"], "penn_action")["values"] == 0


def test_poses_that_are_not_known_do_not_count(tmp_path: Path) -> None:
    columns = moving(10, 12)
    columns["has_smpl"][:4] = 0
    columns["pose"][:4] = 3
    columns["pose"][4] = np.nan
    write_split(tmp_path, "amass/train", {"a/0": columns})
    assert row(plots(tmp_path)["Pose variety"], "amass")["values"] == 7


def test_damage_to_one_dataset_leaves_the_others(tmp_path: Path) -> None:
    for dataset in ("penn_action", "posetrack"):
        write_split(tmp_path, f"{dataset}/train", {"a/0": person(10)})
    for shard in (tmp_path / "penn_action/train/bbox/c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    section = distributions_section(open_splits(tmp_path))
    (problem,) = section.data["problems"]
    assert problem.startswith("penn_action/train: ")
    assert "bbox" in problem
    shown = {plot.title: plot for plot in section.data["plots"]}
    assert row(shown["Box size"], "penn_action")["values"] == 0
    assert row(shown["Box size"], "posetrack")["values"] == 10
    assert row(shown["Visible joints in a frame"], "penn_action")["values"] == 10
