"""Pictures of a record: frames in order, a bad one costs itself, a damaged record all of its
frames.
"""

import numpy as np
import pytest

from pipeline.demo.files import tf_example as example
from pipeline.demo.files import tfrecord as framed
from pipeline.errors import RawDataError
from pipeline.files.pixels.sources import RecordPictures
from tests.pipeline.datasets.by_hand import jpeg

PICTURES = [jpeg(64, 48, 40 * i) for i in range(5)]


def shard(tmp_path, pictures=PICTURES):
    """A shard of one other record and one with these pictures."""
    (tmp_path / "train").mkdir(exist_ok=True)
    other, ours = framed(b"another record"), framed(example({"image/encoded": pictures}))
    (tmp_path / "train/a@1+2.tfrecord").write_bytes(other + ours)
    return RecordPictures(tmp_path, "train/a@1+2.tfrecord", len(other), len(ours))


def test_frames_are_the_record_s_pictures_in_order(tmp_path):
    frames = list(shard(tmp_path).read(range(5)))
    assert [frame.problem for frame in frames] == [None] * 5
    means = [frame.image.mean() for frame in frames if frame.image is not None]
    np.testing.assert_allclose(means, [0, 40, 80, 120, 160], atol=1)
    assert shard(tmp_path).size() == (64, 48)
    with pytest.raises(ValueError, match="must increase"):
        list(shard(tmp_path).read([1, 1]))


def test_a_bad_picture_costs_itself(tmp_path):
    source = shard(tmp_path, [b"", PICTURES[1], PICTURES[2][:-20], b"GIF89a", PICTURES[4]])
    frames = list(source.read([0, 1, 2, 3, 4, 7]))
    kinds = ["picture_empty", "", "picture_truncated", "picture_format", "", "picture_missing"]
    assert [frame.kind for frame in frames] == kinds
    assert source.size() == (64, 48)  # of the first that says it


def test_a_record_damaged_since_costs_all_its_frames_and_changes_its_digest(tmp_path):
    source = shard(tmp_path)
    before, whole = source.digest(), bytearray(source.place.read_bytes())
    whole[14] ^= 1  # of the other record
    source.place.write_bytes(whole)
    assert source.digest() == before
    assert next(source.read([0])).problem is None
    whole[400] ^= 1
    source.place.write_bytes(whole)
    assert source.digest() != before
    frames = list(source.read([0, 4]))
    assert [(one.index, one.image, one.kind) for one in frames] == [
        (t, None, "record_damaged") for t in (0, 4)
    ]
    with pytest.raises(RawDataError) as caught:
        source.size()
    assert caught.value.reason == "record_damaged"
    source.place.unlink()
    (frame,) = source.read([2])
    assert frame.kind == "record_damaged"


@pytest.mark.parametrize("pictures", [[], [b"", b"no picture"]])
def test_a_record_without_a_readable_picture_has_no_size(tmp_path, pictures):
    with pytest.raises(RawDataError, match="a readable image") as caught:
        shard(tmp_path, pictures).size()
    assert caught.value.reason == "no_picture"


def test_a_record_that_is_no_example_is_told(tmp_path):
    (tmp_path / "x.tfrecord").write_bytes(framed(b"\x0b no example"))
    with pytest.raises(RawDataError, match=r"expected a tf\.train\.Example") as caught:
        RecordPictures(tmp_path, "x.tfrecord", 0, 28).features()
    assert caught.value.reason == "bad_label_file"
    numbers = framed(example({"image/encoded": np.array([1])}))
    (tmp_path / "x.tfrecord").write_bytes(numbers)
    (frame,) = RecordPictures(tmp_path, "x.tfrecord", 0, len(numbers)).read([0])
    assert frame.kind == "record_damaged"
