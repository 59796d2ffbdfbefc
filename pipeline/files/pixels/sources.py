"""Make pixel sources from their text in the cache, or from the file names in a folder; images in
TFRecords.  [pixels] -> crops

A pixel source is where a track's frames come from: a video, numbered images, or a record with
images. Its `spec` is one line of text, which the cache stores:

    video:train/x.mp4
    pictures:frames/0001/{:06d}.jpg+1
    turned:frames/0001/{:06d}.jpg+1
    record:train/0.tfrecord@0+52341

That is a video file; numbered images, as a pattern of their paths and the number of frame 0; the
same, stored on their side; and a TFRecord file, with the first byte and the length of a record in
it. Paths are below the raw folder. `parse` makes the source of it again.

Readers make sources by `picture_pattern`, `RecordPictures`, `pictures.Pictures`,
`pictures.TurnedPictures` or `frames.Video`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.tfrecords import AGAIN, feature_values, parse_example, read
from pipeline.files.pixels.decode import PictureError, decode, picture_size
from pipeline.files.pixels.frames import (
    Frame,
    FrameSource,
    SourceFile,
    Video,
    increasing,
    text_digest,
)
from pipeline.files.pixels.pictures import Pictures, TurnedPictures
from pipeline.files.raw.files import cache_result, is_litter, scan_folder, span_digest

PICTURES: Final = "image/encoded"
MAX_PICTURES: Final = 1 << 16  # in one example; InstaVariety's longest has 500

# path@start+length, such as "train/0.tfrecord@0+52341"
_RECORD: Final = re.compile(
    r"(?P<path>.+)@(?P<start>[0-9]{1,18})\+(?P<length>[0-9]{1,18})", re.DOTALL
)

# A numbered image, such as "img_000012.jpg": before "img_", number "000012", after ".jpg". The last
# number before the extension counts. Names with braces or backslashes do not match: the pattern of
# a source, "img_{:06d}.jpg", has braces in place of the number, and `below` refuses backslashes.
NUMBERED: Final = re.compile(
    r"(?P<before>[^{}\\]*?)(?<![0-9])(?P<number>[0-9]{1,18})(?P<after>\.(?:jpe?g|png))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RecordPictures(SourceFile):
    """The images in one example (record) of a TFRecord file: the bytes [start, start + length) of
    the file, which include the record's header.
    """

    start: int
    length: int
    random_access: ClassVar[bool] = False  # the record is read as a whole

    @property
    def spec(self) -> str:
        return f"record:{self.path}@{self.start}+{self.length}"

    @classmethod
    def from_spec(cls, root: Path, rest: str) -> RecordPictures:
        """The source of a spec "record:REST". Raises PipelineError for an invalid one."""
        match = _RECORD.fullmatch(rest)
        if match is None:
            raise PipelineError(
                f"pixel source 'record:{rest}' does not end in '@', the first byte, '+' and the "
                "length"
            )
        return cls(root, match["path"], int(match["start"]), int(match["length"]))

    def size(self) -> tuple[int, int]:
        problem = "none"
        for picture in self.pictures():
            try:
                return picture_size(picture)
            except PictureError as error:
                problem = f"one that {error}"
        expected = "a readable image"
        raise RawDataError(self.place, PICTURES, expected, problem, AGAIN, reason="no_picture")

    def digest(self) -> str:
        content = span_digest(self.place, self.start, self.start + self.length)
        return text_digest("record", content)

    def read(self, frame_index: Iterable[int]) -> Iterator[Frame]:
        pictures: list[bytes] = []
        damage = ""
        try:
            pictures = self.pictures()
        except RawDataError as error:
            damage = str(error)
        for index in increasing(frame_index):
            if damage:
                yield Frame(index, None, damage, "record_damaged")
            elif index >= len(pictures):
                problem = f"{self.place}: its example has {len(pictures)} pictures"
                yield Frame(index, None, problem, "picture_missing")
            else:
                try:
                    yield Frame(index, decode(pictures[index]), None)
                except PictureError as error:
                    problem = f"{self.place}: picture {index} of the record {error}"
                    yield Frame(index, None, problem, error.kind)

    @cache_result
    def features(self) -> Mapping[str, Any]:
        """The features of the example, by name. Inside `caching`, the record stays in memory.

        Raises RawDataError as `tfrecords.read` does, and for a record that is no example.
        """
        stop = self.start + self.length
        key = f"bytes {self.start} to {stop}"
        with reading(self.place, "a tf.train.Example", key=key, do=AGAIN):
            return parse_example(read(self.place, self.start, stop))

    @cache_result
    def pictures(self) -> list[bytes]:
        """The images' bytes, compressed. Raises RawDataError as `features` does, and for a feature
        that is no list of images.
        """
        with reading(self.place, "a list of pictures", key=PICTURES, do=AGAIN):
            return [*feature_values(self.features(), PICTURES, "bytes_list", MAX_PICTURES)]


SOURCES: Final[Mapping[str, Callable[[Path, str], FrameSource]]] = {
    "pictures": Pictures.from_spec,
    "turned": TurnedPictures.from_spec,
    "video": Video,
    "record": RecordPictures.from_spec,
}


def parse(root: Path, spec: str) -> FrameSource:
    """Make the source that the text `spec` describes. Raises PipelineError for an unknown kind, and
    for a path that leaves `root`.

    >>> parse(Path("raw"), "video:train/abseiling/x.mp4")
    Video(root=PosixPath('raw'), path='train/abseiling/x.mp4')
    """
    kind, _, text = spec.partition(":")
    if kind not in SOURCES:
        raise PipelineError(
            f"pixel source {spec!r}: expected one of {', '.join(SOURCES)}. Convert the video again."
        )
    return SOURCES[kind](root, text)


def pixels_digest(file: str, otherwise: Sequence[str]) -> str:
    """The digest of decoded pixels, on which features depend.

    Args:
        file: `FrameSource.digest`, the digest of the files.
        otherwise: `ClipRecord.otherwise`: properties of the clip because of which OpenCV decodes
            other pixels from the same file.

    >>> pixels_digest("0f3c", ["HDR", "damaged"]), file_part("0f3c:HDR,damaged")
    ('0f3c:HDR,damaged', '0f3c')
    """
    return ":".join(filter(None, [file, ",".join(otherwise)]))


def file_part(pixels: str) -> str:
    """The `FrameSource.digest` in the result of `pixels_digest`."""
    return pixels.partition(":")[0]


def picture_pattern(raw: Path, folder: Path) -> Pictures | None:
    """Find the numbered images in `raw / folder`, whatever their naming; None if there are none.

    If there are several namings, the most common one is used, and among equally common ones the
    first by name. The number of an image is that of its frame, and missing images are missing
    frames.
    """
    # naming (before, after the number) -> numbers, as they are written
    numbers_of: dict[tuple[str, str], list[str]] = {}
    for entry in scan_folder(raw / folder, {}):
        match = match_numbered(entry.name)
        if match is not None:
            numbers_of.setdefault((match["before"], match["after"]), []).append(match["number"])
    if not numbers_of:
        return None
    n_images = max(map(len, numbers_of.values()))
    before, after = min(
        naming for naming, numbers in numbers_of.items() if len(numbers) == n_images
    )
    digits = _least_digits(numbers_of[before, after])
    return Pictures(raw, f"{folder.as_posix()}/{before}{{:0{digits}d}}{after}")


def _least_digits(numbers: Sequence[str]) -> int:
    """To how many digits most of the numbers are padded with zeros.

    >>> _least_digits(["000001", "000002", "1000000"]), _least_digits(["9", "10"])
    (6, 1)
    """
    n_of_length = Counter(map(len, numbers))
    padded_lengths = {len(number) for number in numbers if number[0] == "0" and len(number) > 1}
    if not padded_lengths:
        return min(n_of_length)
    # of equally common lengths, `max` returns the first
    return max(sorted(padded_lengths), key=n_of_length.__getitem__)


def match_numbered(name: str) -> re.Match[str] | None:
    """Match the parts of a numbered image's name; None for other names and litter."""
    # A name that is not printable, or not UTF-8, could not be part of a line in the cache.
    if is_litter(name) or not name.isprintable():
        return None
    return NUMBERED.fullmatch(name)
