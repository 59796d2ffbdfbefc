"""Sampled rows, the measures of a dataset and the health of a stream, against numbers worked out by hand."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from pipeline.skeletons import JOINTS
from tests.vibe_extensions.pages.report.conftest import moving, person, write_split, write_stream
from vibe_extensions.pages.report import statistics
from vibe_extensions.pages.report.data import open_splits
from vibe_extensions.pages.report.page import Plot
from vibe_extensions.pages.report.statistics import (
    GROUPS,
    Health,
    distances_from_mean,
    distributions_section,
    faults,
    sample,
    spread_ranks,
    stream_section,
    visible_share,
)

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
    ((_, rows),) = sample([penn])
    assert penn.track_of(rows).tolist() == [0] * 30 + [1] * 10
    assert [len(rows) for _, rows in sample([penn, amass], 13)] == [10, 3]  # 40 and 12 rows: a row of each four


def test_rows_of_no_track_are_never_taken(tmp_path: Path) -> None:
    columns = {"frame_index": np.arange(10)}
    write_split(tmp_path, "a/train", {f"{video}/0": columns for video in "abc"})
    write_split(tmp_path, "a/train", {}, drop=["b"])  # its rows stay between the others
    ((_, rows),) = sample([cache.open(tmp_path)["a/train"]], 7)
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


# ---------------------------------------------------------------------------------------------------- stream health


def table(root: Path, stream: str = "resnet50") -> dict[str, dict[str, Any]]:
    data = stream_section(open_splits(root), stream).data
    return {row[0]: dict(zip(data["header"], row, strict=True)) for row in data["table"]}


def test_bad_numbers_are_counted_and_spoil_nothing_else() -> None:
    features = np.random.default_rng(0).normal(size=(8, 4))
    features[:, 1:] = 1
    features[:4] = 1
    features[0, :2], features[1, 0], features[2] = np.nan, np.inf, 0
    health = Health.of(features)
    assert (health.sampled, health.not_finite, health.zeros) == (8, 2, 1)
    assert Health.of(np.full((4, 4), 0.5)) == Health(sampled=4, constant=1.0, norm=1.0)
    features[2] = 1
    assert Health.of(features).constant == 0.75


def test_rows_without_a_picture_are_counted_and_not_sampled(root: Path) -> None:
    section = stream_section(open_splits(root), "resnet50")
    penn = table(root)["penn_action"]
    counted = ("rows", "without features", "ok = 0", "sampled", "with NaN or infinity", "all 0")
    assert [penn[name] for name in counted] == [40, 0, 3, 37, 0, 0]
    assert penn["verdict"].startswith("! 3 rows with ok = 0")
    assert (section.line, section.unfolded, section.data["trained"]) == ("to look at: penn_action", True, False)
    assert section.data["motion"] == ["amass/train"]
    assert stream_section(open_splits(root), "crops").data["none"] == ["penn_action/train"]


def test_few_rows_are_read_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path, "penn_action/train", {"a/0": person(300)})
    write_stream(tmp_path, "penn_action/train", np.ones((300, 4)))
    monkeypatch.setattr(statistics, "sample", functools.partial(sample, most=64))
    opened = open_splits(tmp_path)
    assert distributions_section(opened).data["samples"] == {"penn_action": "64 of 300 rows"}
    assert table(tmp_path)["penn_action"]["sampled"] == 64


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({}, ""),
        ({"missing": 5}, "5 rows without features"),
        ({"lost": 1}, "1 row with ok = 0"),
        ({"not_finite": 2}, "NaN or infinity in 2 sampled rows"),
        ({"zeros": 3}, "only zeros in 3 sampled rows"),
        ({"constant": 0.75}, "75% of the channels never change"),
        ({"norm": 50.0}, "median norm 50, of the other datasets 20"),
        ({"norm": 8.0}, "median norm 8, of the other datasets 20"),
    ],
)
def test_each_fault_has_a_sentence_and_norms_count_for_a_trained_network_alone(odd: Any, expected: str) -> None:
    sound = Health(rows=4, sampled=4, norm=20.0)
    health = {"odd": replace(sound, **odd), "b": sound, "c": sound}
    assert "; ".join(faults("odd", health, trained=True)).startswith(expected)
    assert len([*faults("odd", health, trained=True)]) == bool(expected)
    assert [*faults("odd", health, trained=False)] == ([] if "norm" in odd else [*faults("odd", health, trained=True)])
