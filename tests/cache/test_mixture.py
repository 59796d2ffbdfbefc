import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cache.mixture import Draws, Mixture, MixturePart
from tests.cache import toy
from tests.raising import cache_refuses

UNHURRIED = settings(deadline=None, max_examples=30)


# --------------------------------------------------------------------------------------------------
# Draws


@UNHURRIED
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    weights=st.lists(st.integers(1, 300), min_size=4, max_size=4),  # hundredths
    n_rounds=st.integers(1, 5),
)
def test_how_often_each_split_comes_is_exact_after_every_round(sizes, weights, n_rounds):
    names = [f"split {i}" for i in range(len(sizes))]
    draws = Draws(
        dict(zip(names, sizes, strict=True)),
        {n: w / 100 for n, w in zip(names, weights, strict=False)},
        1,
    )
    heaviest = max(w for w, size in zip(weights, sizes, strict=False) if size)
    expected = [n_rounds * w * size // heaviest for w, size in zip(weights, sizes, strict=False)]
    times = np.bincount(draws.take(0, sum(expected)), minlength=sum(sizes))
    assert len(times) == sum(sizes)
    for size, n_draws in zip(sizes, expected, strict=False):
        of_split, times = times[:size], times[size:]
        assert of_split.sum() == n_draws
        assert size == 0 or of_split.max() - of_split.min() <= 1


def test_a_decimal_weight_is_the_decimal_fraction_that_it_is_written_as():
    for weight in (0.3, np.float64(0.3)):  # in binary it is less: floor gives 29 in ten rounds
        drawn = Draws({"a": 10, "b": 10}, {"a": weight}, 0).take(0, 130)
        assert np.bincount(drawn // 10).tolist() == [30, 100]


@pytest.fixture(scope="module")
def row():
    sizes, weights = {"a": 11, "b": 300}, {"a": 7.5, "b": 0.25}  # 21 draws a round

    def fresh():
        return Draws(sizes, weights, 5)

    return fresh, fresh().take(0, 1100).tolist()


@UNHURRIED
@given(start=st.integers(0, 1000), count=st.integers(1, 100))
def test_a_stretch_of_draws_depends_on_its_place_alone(row, start, count):
    fresh, whole = row
    assert fresh().take(start, count).tolist() == whole[start : start + count]


def test_an_order_takes_eight_bytes_a_window():
    draws = Draws({"a": 300_000, "b": 100_000}, {"b": 0.5}, 0)
    tracemalloc.start()
    try:
        for step in range(8):  # of three rounds
            draws.take(step * 100_000, 64)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * 350_000 + 10_000
    assert most < 6 * 8 * 350_000  # while an order is made


def test_the_order_is_the_same_everywhere():
    """Changing these numbers changes every training run: raise the VERSION of each configuration
    in vibe_model.
    """
    drawn = Draws({"a": 5, "b": 4}, {"b": 0.5}, 0, "2d").take(0, 14)
    assert drawn.tolist() == [4, 7, 3, 1, 2, 0, 5, 6, 3, 1, 2, 4, 8, 0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="weight of b: expected more than 0"):
        Draws({"a": 1, "b": 1}, {"b": weight})


def test_no_window_at_all_is_refused():
    with pytest.raises(ValueError, match="found none in a, b"):
        Draws({"a": 0, "b": 0}, {})


# --------------------------------------------------------------------------------------------------
# Mixture


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Two splits on disk, of other lengths and labels."""
    found = {}
    for number, name in enumerate("ab"):
        root = tmp_path_factory.mktemp(name)
        toy.write(root, toy.videos(seed=number)[number:])
        toy.write_stream(root, bad_rows=[3])
        found[name] = toy.opened(root)
    return found


def parts_of(splits, **changes):
    two = {"splits": splits, "streams": ("resnet50",), "stride": 2}
    return [
        MixturePart(
            name="2d", count=5, fields=("resnet50", "kp_2d"), strides={"b": 3}, **two | changes
        ),
        MixturePart(name="3d", count=3, fields=("resnet50", "kp_3d", "w_3d"), **two | changes),
        MixturePart(name="motion", count=8, fields=("theta",), splits={"a": splits["a"]}, stride=1),
    ]


def test_a_batch_is_what_the_splits_say_of_its_windows(splits):
    mixture = Mixture(parts_of(splits), seqlen=4, seed=2)
    for step in range(12):
        picks = mixture.draw(step)
        batch = mixture.read(picks)
        assert {
            part: len(next(iter(fields.values()))) for part, fields in batch.items()
        } == mixture.sizes
        for name, part in mixture.parts.items():
            ends = [0]
            for pick in picks[name]:
                windows = np.stack([pick.starts, pick.starts + 4], axis=1)
                stride = 1 if name == "motion" else 3 if (name, pick.split) == ("2d", "b") else 2
                known = splits[pick.split].windows(4, stride, streams=part.streams)
                assert set(map(tuple, windows.tolist())) <= set(map(tuple, known.tolist()))
                expected = splits[pick.split].read(
                    windows, streams=part.streams, fields=part.fields, dtype="float16"
                )
                for field, values in expected.items():
                    assert_array_equal(batch[name][field][pick.rows], values)
                assert pick.rows.start == ends[-1]
                ends.append(pick.rows.stop)
            assert ends[-1] == part.count
    assert batch["2d"]["resnet50"].dtype == np.float16
    assert batch["2d"]["kp_2d"].dtype == np.float32


def test_parts_and_seeds_have_orders_of_their_own(splits):
    part = {"splits": splits, "count": 20, "fields": ("kp_2d",), "stride": 2}
    both = Mixture([MixturePart(name="x", **part), MixturePart(name="y", **part)], seqlen=4)
    drawn = both.draw(0)
    assert windows_in(drawn["x"]) != windows_in(drawn["y"])
    assert windows_in(drawn["x"]) != windows_in(
        Mixture([MixturePart(name="x", **part)], seqlen=4, seed=1).draw(0)["x"]
    )


def test_given_buffers_are_filled_and_others_are_not_read(splits):
    mixture = Mixture(parts_of(splits), seqlen=4)
    picks = mixture.draw(3)
    everything = mixture.read(picks)
    buffers = {"2d": {"resnet50": np.full((5, 4, 4), np.nan, np.float32)}, "3d": {}, "motion": {}}
    answer = mixture.read(picks, buffers)
    assert answer["2d"]["resnet50"] is buffers["2d"]["resnet50"]
    assert {part: list(fields) for part, fields in answer.items()} == {
        "2d": ["resnet50"],
        "3d": [],
        "motion": [],
    }
    # float16, widened exactly
    assert_array_equal(buffers["2d"]["resnet50"], everything["2d"]["resnet50"])


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 20])
def test_ranks_share_every_batch_evenly_and_leave_nothing_out(splits, world_size):
    whole = Mixture(parts_of(splits), seqlen=4, seed=1)
    ranks = [
        Mixture(parts_of(splits), seqlen=4, seed=1, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step in range(5):
        for part in whole.parts:
            shares = [windows_in(mixture.draw(step)[part]) for mixture in ranks]
            assert sum(shares, Counter()) == windows_in(whole.draw(step)[part])
            assert [share.total() for share in shares] == [mixture.sizes[part] for mixture in ranks]
    for kinds in (["2d"], ["3d"], ["motion"], ["2d", "3d"]):
        sizes = [sum(mixture.sizes[part] for part in kinds) for mixture in ranks]
        assert max(sizes) - min(sizes) <= 1
    for mixture in ranks:  # a rank with nothing in a part reads it as nothing
        assert len(mixture.read(mixture.draw(0))["3d"]["resnet50"]) == mixture.sizes["3d"]


def windows_in(picks):
    return Counter((pick.split, int(start)) for pick in picks for start in pick.starts)


def test_a_part_without_a_window_is_refused_by_name(splits):
    expected = r"2d: expected windows of 90 frames, found none in a, b \(stream resnet50\)"
    with (
        pytest.warns(UserWarning, match="no windows of 90"),
        cache_refuses(expected),
    ):
        Mixture(parts_of(splits), seqlen=90)


def test_splits_whose_fields_differ_are_refused_by_name(splits, tmp_path):
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path, dim=5)
    mixed = {**splits, "c": toy.opened(tmp_path)}
    with cache_refuses(r"resnet50: .*\(4,\) in a and \(5,\) in c"):
        Mixture(parts_of(mixed), seqlen=4)


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_that_is_none_is_refused(splits, rank, world_size):
    with pytest.raises(ValueError, match=f"found {rank}"):
        Mixture(parts_of(splits), rank=rank, world_size=world_size)


def test_two_parts_of_one_name_are_refused(splits):
    with pytest.raises(ValueError, match=r"different names, found 6 of \['2d', '3d', 'motion'\]"):
        Mixture([*parts_of(splits), *parts_of(splits)], seqlen=4)


# ----------------------------------------------------------------------------- several streams, and
# copies of one

COPIES = ("resnet50", "resnet50.j1", "resnet50.j2")


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A split with a stream, two copies of it of other boxes, and a stream of pairs."""
    root = tmp_path_factory.mktemp("copied")
    toy.write(root, toy.videos())
    for copy, name in enumerate(COPIES):
        jitter = {"jitter": {"copy": copy}} if copy else {}
        toy.write_stream(root, stream=name, dim=2, bad_rows=[copy], identity={"crop": jitter})
    toy.write_stream(root, stream="pairs", dim=3, dtype="float32", undefined_rows=[0, 10, 17, 37])
    return toy.opened(root)


@pytest.mark.parametrize("streams", [("resnet50",), ("resnet50", "pairs")])
def test_every_window_takes_all_its_frames_and_labels_from_one_copy_by_chance(copied, streams):
    name = "resnet50"
    part = MixturePart(
        name="x",
        splits={"a": copied},
        count=7,
        fields=(name, "kp_2d"),
        stride=1,
        copies={"resnet50": COPIES},
        streams=streams,
    )
    mixture = Mixture([part], seqlen=3, seed=4)
    seen = Counter()
    for step in range(200):
        picks = mixture.draw(step)
        if step < 8:
            batch = mixture.read(picks)["x"]
            for pick in picks["x"]:
                windows = np.stack([pick.starts, pick.starts + 3], axis=1)
                expected = copied.read(windows, COPIES[pick.copy], fields=("features", "kp_2d"))
                assert_array_equal(batch[name][pick.rows], expected["features"])
                assert_array_equal(batch["kp_2d"][pick.rows], expected["kp_2d"])
        seen.update({pick.copy: len(pick.starts) for pick in picks["x"]})
    assert all(abs(n - 1400 / 3) < 4 * math.sqrt(1400 * 2 / 9) for n in seen.values())
    # what all copies have
    assert mixture.counts["x"]["a"] == len(copied.windows(3, 1, streams=COPIES))
    # Ranks share windows with their copies.
    ranks = [Mixture([part], seqlen=3, seed=4, rank=rank, world_size=2) for rank in range(2)]
    drawn = Counter((pick.copy, int(row)) for pick in mixture.draw(3)["x"] for row in pick.starts)
    assert drawn == Counter(
        (p.copy, int(row)) for rank in ranks for p in rank.draw(3)["x"] for row in p.starts
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": ("resnet50",), "copies": {"pairs": COPIES}},
        {"streams": ("resnet50",), "copies": {"resnet50": ()}},
        {"streams": ("resnet50", "pairs"), "copies": {"resnet50": COPIES, "pairs": ("pairs",)}},
        {"streams": ("pairs",), "history": {"resnet50": 3}},
    ],
)
def test_streams_and_copies_that_contradict_one_another_are_refused(copied, wrong):
    with pytest.raises(ValueError, match="x: expected history of some"):
        MixturePart(name="x", splits={"a": copied}, count=1, fields=("kp_2d",), **wrong)


def test_every_window_of_a_split_comes_as_often_as_its_weight_says(splits):
    mixture = Mixture(parts_of(splits, weights={"a": 0.5})[:1], seqlen=4)
    n = mixture.counts["2d"]
    seen = Counter()
    for step in range(2 * (n["a"] + 2 * n["b"])):  # five windows each, in all 10 (a + 2 b)
        seen += windows_in(mixture.draw(step)["2d"])
    assert Counter((split, times) for (split, _), times in seen.items()) == {
        ("a", 10): n["a"],
        ("b", 20): n["b"],
    }
