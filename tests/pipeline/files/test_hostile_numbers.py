"""Numbers that are none - NaN, infinite, out of range - in the labels of every dataset.

Each frame with one is kept without it or dropped under a reason: nothing of it reaches the cache,
and nothing overflows on the way (warnings are errors here).
"""

import functools
import math

import numpy as np
import pytest

from pipeline import datasets
from pipeline.datasets import RELEASES
from pipeline.extras.demo.writing import LAYOUTS
from pipeline.steps.conversion import reading
from pipeline.testing.labels import track_problems
from tests.pipeline.datasets.label_files import edit_labels

VALUES = (math.nan, -math.inf, -1e20, 1e300)


def poison(seed, value):
    """Makes a copy of an array with `value` in one element, in all of the first row, or in every
    tenth element.
    """
    rng = np.random.default_rng(seed)

    def spoil(stored):
        array = np.array(stored, copy=True)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
        with np.errstate(over="ignore"):
            bad = array.dtype.type(value)
        way = rng.integers(3)
        flat = array.reshape(-1)
        if way == 0:
            flat[rng.integers(flat.size)] = bad
        elif way == 1:
            flat[: flat.size // len(array) if array.ndim else 1] = bad
        else:
            flat[::10] = bad
        return array

    return spoil


def spoilt(labels, key, spoil):
    """Labels whose arrays and lists of numbers under a key, however deep, are spoilt."""
    if isinstance(labels, list):
        return [spoilt(one, key, spoil) for one in labels]
    if not isinstance(labels, dict):
        return labels
    return {
        name: bad(value, spoil)
        if name == key and not isinstance(value, dict)
        else spoilt(value, key, spoil)
        for name, value in labels.items()
    }


def bad(value, spoil):
    """Spoilt arrays: of one, of each cell, of each in a list; of a list of numbers, a list."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        for place in np.ndindex(value.shape):
            value[place] = spoil(value[place])
        return value
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [spoil(one) for one in value]
    is_empty = np.size(value) == 0
    is_text = isinstance(value, list) and not is_empty and isinstance(value[0], str)
    if is_empty or is_text:
        return value
    return spoil(value).tolist() if isinstance(value, list) else spoil(value)


FILES = [(name, glob) for name in RELEASES for glob in LAYOUTS[name].labels]
WAYS = 8  # of spoiling a file: every key and every value


def test_every_dataset_is_tried():
    assert {name for name, _ in FILES} == {*RELEASES}, "its layout of demo data needs `labels`"


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in (1, 2, 3))]
)
@pytest.mark.parametrize(("name", "glob"), FILES)
def test_numbers_that_are_none_stay_out_of_the_tracks(name, glob, shift, embedded, tmp_path):
    raw, dataset = embedded.copy(name, tmp_path / "raw"), datasets.get(name)
    copies = {file: file.read_bytes() for file in sorted(raw.glob(glob))}
    assert copies
    keys = LAYOUTS[name].labels[glob].split()
    body = dataset.load_body(embedded.body) if dataset.labels.uses_body else None
    # each file in another way, until all ways have been tried
    for start in range(0, WAYS, len(copies)):
        for number, (file, content) in enumerate(copies.items(), start):
            way = number % WAYS
            file.write_bytes(content)
            key, spoil = keys[way % len(keys)], poison(number, VALUES[(way + shift) % 4])
            edit_labels(file, functools.partial(spoilt, key=key, spoil=spoil))
        for split in dataset.splits:
            for video in dataset.videos(raw, split):
                check(dataset, raw, split, video, body)


def check(dataset, raw, split, video, body):
    tracks, account = dataset.read_accounted(raw, split, video, body)
    assert account.set_aside != reading.UNEXPECTED
    for track in tracks:
        assert track_problems(track) == []
        assert track.frames is None or all(
            frame.problem is None for frame in track.frames.read([0])
        )
