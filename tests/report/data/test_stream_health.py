"""Whether a stream's numbers look as they should, against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.data.health_verdicts import Seen, judge
from report.data.opened import open_splits
from report.data.stream_health import Health, Moments, apart, stream_section


def moments(*rows: list[float]) -> Moments:
    made = Moments()
    made.add(np.array(rows))
    return made


def test_means_two_apart_with_a_spread_of_one_are_two_apart() -> None:
    assert apart(moments([-1.0], [1.0]), moments([1.0], [3.0])) == pytest.approx(2)


def test_channels_count_alike_whatever_their_size() -> None:
    # the first channel lies 2 spreads apart, the second none: sqrt((4 + 0) / 2)
    a, b = moments([-1.0, 500.0], [1.0, 900.0]), moments([1.0, 500.0], [3.0, 900.0])
    assert apart(a, b) == pytest.approx(math.sqrt(2))


def test_a_channel_that_never_changes_is_left_out_unless_its_values_differ() -> None:
    assert apart(moments([-1.0, 7.0], [1.0, 7.0]), moments([1.0, 7.0], [3.0, 7.0])) == pytest.approx(2)
    assert apart(moments([-1.0, 7.0], [1.0, 7.0]), moments([1.0, 8.0], [3.0, 8.0])) == math.inf


def test_without_rows_no_distance_is_known() -> None:
    assert math.isnan(apart(moments([1.0]), Moments()))


def test_numbers_that_are_none_are_counted_and_spoil_nothing_else() -> None:
    health = Health()
    features = np.ones((6, 4), np.float32)
    features[0, :2] = np.nan
    features[1, 0] = np.inf
    features[2] = 0
    health.add(features, np.zeros(6, np.int64))
    assert (health.rows, health.not_finite, health.nans, health.infinities, health.zeros) == (6, 2, 2, 1, 1)
    assert np.concatenate(health.norms).tolist() == [2, 2, 2]
    assert health.halves[0].n == 4


def test_rows_without_a_picture_are_counted_and_not_looked_at(root: Path) -> None:
    data = stream_section(open_splits(root), "resnet50").data
    assert data["coverage"] == [("penn_action/train", 40, 0, 3, "untrained: a stand-in")]
    assert data["finite"] == [("penn_action", 37, 0, 0, 0, 0)]
    assert data["motion"] == ["amass/train"]


def test_datasets_are_compared_with_each_other_and_each_with_itself(tmp_path: Path, make: Any) -> None:
    rng = np.random.default_rng(0)
    for dataset, shift in (("penn_action", 0.0), ("posetrack", 3.0)):
        tracks = {f"{video}/0": make.person(100) for video in "abcd"}
        make.write_split(tmp_path, f"{dataset}/train", tracks)
        make.write_stream(tmp_path, f"{dataset}/train", rng.normal(shift, 1, (400, 16)))
    data = stream_section(open_splits(tmp_path), "resnet50").data
    assert data["drift_header"] == ("", "penn_action", "posetrack")
    (_, same, other), (_, mirrored, _) = data["drift"]
    assert other == mirrored == pytest.approx(3, abs=0.15)
    assert 0 < same < 0.3  # two halves of 200 rows: about sqrt(2 / 200)
    assert data["norms"].rows[0][1] == 400


def test_splits_that_the_stream_has_not_are_named(root: Path) -> None:
    data = stream_section(open_splits(root), "crops").data
    assert (data["none"], data["coverage"], data["finite"]) == (["penn_action/train"], [], [])


SOUND = Seen(lacking=0, lost=0, not_finite=0, zeros=0, constant=0.0, norm=20.0, own_drift=0.1, nearest=0.5)


def test_a_sound_dataset_is_ticked() -> None:
    for trained in (True, False):
        assert [one.row[1] for one in judge({"a": SOUND, "b": SOUND}, trained=trained)] == ["✓", "✓"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"lacking": 5}, "5 rows without features"),
        ({"lost": 1}, "1 row with ok = 0"),
        ({"not_finite": 2}, "NaN or infinity in 2 rows"),
        ({"zeros": 3}, "only zeros in 3 rows"),
        ({"constant": 0.75}, "75% of the channels never change"),
    ],
)
def test_what_is_wrong_with_any_network_is_said_with_what_to_do(fault: dict[str, Any], said: str) -> None:
    bad, good = judge({"bad": replace(SOUND, **fault), "good": SOUND}, trained=False)
    assert bad.row[:2] == ("bad", "!")
    assert said in bad.row[2]
    assert bad.do
    assert good.row[1] == "✓"


@pytest.mark.parametrize("fault", [{"norm": 50.0}, {"norm": 8.0}, {"nearest": 1.5}])
def test_norms_and_drift_count_for_a_trained_network_alone(fault: dict[str, Any]) -> None:
    seen = {"odd": replace(SOUND, **fault), "b": SOUND, "c": SOUND}
    assert [one.row[1] for one in judge(seen, trained=True)] == ["!", "✓", "✓"]
    assert [one.row[1] for one in judge(seen, trained=False)] == ["✓", "✓", "✓"]


def test_drift_that_halves_of_one_dataset_have_too_is_no_fault() -> None:
    (one,) = judge({"a": replace(SOUND, own_drift=0.6, nearest=1.5)}, trained=True)
    assert one.row[1] == "✓"


def test_the_page_says_what_is_wrong_with_a_dataset(root: Path) -> None:
    (one,) = stream_section(open_splits(root), "resnet50").data["verdicts"]
    assert one.row[:3] == ("penn_action", "!", "3 rows with ok = 0")


def test_channels_that_never_change_are_counted() -> None:
    health = Health()
    features = np.random.default_rng(0).normal(size=(6, 4))
    features[:, :3] = 2.5
    health.add(features, np.arange(6))
    assert health.constant == 0.75
