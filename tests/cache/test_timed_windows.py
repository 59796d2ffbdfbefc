"""Windows by seconds and rate: each row is the nearest one to its time, in clips of any rate."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch.utils.data import DataLoader

import cache
from cache.windows import timed_windows
from tests.cache import toy
from tests.made_splits import write_split
from tests.raising import cache_refuses

RATES = [25.0, 50.0, 60.0, 30000 / 1001, 29.97]
# rows a second; clips of a variable rate have any mean
rates = st.sampled_from(RATES) | st.floats(24.5, 240)


@given(
    runs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90), rates), max_size=5),
    seqlen=st.integers(2, 20),
    stride=st.integers(1, 25),
    rate=st.sampled_from([25.0, 24.97, 12.5]),
)
def test_every_row_is_within_half_a_frame_of_its_time_and_no_window_is_missing(
    runs, seqlen, stride, rate
):
    spans, end = [], 0
    for gap, length, _ in runs:
        spans.append((end + gap, end + gap + length))
        end += gap + length
    steps = np.array([fps for *_, fps in runs]) / rate
    made = timed_windows(
        np.array(spans, np.int64).reshape(-1, 2), steps, seqlen=seqlen, stride=stride
    )
    found = made.rows.tolist()
    for number, ((start, stop), step) in enumerate(zip(spans, steps, strict=True)):
        n_repeating, begin = 0, 0
        while True:
            ideal = start + step * (begin + np.arange(seqlen))
            if ideal[-1] >= stop - 0.5 - 1e-9:  # the next row would be nearer
                break
            nearest = np.floor(ideal + 0.5)
            if len(set(nearest)) < seqlen:
                n_repeating += 1
            else:
                rows = np.array(found.pop(0))
                assert np.abs(rows - ideal).max() <= 0.5 + 1e-9
                assert start <= rows[0]
                assert rows[-1] < stop
                assert (np.diff(rows) > 0).all()
            begin += stride
        # at a limit that only rounding decides, one more
        if found and start <= found[0][0] < stop:
            assert found.pop(0)[-1] < stop
        assert (made.repeating == number).sum() in (n_repeating, n_repeating + 1)
    assert not found


FPS = {"a": 25.0, "b": 50.0, "c": 60.0, "d": 29.97, "e": 27.3, "slow": 24.0, "near": 24.55}


@pytest.fixture
def split(tmp_path):
    videos = []
    for name, fps in {**FPS, "unknown": np.nan}.items():
        track = replace(toy.track(f"{name}/0", 40, seed=len(videos)), fps=fps)
        videos.append((cache.VideoEntry(name=name), [track]))
    write_split(tmp_path, toy.SPLIT, videos, **toy.SIZES)
    toy.write_stream(tmp_path, bad_rows=[50])  # of b
    return toy.opened(tmp_path)


def test_windows_of_mixed_rates_last_equally_long_and_what_has_none_is_counted(split):
    counted = (
        r"toy/train: \d+ windows of 16 rows, 25 a second; left out: 1 tracks of unknown rate, "
        r"1 tracks of less than 98% of the rate, 1 windows, of 1 tracks, with a row twice"
    )
    with pytest.warns(UserWarning, match=counted):
        windows = split.windows(seconds=0.64, rate=25, stream="resnet50")
    assert windows.dtype == np.int64
    assert windows.shape[1] == 16
    tracks = [split.tracks[number] for number in split.track_of(windows[:, 0])]
    assert [track.video for track in tracks] == ["a", "a", "c", "d", "d", "e", "e", "near"]
    for rows, track in zip(windows, tracks, strict=True):
        offsets = rows - rows[0]
        assert np.abs(offsets / track.fps - np.arange(16) / 25).max() < 1 / track.fps
        batch = split.read([rows], fields=("rows", "frame_index"))
        assert batch["rows"].tolist() == [rows.tolist()]
        assert_array_equal(batch["frame_index"][0], rows - track.start)
    assert not (windows == 50).any()
    with pytest.warns(UserWarning, match="with a row twice"):
        b = split.windows(seconds=0.64, rate=25)
    assert 50 in b  # of labels alone, b has its window


FIELDS = ("features", "kp_2d", "kp_3d", "theta", "w_3d", "valid", "bbox", "gender", "rows")


def test_read_takes_rows_as_it_takes_ranges(split):
    ranges = split.windows(6, 5, "resnet50")
    rows = ranges[:, :1] + np.arange(6)
    for dtype in ("float16", "float32"):
        expected = split.read(ranges, fields=FIELDS, dtype=dtype)
        strided = {name: np.repeat(array, 2, axis=1)[:, ::2] for name, array in expected.items()}
        for array in strided.values():
            array[...] = 0
        for given_out in (None, strided):
            found = split.read(rows, fields=FIELDS, dtype=dtype, out=given_out)
            for name, array in expected.items():
                assert_array_equal(found[name], array, strict=True)
    several = {"streams": ("resnet50",), "fields": ("resnet50", "resnet50_ok", "kp_2d")}
    # in any order, also across shards
    one_of_two = rows[:, ::2][::-1]
    found = split.read(one_of_two, **several)
    for name, array in split.read(ranges, **several).items():
        assert_array_equal(found[name], array[::-1, ::2])


def test_rows_elsewhere_and_what_goes_with_ranges_alone_are_refused(split):
    rows = np.arange(3)[None]
    for wrong, problem in ((rows + 38, "several tracks"), (rows + 10**6, "in no track")):
        with cache_refuses(problem):
            split.read(wrong)
    with cache_refuses("no features for row 50"):
        split.read([[48, 50, 52]])
    with pytest.raises(ValueError, match=r"history: expected windows as ranges"):
        split.read(rows, streams=("resnet50",), history={"resnet50": 2})
    for options, problem in (
        ({"seconds": 0.08, "rate": 25}, "at least 3 rows in a window, found 2"),
        ({"seconds": 0.64}, "rate: expected a number above 0, found None"),
        ({"rate": 25}, "seconds: expected a number above 0, found None"),
        ({"seconds": 0.64, "rate": float("inf")}, "rate: expected a number above 0"),
        ({"seconds": 0.64, "rate": 25, "seqlen": 16}, "found both"),
        ({"seconds": 0.64, "rate": 25, "stride": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=problem):
            split.windows(**options)


def test_pytorch_reads_windows_in_time(split):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = cache.torch_windows(split, seconds=0.32, rate=25, stride=4, fields=("rows",))
        expected = split.windows(seconds=0.32, rate=25, stride=4, stream="resnet50")
    batches = DataLoader(made, batch_size=4)
    assert np.concatenate([batch["rows"] for batch in batches]).tolist() == expected.tolist()
    again = cache.torch_windows(split, windows=made.windows[::2], fields=("rows",))
    assert again[1]["rows"].tolist() == expected[2].tolist()
    with pytest.raises(ValueError, match=r"expected \(W, 2\) or \(W, T\) of all splits"):
        cache.torch_windows([split, split], windows=[expected, expected[:, :3]])
