"""Streams of labels that read the rows before and after: windows, keys, and rows that were not
declared.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline import table
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import LabelStream
from tests.pipeline.features.made_toy import N, Toy


@dataclass(frozen=True, kw_only=True)
class Boxes(LabelStream):
    """x of the boxes of the row before, of its own and of the two after, 9 for those that there are
    not.
    """

    kind = "boxes"
    dim = 4
    columns = ("bbox",)
    history = 1
    future = 2

    def __call__(self, labels):
        x, in_run = labels["bbox"][..., 0], labels["in_run"]
        assert np.array_equal(np.isnan(x), ~in_run)
        return np.where(in_run, x, 9), np.ones(len(x), bool)


def moving(name, columns):
    columns["bbox"][:, 0] += np.arange(len(columns["bbox"])) ** 2 / 8


def moved(name, columns):
    moving(name, columns)
    if name == "a/1":
        columns["bbox"][4, 0] += 1


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """With 8 rows a shard: every track crosses shards, and `b` has a gap."""
    monkeypatch.setitem(table.OWN[streams.ENTRY_POINTS], Boxes.kind, f"{__name__}:Boxes")
    made = Toy(tmp_path)
    made.film()
    made.convert(moving)
    return made


def around(x):
    """Of one run's x (n,): those of the row before, of each row and of the two after it (n, 4)."""
    padded = np.r_[9, x, 9, 9]
    return np.stack([padded[offset : offset + len(x)] for offset in range(4)], axis=1)


def expected(toy):
    """By track (rows, 4)."""
    frames, found = toy.rows("frame_index"), {}
    for name, box in toy.rows("bbox").items():
        ends = np.flatnonzero(np.diff(frames[name]) != 1) + 1
        found[name] = np.concatenate([around(run) for run in np.split(box[:, 0], ends)])
    return found


def test_a_row_has_its_run_s_rows_about_it_and_a_changed_one_recomputes_those_that_look_at_it(toy):
    toy.extract(StreamSpec("boxes", Boxes()))
    toy.convert(moved)
    done = toy.extract(StreamSpec("boxes", Boxes()))["boxes"]
    assert (done.computed, done.carried) == (4, 3 * N - 1 - 4)
    for name, values in expected(toy).items():
        assert_array_equal(toy.rows("features/boxes")[name], values.astype(np.float32))
