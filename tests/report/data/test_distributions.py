"""Measures of a dataset, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.skeletons import JOINTS
from report.data.distributions import GROUPS, distances_from_mean, distributions_section, seen_share
from report.data.opened import open_splits
from report.figures import Plot

NAMES = JOINTS["spin49"]


def plots(root: Path) -> dict[str, Plot]:
    return {plot.title: plot for plot in distributions_section(open_splits(root)).data["plots"]}


def row(plot: Plot, name: str) -> dict[str, Any]:
    (found,) = (dict(zip(plot.header, row, strict=True)) for row in plot.rows if row[0] == name)
    return found


def test_poses_turned_by_so_much_to_either_side_lie_so_far_from_their_mean(make: Any) -> None:
    assert distances_from_mean(make.sideways(10, 12)) == pytest.approx(10, abs=1e-6)


def test_root_and_hands_are_no_part_of_a_pose(make: Any) -> None:
    pose = make.sideways(10, 12).reshape(12, 24, 3)
    pose[:, [0, 22, 23]] = np.random.default_rng(0).normal(size=(12, 3, 3))
    assert distances_from_mean(pose.reshape(12, 72)) == pytest.approx(10, abs=1e-6)


def test_one_joint_in_21_that_moves_counts_for_a_21st() -> None:
    pose = np.zeros((2, 24, 3))
    pose[0, 4, 1], pose[1, 4, 1] = np.deg2rad(42), -np.deg2rad(42)
    assert distances_from_mean(pose.reshape(2, 72)) == pytest.approx(2)


def test_a_point_is_seen_at_either_of_its_places() -> None:
    visible = np.zeros((4, 49), bool)
    visible[0, NAMES.index("OP LKnee")] = True
    visible[1, NAMES.index("lknee")] = True
    visible[2, [NAMES.index("OP LKnee"), NAMES.index("lknee")]] = True
    assert seen_share(visible, GROUPS["knees"]) == pytest.approx(100 * 3 / 8)  # 3 left knees of 8 knees


def test_every_point_of_a_part_is_a_joint() -> None:
    names = {name.removeprefix("OP ").lower() for name in NAMES}
    assert {point for points in GROUPS.values() for point in points} <= names


def test_lengths_boxes_and_joints_are_those_of_the_cache(root: Path) -> None:
    told = plots(root)
    length = row(told["Track length"], "penn_action")
    assert (length["values"], length["median"]) == (2, 20)  # 30 and 10
    box = row(told["Box size"], "penn_action")
    assert (box["values"], box["5 %"], box["median"]) == (40, 50, 100)  # 10 rows of 50 px, 30 of 100
    visible = row(told["Visible joints in a frame"], "penn_action")
    assert (visible["5 %"], visible["median"]) == (25, 49)
    pose = row(told["Pose variety"], "amass")
    assert (pose["values"], pose["median"]) == (12, pytest.approx(10, abs=1e-4))


def test_a_dataset_without_a_measure_says_none(root: Path) -> None:
    data = distributions_section(open_splits(root)).data
    assert data["without"] == {"2D keypoints": ["amass"], "boxes": ["amass"], "SMPL poses": ["penn_action"]}
    assert row(plots(root)["Visible joints in a frame"], "amass")["values"] == 0
    assert row(plots(root)["Pose variety"], "penn_action")["values"] == 0


def test_poses_that_are_not_known_do_not_count(tmp_path: Path, make: Any) -> None:
    columns = make.moving(make.sideways(10, 12))
    columns["has_smpl"][:4] = 0
    columns["pose"][:4] = 3
    columns["pose"][4] = np.nan
    make.write_split(tmp_path, "amass/train", {"a/0": columns})
    assert row(plots(tmp_path)["Pose variety"], "amass")["values"] == 7


def test_what_is_damaged_in_one_dataset_leaves_the_others(tmp_path: Path, make: Any) -> None:
    make.write_split(tmp_path, "penn_action/train", {"a/0": make.person(10)})
    make.write_split(tmp_path, "posetrack/train", {"a/0": make.person(10)})
    for shard in (tmp_path / "penn_action/train/bbox/c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    section = distributions_section(open_splits(tmp_path))
    (problem,) = section.data["problems"]
    assert problem.startswith("penn_action/train: ")
    assert "bbox" in problem
    told = {plot.title: plot for plot in section.data["plots"]}
    assert row(told["Box size"], "penn_action")["values"] == 0
    assert row(told["Box size"], "posetrack")["values"] == 10
    assert row(told["Visible joints in a frame"], "penn_action")["values"] == 10
