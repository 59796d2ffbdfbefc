import numpy as np
import pytest

from vibe_model.config import TrainConfig
from vibe_model.data import Batches, WindowPool, WindowSampler
from vibe_model.errors import DataError


def test_every_window_is_seen_once_before_any_is_seen_again():
    sampler = WindowSampler(7, seed=3, part=0)
    drawn = np.concatenate([sampler.at(5 * k, 5) for k in range(7)])  # five times round
    for turn in drawn.reshape(5, 7):
        assert sorted(turn) == list(range(7))
    assert len({tuple(turn) for turn in drawn.reshape(5, 7)}) > 1


def test_a_batch_larger_than_the_pool_goes_round_within_itself():
    assert sorted(WindowSampler(3, seed=0, part=0).at(0, 6)) == [0, 0, 1, 1, 2, 2]


def test_what_is_drawn_depends_on_the_place_alone():
    sampler, other = WindowSampler(50, seed=1, part=2), WindowSampler(50, seed=1, part=2)
    forwards = [sampler.at(8 * k, 8) for k in range(20)]
    backwards = [other.at(8 * k, 8) for k in reversed(range(20))][::-1]
    np.testing.assert_array_equal(forwards, backwards)


@pytest.mark.parametrize("other", [{"seed": 2, "part": 0}, {"seed": 1, "part": 1}])
def test_seeds_and_parts_have_their_own_order(other):
    a, b = WindowSampler(50, seed=1, part=0), WindowSampler(50, **other)
    assert (a.at(0, 50) != b.at(0, 50)).any()


@pytest.fixture
def splits(memory_split):
    return {
        "a/train": memory_split(1, [9, 4]),
        "b/train": memory_split(2, [5]),
        "c/train": memory_split(3, [12], with_3d=False),
        "m/train": memory_split(4, [20]),
    }


@pytest.fixture
def config():
    return TrainConfig(
        datasets_2d=("c/train", "a/train"),
        datasets_3d=("a/train", "b/train"),
        motion=("m/train",),
        validation=("b/train",),
        evaluation=(),
        seqlen=4,
        stride=4,
        strides={"a/train": 2},
        batch_size=5,
        feature_size=6,
    )


def test_windows_of_several_splits_come_back_in_the_order_asked_for(splits):
    names = ("a/train", "b/train")
    pool = WindowPool("x", {n: splits[n] for n in names}, dict.fromkeys(names, 2), seqlen=4, stream="resnet50")
    # a: rows 0, 2, 4 of the first track (9 frames), 9 of the second; b: row 0.
    assert pool.counts == {"a/train": 4, "b/train": 1}
    read = pool.read(np.array([4, 1, 3, 1]), ("features", "w_3d"))
    a, b = (splits[n].rows["features"] for n in names)
    np.testing.assert_array_equal(read["features"], [b[0:4], a[2:6], a[9:13], a[2:6]])
    assert read["w_3d"].shape == (4, 4)


def test_a_batch_is_the_2d_part_then_the_3d_part_and_motion(config, splits):
    batches = Batches(config, splits)
    assert batches.counts["datasets_2d"] == {"c/train": 3, "a/train": 4}
    labels, motion = batches.at(0)
    assert config.windows_2d == 3
    assert {name: value.shape[0] for name, value in labels.items()} == dict.fromkeys(labels, 5)
    for name in ("w_3d", "w_smpl", "kp_3d", "theta"):  # also of a split that has 3D labels
        assert not labels[name][:3].any()
        assert labels[name][3:].any()
    assert motion.shape == (5, 4, 85)
    assert all(value.dtype == np.float32 for value in labels.values())


def test_the_batches_from_a_step_on_are_those_of_the_steps(config, splits):
    stream = Batches(config, splits).stream(3)
    for step in range(3, 9):
        ours, expected = next(stream), Batches(config, splits).at(step)
        np.testing.assert_array_equal(ours.real_theta, expected.real_theta)
        for name, value in expected.labels.items():
            np.testing.assert_array_equal(ours.labels[name], value)
    stream.close()


def test_an_error_while_reading_ahead_arrives(config, splits):
    splits["c/train"].read = lambda *a, **k: (_ for _ in ()).throw(OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        next(Batches(config, splits).stream(0))


def test_no_motion_no_real_batch(config, splits):
    from dataclasses import replace

    assert Batches(replace(config, motion=()), splits).at(0).real_theta is None


def test_a_part_without_windows_is_refused_by_name(config, splits, memory_split):
    splits["m/train"] = memory_split(0, [3, 3])
    with pytest.raises(DataError, match=r"motion.*m/train"):
        Batches(config, splits)


def test_an_evaluation_split_cannot_be_trained_on(config, splits, memory_split):
    splits["b/train"] = memory_split(0, [8], joints=14)
    with pytest.raises(DataError, match=r"b/train.*49 joints.*14"):
        [Batches(config, splits).at(step) for step in range(5)]
