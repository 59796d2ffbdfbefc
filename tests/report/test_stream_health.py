"""Whether a stream's numbers look as they should, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.data.splits import open_splits
from report.data.stream_health import Health, Moments, apart, faults, stream_section
from tests.report.conftest import person, write_split, write_stream


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (([-1.0], [1.0]), ([1.0], [3.0]), 2),  # means two apart with a spread of one
        # the first channel is 2 spreads apart, the second none: sqrt((4 + 0) / 2), whatever its size
        (([-1.0, 500.0], [1.0, 900.0]), ([1.0, 500.0], [3.0, 900.0]), math.sqrt(2)),
        (([-1.0, 7.0], [1.0, 7.0]), ([1.0, 7.0], [3.0, 7.0]), 2),  # a constant channel is left out
        (([-1.0, 7.0], [1.0, 7.0]), ([1.0, 8.0], [3.0, 8.0]), math.inf),  # unless its values differ
        (([1.0],), (), math.nan),  # without rows
    ],
)
def test_distance_of_means_in_units_of_the_spread(a: Any, b: Any, expected: float) -> None:
    assert apart(Moments.of(np.array(a)), Moments.of(np.array(b))) == pytest.approx(expected, nan_ok=True)


def test_bad_numbers_are_counted_and_spoil_nothing_else() -> None:
    features = np.ones((6, 4), np.float32)
    features[0, :2] = np.nan
    features[1, 0] = np.inf
    features[2] = 0
    health = Health.of(features, np.zeros(6, np.int64))
    assert (health.rows, health.not_finite, health.nans, health.infinities, health.zeros) == (6, 2, 2, 1, 1)
    assert health.norms.tolist() == [2, 2, 2]
    assert health.halves[0].n == 4
    rows = np.random.default_rng(0).normal(size=(6, 4))
    rows[:, :3] = 2.5
    assert Health.of(rows, np.arange(6)).constant == 0.75


def test_rows_without_a_picture_are_counted_and_not_sampled(root: Path) -> None:
    data = stream_section(open_splits(root), "resnet50").data
    assert data["coverage"] == [("penn_action/train", 40, 0, 3, "untrained")]
    assert data["finite"] == [("penn_action", 37, 0, 0, 0, 0)]
    assert data["motion"] == ["amass/train"]
    (verdict,) = data["verdicts"]
    assert verdict.row[:3] == ("penn_action", "!", "3 rows with ok = 0")
    other = stream_section(open_splits(root), "crops").data
    assert (other["none"], other["coverage"], other["finite"]) == (["penn_action/train"], [], [])


def test_datasets_are_compared_with_each_other_and_each_with_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for dataset, shift in (("penn_action", 0.0), ("posetrack", 3.0)):
        write_split(tmp_path, f"{dataset}/train", {f"{video}/0": person(100) for video in "abcd"})
        write_stream(tmp_path, f"{dataset}/train", rng.normal(shift, 1, (400, 16)))
    data = stream_section(open_splits(tmp_path), "resnet50").data
    assert data["drift_header"] == ("", "penn_action", "posetrack")
    (_, same, other), (_, mirrored, _) = data["drift"]
    assert other == mirrored == pytest.approx(3, abs=0.15)
    assert 0 < same < 0.3  # two halves of 200 rows: about sqrt(2 / 200)
    assert data["norms"].rows[0][1] == 400


def health(norm: float = 20.0, constant: bool = False, **counts: int) -> Health:
    """Of four rows in two channels; sound but for what is named."""
    rows = np.ones((4, 2)) if constant else np.array([[1.0, 1.0], [2.0, 3.0], [1.0, 2.0], [3.0, 1.0]])
    return Health(rows=4, norms=np.full(4, norm), whole=Moments.of(rows), **counts)


def found(odd: Health, drift: tuple[float, float] | None) -> str:
    """The faults of a dataset between two sound ones. drift: its own, and from the nearest other."""
    every = {"odd": odd, "b": health(), "c": health()}
    table = None if drift is None else {"odd": {"odd": drift[0], "b": drift[1], "c": drift[1] + 1}}
    listed = list(faults("odd", every, table))
    assert all(do for _, do in listed)
    return "; ".join(what for what, _ in listed)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (health(), ""),
        (health(missing=5), "5 rows without features"),
        (health(lost=1), "1 row with ok = 0"),
        (health(not_finite=2), "NaN or infinity in 2 sampled rows"),
        (health(zeros=3), "only zeros in 3 sampled rows"),
        (health(constant=True), "100% of the channels never change"),
    ],
)
def test_faults_of_any_network(odd: Health, expected: str) -> None:
    assert found(odd, None) == found(odd, (0.1, 0.5)) == expected


@pytest.mark.parametrize(
    ("norm", "drift", "expected"),
    [
        (50.0, (0.1, 0.5), "median norm 50"),
        (8.0, (0.1, 0.5), "median norm 8"),
        (20.0, (0.1, 1.5), "drift of 1.50"),
        (20.0, (0.6, 1.5), ""),  # halves of one dataset drift as well
    ],
)
def test_norms_and_drift_count_for_a_trained_network_alone(
    norm: float, drift: tuple[float, float], expected: str
) -> None:
    assert found(health(norm), None) == ""
    assert found(health(norm), drift).startswith(expected)
    assert bool(found(health(norm), drift)) == bool(expected)
