import numpy as np
import pytest

from pipeline.people.track import Track, other_units


@pytest.mark.parametrize(  # of two equally common ones the smaller
    ("frame_index", "step"),
    [
        ([0, 1, 2, 3, 5, 6], 1),
        ([0, 2, 4, 6], 2),
        ([0, 4, 8, 9, 13], 4),
        ([0, 3, 5, 8, 10], 2),
        ([7], 1),
    ],
)
def test_the_step_is_the_most_common_difference(frame_index, step):
    track = Track(
        dataset="d",
        split="train",
        name="v/0",
        video="v",
        fps=25.0,
        frame_index=np.array(frame_index),
    )
    assert track.step == step


@pytest.mark.parametrize(
    ("column", "labels", "found"),
    [
        ("kp_3d_eval", np.linspace(0, 1700, 14)[:, None] * [0.0, 1.0, 0.0], "1.7e+03 m"),
        ("pose", np.full(72, 90.0), "156 rad"),
    ],
)
def test_another_unit_is_found_beside_frames_of_nan(column, labels, found):
    rows = np.stack([np.full_like(labels, np.nan), labels, labels]).astype(np.float32)
    assert [(name, was) for name, _, was in other_units({column: rows})] == [(column, found)]


@pytest.mark.parametrize(
    ("column", "rows", "factor"),
    [
        ("kp_3d_eval", np.linspace(0, 1.7, 14)[:, None] * [0.0, 1.0, 0.0], 1000),
        ("pose", np.full(72, 1.5), 180 / np.pi),
        ("trans", np.array([1.0, 2.0, 3.0]), 1000),
        ("extrinsics", np.eye(4) + np.eye(4, k=3) * 5, 1000),
    ],
)
def test_another_unit_in_a_third_of_the_rows_is_found(column, rows, factor):
    other = rows * factor
    if column == "extrinsics":
        other = np.eye(4) + np.eye(4, k=3) * 5 * factor
    mixed = np.stack([rows, rows, other] * 8).astype(np.float32)
    assert [name for name, *_ in other_units({column: mixed})] == [column]
    wild = np.stack([rows] * 23 + [other]).astype(np.float32)
    assert not list(other_units({column: wild})), "a single frame proves nothing"


@pytest.mark.parametrize("n_rows", range(2, 10))
def test_one_wild_frame_of_a_short_track_is_no_other_unit(n_rows):
    joints = np.linspace(0, 1.7, 14)[:, None] * [0.0, 1.0, 0.0]
    rows = np.stack([joints] * n_rows).astype(np.float32)
    rows[0] *= 1000
    assert not list(other_units({"kp_3d_eval": rows}))
    rows[1:] *= 1000
    assert [name for name, *_ in other_units({"kp_3d_eval": rows})] == ["kp_3d_eval"]
