"""Several streams of one split in a batch, with the rows before each window."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.cache import toy
from tests.raising import cache_refuses

T = 4
# runs [0, 6), [6, 17)
GAPS = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30, 31, 32, 33, 34, 35, 36]
NO_PICTURE, UNDEFINED = (9, 44, 45), (0, 6, 17, 24, 34, 60)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Two streams; rows 0 to 59 in four runs of the first track and two tracks, 64 to 103 after
    padding.
    """
    root = tmp_path_factory.mktemp("several") / "cache"
    entry, _ = toy.video("a", 24)
    gaps = toy.track("a/0", 0, frame_index=GAPS)
    toy.write(root, [(entry, [gaps]), toy.video("b", 10, 26)])
    toy.add(root, "c", 40)
    toy.write_stream(root, dim=4, bad_rows=[40])
    toy.write_stream(
        root,
        stream="pairs.j1",
        dim=3,
        dtype="float32",
        bad_rows=NO_PICTURE,
        undefined_rows=UNDEFINED,
    )
    return toy.opened(root)


def runs_of(split):
    """By the frame indices, one row after the other."""
    runs = []
    for track in split.tracks:
        frames = split.rows("frame_index", track.start, track.stop)
        cuts = [0, *(np.flatnonzero(np.diff(frames) != track.step) + 1).tolist(), len(frames)]
        runs += [(track.start + a, track.start + b) for a, b in itertools.pairwise(cuts)]
    return runs


@functools.cache
def whole(split, stream):
    """All rows of a stream and their flags, as Zarr reads them."""
    return np.asarray(split.column(f"features/{stream}")[:]), np.asarray(
        split.column(f"features/{stream}_ok")[:]
    )


def plainly(split, stream, start, history):
    """(history + T, dim) and flags, by a loop over rows."""
    first = next(a for a, b in runs_of(split) if a <= start < b)
    values, flags = whole(split, stream)
    found, ok = (
        np.zeros((history + T, values.shape[1]), np.float32),
        np.zeros(history + T, np.float32),
    )
    for i, row in enumerate(range(start - history, start + T)):
        if row >= first and flags[row] != 0:
            found[i], ok[i] = values[row], flags[row] == 1
    return found, ok


def test_windows_are_of_rows_that_all_streams_have(split):
    one, other = (
        {*map(tuple, split.windows(1, 1, name).tolist())} for name in ("resnet50", "pairs.j1")
    )
    both = {*map(tuple, split.windows(1, 1, streams=("pairs.j1", "resnet50")).tolist())}
    assert both == one & other
    assert len(one) == len(other) + 2
    assert (
        split.windows(5, 2, streams=["resnet50"]).tolist()
        == split.windows(5, 2, "resnet50").tolist()
    )
    assert split.windows(5, 2, streams=()).tolist() == split.windows(5, 2).tolist()


@settings(deadline=None, max_examples=15)
@given(data=st.data(), history=st.integers(0, 40), dtype=st.sampled_from(["float16", "float32"]))
def test_history_is_of_the_rows_before_in_the_same_run(split, data, history, dtype):
    every = split.windows(T, 1, streams=("resnet50", "pairs.j1"))
    windows = every[data.draw(st.lists(st.integers(0, len(every) - 1), max_size=9))]
    options = {
        "streams": ("resnet50", "pairs.j1"),
        "history": {"pairs.j1": history},
        "dtype": dtype,
    }
    batch = split.read(windows, **options)
    out = {name: np.full_like(array, 7) for name, array in batch.items()}
    assert list(batch) == [
        "resnet50",
        "pairs.j1",
        "resnet50_ok",
        "pairs.j1_ok",
        *list(split.read(windows, None)),
    ]
    again = split.read(windows, **options, out=out)
    for number, (start, _) in enumerate(windows.tolist()):
        for name, before in (("resnet50", 0), ("pairs.j1", history)):
            numbers, flags = plainly(split, name, start, before)
            assert_array_equal(batch[name][number], numbers.astype(dtype))
            assert_array_equal(batch[f"{name}_ok"][number], flags)
    assert batch["pairs.j1"].shape == (len(windows), history + (T if len(windows) else 0), 3)
    for name, array in batch.items():
        assert again[name] is out[name]
        assert_array_equal(out[name], array)
        assert array.dtype == (dtype if name in options["streams"] else "float32")


def test_rows_before_a_window_that_are_not_extracted_yet_are_not_taken_for_none(tmp_path):
    toy.add(tmp_path, "a", 70)  # shards of 32 rows
    toy.write_stream(tmp_path, shards=[1])
    split = toy.opened(tmp_path)
    options = {"streams": ["resnet50"], "fields": ["resnet50"]}
    assert split.read(np.array([[40, 44]]), **options, history={"resnet50": 8})[
        "resnet50"
    ].shape == (1, 12, 4)
    with cache_refuses("does not have shard 0"):
        split.read(np.array([[40, 44]]), **options, history={"resnet50": 9})
    with toy.stream_writer(tmp_path) as writer:
        assert writer.shards.pending == [0, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"stream": 1}, TypeError, "a stream is a name or None; found .1"),
        ({"streams": "resnet50"}, TypeError, "streams must be a sequence of names"),
        ({"history": {"resnet50": 1}}, TypeError, "streams must be a sequence of names"),
        ({"stream": "resnet50", "streams": ["pairs.j1"]}, ValueError, "found both"),
        ({"streams": ["kp_2d"]}, ValueError, "are names of labels, too"),
        ({"streams": ["resnet50"], "history": {"pairs.j1": 1}}, ValueError, "pairs.j1: 1"),
        ({"streams": ["resnet50"], "history": {"resnet50": -1}}, ValueError, "resnet50: -1"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(split, arguments, error, problem):
    with pytest.raises(error, match=problem):
        split.read(split.windows(2, 2), **arguments)
