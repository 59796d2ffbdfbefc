"""Images of a folder and of a record: frames in order, a bad image costs itself, a damaged record all
of its frames.
"""

import cv2
import numpy as np
import pytest

from pipeline.errors import RawDataError
from pipeline.extras.demo.files import tf_example as example
from pipeline.extras.demo.files import tfrecord as framed
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures, TurnedPictures
from pipeline.files.pixels.sources import RecordPictures
from tests.pipeline.datasets.by_hand import jpeg, write_video

IMAGES = [jpeg(64, 48, 40 * i) for i in range(6)]


class ImageSource:
    """The contract of a source of single images; a subclass writes them."""

    size = (64, 48)  # of the decoded images

    def make(self, folder, images):
        raise NotImplementedError

    def test_frames_are_the_images_asked_for(self, tmp_path):
        frames = list(self.make(tmp_path, IMAGES).read([0, 2, 5]))
        assert [frame.index for frame in frames] == [0, 2, 5]
        assert [int(frame.image.mean().round()) for frame in frames] == [0, 80, 200]
        assert all(frame.problem is None and frame.kind == "" for frame in frames)

    def test_a_bad_image_costs_itself_and_the_size_is_that_of_the_first_that_says_it(
        self, tmp_path
    ):
        source = self.make(tmp_path, [b"", IMAGES[1], IMAGES[2][:-20], b"GIF89a", IMAGES[4]])
        frames = list(source.read([0, 1, 2, 3, 4, 7]))
        kinds = ["picture_empty", "", "picture_truncated", "picture_format", "", "picture_missing"]
        assert [frame.kind for frame in frames] == kinds
        assert [frame.image is None for frame in frames] == [bool(kind) for kind in kinds]
        assert source.size() == self.size

    @pytest.mark.parametrize("images", [[], [b"", b"no image"]])
    def test_a_source_without_a_readable_image_has_no_size(self, images, tmp_path):
        with pytest.raises(RawDataError) as caught:
            self.make(tmp_path, images).size()
        assert caught.value.reason == "no_picture"

    @pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1]])
    def test_frame_indices_must_increase(self, indices, tmp_path):
        with pytest.raises(ValueError, match="must increase"):
            list(self.make(tmp_path, IMAGES).read(indices))

    def test_the_digest_changes_with_the_content_alone(self, tmp_path):
        # of the same size, as uncompressed images are; what is behind the end is never decoded
        padded = [image.ljust(60_000, b"\0") for image in IMAGES]
        sources = [
            self.make(tmp_path / str(k), images)
            for k, images in enumerate((padded, padded, padded[::-1]))
        ]
        first, same, other = (source.digest() for source in sources)
        assert first == same != other


class TestPictures(ImageSource):
    kind = Pictures

    def make(self, folder, images):
        (folder / "frames").mkdir(parents=True)
        for i, content in enumerate(images):
            (folder / f"frames/{i + 1:06d}.jpg").write_bytes(content)
        return self.kind(folder, "frames/{:06d}.jpg", 1)

    def test_an_image_of_another_size_is_a_problem_of_its_frame(self, tmp_path):
        images = [IMAGES[0], jpeg(32, 24), IMAGES[2], jpeg(48, 64)]  # halved; on its side
        frames = list(self.make(tmp_path, images).read(range(4)))
        other = "other_picture_size"
        assert [frame.kind for frame in frames] == ["", other, "", other]
        assert "32 x 24 px, and the video 64 x 48" in frames[1].problem


class TestTurnedPictures(TestPictures):
    kind = TurnedPictures
    size = (48, 64)


class TestRecordPictures(ImageSource):
    def make(self, folder, images):
        """A shard of one other record and one with these images."""
        (folder / "train").mkdir(parents=True)
        other, ours = framed(b"another record"), framed(example({"image/encoded": images}))
        (folder / "train/a@1+2.tfrecord").write_bytes(other + ours)
        return RecordPictures(folder, "train/a@1+2.tfrecord", len(other), len(ours))

    def test_a_record_damaged_since_costs_all_its_frames_and_changes_its_digest(self, tmp_path):
        source = self.make(tmp_path, IMAGES)
        before, whole = source.digest(), bytearray(source.place.read_bytes())
        whole[14] ^= 1  # of the other record
        source.place.write_bytes(whole)
        assert source.digest() == before
        assert next(source.read([0])).problem is None
        whole[400] ^= 1
        source.place.write_bytes(whole)
        assert source.digest() != before
        frames = list(source.read([0, 4]))
        damaged = [(t, None, "record_damaged") for t in (0, 4)]
        assert [(one.index, one.image, one.kind) for one in frames] == damaged
        with pytest.raises(RawDataError) as caught:
            source.size()
        assert caught.value.reason == "record_damaged"
        source.place.unlink()
        (frame,) = source.read([2])
        assert frame.kind == "record_damaged"

    def test_a_record_that_is_no_example_is_told(self, tmp_path):
        (tmp_path / "x.tfrecord").write_bytes(framed(b"\x0b no example"))
        with pytest.raises(RawDataError, match=r"expected a tf\.train\.Example") as caught:
            RecordPictures(tmp_path, "x.tfrecord", 0, 28).features()
        assert caught.value.reason == "bad_label_file"
        numbers = framed(example({"image/encoded": np.array([1])}))
        (tmp_path / "x.tfrecord").write_bytes(numbers)
        (frame,) = RecordPictures(tmp_path, "x.tfrecord", 0, len(numbers)).read([0])
        assert frame.kind == "record_damaged"


def test_a_missing_image_is_a_problem_and_a_png_under_a_jpegs_name_none(tmp_path):
    source = TestPictures().make(tmp_path, IMAGES)
    source.path(3).unlink()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    source.path(5).write_bytes(cv2.imencode(".png", noise[..., ::-1])[1])
    missing, png = source.read([3, 5])
    assert missing.kind == "picture_missing"
    np.testing.assert_array_equal(png.image, noise)
    assert source.indices().tolist() == [0, 1, 2, 4, 5]
    other = Pictures(source.root, source.pattern, 0)
    assert other.digest() != source.digest(), "frames are numbered otherwise"


def test_the_digest_of_a_video_changes_with_its_content(tmp_path):
    digests = set()
    for n_frames in (5, 6):
        write_video(tmp_path / "x.avi", n_frames, size=(64, 48))
        digests.add(Video(tmp_path, "x.avi").digest())
    assert len(digests) == 2
