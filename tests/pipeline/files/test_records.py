"""Pictures of a record: frames in order, a bad one costs itself, a damaged record all of its frames."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.records import RecordPictures
from pipeline.files.pixels.sources import parse
from vibe_extensions.demo.files import tf_example as example
from vibe_extensions.demo.files import tfrecord as framed


def jpeg(brightness: int, width: int = 64, height: int = 48) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), brightness, np.uint8))[1])


PICTURES = [jpeg(40 * i) for i in range(5)]


def shard(tmp_path: Path, pictures: list[bytes] = PICTURES) -> RecordPictures:
    """A shard of one other record and one with these pictures."""
    (tmp_path / "train").mkdir(exist_ok=True)
    other, ours = framed(b"another record"), framed(example({"image/encoded": pictures}))
    (tmp_path / "train/a@1+2.tfrecord").write_bytes(other + ours)
    return RecordPictures(tmp_path, "train/a@1+2.tfrecord", len(other), len(ours))


def test_a_source_of_a_record_survives_being_written_down(tmp_path: Path) -> None:
    source = shard(tmp_path)
    assert source.spec == f"record:train/a@1+2.tfrecord@30+{source.length}"
    assert parse(tmp_path, source.spec) == source
    assert pickle.loads(pickle.dumps(source)) == source
    assert len({source, parse(tmp_path, source.spec)}) == 1
    assert source.place == tmp_path / "train/a@1+2.tfrecord"


@pytest.mark.parametrize(
    "rest", ["", "x.tfrecord", "x@5", "x@5+", "x@+5", "@1+2", "x@-1+2", "x@1+2\n", f"x@{'9' * 19}+1"]
)
def test_a_source_without_its_bytes_is_refused(tmp_path: Path, rest: str) -> None:
    with pytest.raises(PipelineError, match="does not end in '@', the first byte, '\\+' and the length"):
        parse(tmp_path, f"record:{rest}")


def test_the_wanted_pictures_are_decoded_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, decoded = shard(tmp_path), []

    def decode(data: bytes) -> np.ndarray:
        decoded.append(data)
        return np.full((48, 64, 3), 7, np.uint8)

    monkeypatch.setattr("pipeline.files.pixels.records.decode", decode)
    assert [frame.index for frame in source.read([0, 3])] == [0, 3]
    assert decoded == [PICTURES[0], PICTURES[3]]


def test_frames_are_the_record_s_pictures_in_order(tmp_path: Path) -> None:
    frames = list(shard(tmp_path).read(range(5)))
    assert [frame.problem for frame in frames] == [None] * 5
    means = [frame.image.mean() for frame in frames if frame.image is not None]
    np.testing.assert_allclose(means, [0, 40, 80, 120, 160], atol=1)
    assert shard(tmp_path).size() == (64, 48)
    with pytest.raises(ValueError, match="must increase"):
        list(shard(tmp_path).read([1, 1]))


def test_a_bad_picture_costs_itself(tmp_path: Path) -> None:
    source = shard(tmp_path, [b"", PICTURES[1], PICTURES[2][:-20], b"GIF89a", PICTURES[4]])
    frames = list(source.read([0, 1, 2, 3, 4, 7]))
    kinds = ["picture_empty", "", "picture_truncated", "picture_format", "", "picture_missing"]
    assert [frame.kind for frame in frames] == kinds
    assert "a@1+2.tfrecord: picture 2 of the record the JPEG is cut short" in str(frames[2].problem)
    assert "its example has 5 pictures" in str(frames[5].problem)
    assert source.size() == (64, 48)  # of the first that says it


def test_a_record_damaged_since_costs_all_its_frames_and_changes_its_digest(tmp_path: Path) -> None:
    source = shard(tmp_path)
    before, whole = source.digest(), bytearray(source.place.read_bytes())
    whole[400] ^= 1
    source.place.write_bytes(whole)
    assert source.digest() != before
    frames = list(source.read([0, 4]))
    assert [(frame.index, frame.image, frame.kind) for frame in frames] == [
        (0, None, "record_damaged"),
        (4, None, "record_damaged"),
    ]
    assert "have a wrong checksum" in str(frames[0].problem)
    with pytest.raises(RawDataError) as caught:
        source.size()
    assert caught.value.reason == "record_damaged"
    source.place.unlink()
    (frame,) = source.read([2])
    assert (frame.kind, "FileNotFoundError" in str(frame.problem)) == ("record_damaged", True)


def test_another_record_of_the_shard_does_not_change_the_digest(tmp_path: Path) -> None:
    source = shard(tmp_path)
    before, whole = source.digest(), bytearray(source.place.read_bytes())
    whole[14] ^= 1
    source.place.write_bytes(whole)
    assert source.digest() == before
    assert next(source.read([0])).problem is None


@pytest.mark.parametrize("pictures", [[], [b"", b"no picture"]])
def test_a_record_without_a_readable_picture_has_no_size(tmp_path: Path, pictures: list[bytes]) -> None:
    with pytest.raises(RawDataError, match="a readable image") as caught:
        shard(tmp_path, pictures).size()
    assert caught.value.reason == "no_picture"


def test_a_record_that_is_no_example_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tfrecord").write_bytes(framed(b"\x0b no example"))
    with pytest.raises(RawDataError, match=r"expected a tf\.train\.Example") as caught:
        RecordPictures(tmp_path, "x.tfrecord", 0, 28).example()
    assert caught.value.reason == "bad_label_file"
    numbers = framed(example({"image/encoded": np.array([1])}))
    (tmp_path / "x.tfrecord").write_bytes(numbers)
    (frame,) = RecordPictures(tmp_path, "x.tfrecord", 0, len(numbers)).read([0])
    assert frame.kind == "record_damaged"
    assert "int64_list, expected a bytes_list" in str(frame.problem)
