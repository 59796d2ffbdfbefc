"""Extracted rows have the numbers of their own frame, box and labels: those that are computed for
each row alone.
"""

import functools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import CropPolicy, Jitter
from pipeline import table
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from tests.oracles.features import SAME, differences
from tests.pipeline.features.made_toy import SPLIT, Toy


@pytest.fixture
def specs(made_up, monkeypatch):
    """Streams of every kind."""
    for kind, name in {"colour": "Colour", "followed": "Followed"}.items():
        monkeypatch.setitem(table.OWN[streams.ENTRY_POINTS], kind, f"made_up:{name}")
    jitter = Jitter(copy=1, flip=0.6, seed=3)
    every = {
        "colour": made_up.Colour(crop=CropPolicy(size=16)),
        "colour.j1": made_up.Colour(
            crop=CropPolicy(size=32, region=(16, 16), scale=1.1, jitter=jitter)
        ),
        "homography": streams.get("homography"),
        "pr_vipe": streams.get("pr_vipe"),
        # of pairs of crops, and labels
        "followed": made_up.Followed(crop=CropPolicy(size=32, jitter=jitter)),
    }
    return [StreamSpec(name, stream) for name, stream in every.items()]


def drawn(layout):
    """Leaves rows of each track at random, with steps, and moves its boxes."""
    rng = np.random.default_rng(layout)

    def change(name, columns):
        frame = columns["frame_index"]
        columns["step"] = int(rng.integers(1, 4))
        is_kept = (frame % columns["step"] == 0) & (rng.random(len(frame)) < 0.8)
        columns["bbox"][:, :2] += rng.uniform(-1.5, 1.5, (len(frame), 2)).cumsum(axis=0)
        for column in ("frame_index", "bbox", "kp_2d"):
            columns[column] = columns[column][is_kept]

    return change


@pytest.mark.promise("verified")
@pytest.mark.parametrize("layout", range(1, 4))
def test_in_any_layout_every_row_has_the_numbers_of_its_own_frame_which_is_decoded_once(
    tmp_path, layout, specs
):
    """With gaps, steps, and shards that tracks share; by any number of processes."""
    toy = Toy(tmp_path)
    toy.film()
    toy.convert(drawn(layout))
    done = toy.extract(*specs, workers=layout)
    split = cache.open(toy.root)[SPLIT]
    largest = {name: differences(split, name).max() for name in split.streams}
    assert all(difference < SAME for difference in largest.values()), largest
    colour, pairs = toy.rows("features/colour_ok"), toy.rows("features/homography_ok")
    starts = set(split.runs[:, 0].tolist())
    for track in split.tracks:
        assert (colour[track.name] == cache.COMPUTED).all()
        is_first = [row in starts for row in range(track.start, track.stop)]
        expected = np.where(is_first, cache.UNDEFINED, cache.COMPUTED)
        assert_array_equal(pairs[track.name], expected)
    frames = toy.rows("frame_index")
    shown = {(name[0], frame) for name in frames for frame in frames[name].tolist()}
    assert done["colour"].meter.frames == len(shown)


def test_rows_of_a_second_commit_have_the_numbers_of_their_frames(penn, into):
    penn.converted()
    extract = functools.partial(into.extract, name="pr_vipe", stream=streams.get("pr_vipe"))
    extract(penn.root)
    penn.add("0007")
    penn.convert()
    extract(penn.root)
    assert len(penn.split.manifest["commits"]) == 2
    found = differences(penn.split, "pr_vipe")
    assert len(found) == 24  # a joint of 0005 is hidden: its rows have no numbers
    assert (found < SAME).all()
    penn.edit("0001")  # its old rows stay in a shard that others need
    penn.convert()
    extract(penn.root)
    found = differences(penn.split, "pr_vipe")
    assert len(found) == 24  # a joint of 0005 is hidden: its rows have no numbers
    assert (found < SAME).all()
