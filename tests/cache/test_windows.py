"""Windows against their definition in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.format.records import _find_runs
from cache.windows import StreamRows, intersect, ranges_where, windows_of
from tests.cache import toy


def plain_windows(
    tracks,
    step,
    seqlen,
    stride,
    there,
    tail="drop",
):
    """Row by row: a run ends at a gap and at a row that is not there; windows start at its start
    and every stride.

    With tail="cover" the window at the run's end is added where its last row is in none of them.
    """
    found, row = [], 0
    for frames in tracks:
        run = []
        runs = [run]
        for k, frame in enumerate(frames):
            if run and (run[-1] != row - 1 or frame - frames[k - 1] != step):
                runs.append(run := [])
            if row in there:
                run.append(row)
            row += 1
        for rows in runs:
            windows = [[a, a + seqlen] for a in rows[::stride] if a + seqlen <= rows[0] + len(rows)]
            if tail == "cover" and len(rows) >= seqlen and rows[-1] not in range(*windows[-1]):
                windows.append([rows[-1] + 1 - seqlen, rows[-1] + 1])
            found += windows
    return found


frame_lists = st.lists(st.integers(1, 3), min_size=1, max_size=30).map(
    lambda gaps: np.cumsum(gaps).tolist()
)


TAILS = st.sampled_from(["drop", "cover"])


@given(
    st.lists(frame_lists, max_size=5),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    TAILS,
    st.data(),
)
def test_windows_are_what_their_definition_says(tracks, step, seqlen, stride, tail, data):
    n_rows = sum(map(len, tracks))
    missing = data.draw(st.sets(st.integers(0, max(n_rows - 1, 0))))
    runs, row = [], 0
    for frames in tracks:
        runs += _find_runs(np.array(frames), step, row)
        row += len(frames)
    there = np.isin(np.arange(n_rows), list(missing), invert=True)
    cut = intersect(np.array(runs, np.int64).reshape(-1, 2), ranges_where(there, 0))
    found = windows_of(cut, seqlen=seqlen, stride=stride, tail=tail)
    expected = plain_windows(
        tracks, step, seqlen, stride, set(np.flatnonzero(there).tolist()), tail
    )
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_windows_are_16_frames_side_by_side_unless_others_are_asked_for(tmp_path):
    toy.add(tmp_path, "a", 33)
    assert toy.opened(tmp_path).windows().tolist() == [[0, 16], [16, 32]]


@pytest.mark.parametrize(
    "options",
    [
        {"seqlen": 0},
        {"stride": 0},
        {"seqlen": -3},
        {"tail": "Cover"},
        {"tail": ""},
        {"tail": None},
        {"seqlen": "16"},
        {"stride": 1.5},
    ],
)
def test_windows_of_nothing_and_other_tails_are_refused(options):
    with pytest.raises(ValueError, match=r"at least 1|tail|whole numbers"):
        windows_of(np.array([[0, 5]]), **{"seqlen": 2, "stride": 1, **options})


@given(
    seqlen=st.integers(1, 6),
    begins=st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(0, 60), max_size=15), min_size=1
    ),
)
def test_the_table_has_every_row_of_the_windows_once_and_windows_in_one_piece(seqlen, begins):
    rows = StreamRows({name: np.array(found, np.int64) for name, found in begins.items()}, seqlen)
    needed = {
        (name, start + i)
        for name, found in begins.items()
        for start in found
        for i in range(seqlen)
    }
    assert rows.total == len(needed)
    held = {}
    for name, found in begins.items():
        for start, place in zip(
            found, rows.table_rows(name, np.array(found, np.int64)).tolist(), strict=True
        ):
            for i in range(seqlen):
                assert held.setdefault(place + i, (name, start + i)) == (name, start + i)
    assert set(held) == set(range(rows.total))
    assert set(held.values()) == needed


@given(
    seqlen=st.integers(1, 6),
    runs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=6),
    strides=st.lists(st.integers(1, 7), min_size=1, max_size=2),
)
def test_the_pieces_that_fill_the_table_lie_within_runs(seqlen, runs, strides):
    """Runs that touch may be of two tracks: no piece may reach from one into the next."""
    begins, limits, end = [], [], 0
    for gap, length in runs:
        limits.append((end + gap, end + gap + length))
        for stride in strides:
            begins += range(end + gap, end + gap + length - seqlen + 1, stride)
        end += gap + length
    rows = StreamRows({"a": np.array(begins, np.int64)}, seqlen)
    pieces = [(name, int(start)) for name, starts in rows.batches(n_windows=3) for start in starts]
    assert all(len(starts) <= 3 for _, starts in rows.batches(n_windows=3))
    for _, start in pieces:
        assert any(low <= start and start + seqlen <= high for low, high in limits)
    read = {start + i for _, start in pieces for i in range(seqlen)}
    assert read == {start + i for start in begins for i in range(seqlen)}
