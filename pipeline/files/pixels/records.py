"""Images inside a TFRecord: frame i is image i of one example.  [pixels] -> crops -> features"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats import tfrecords
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.tfrecords import Example
from pipeline.files.pixels.decode import PictureError, decode, picture_size
from pipeline.files.pixels.frames import Frame, below, increasing
from pipeline.files.raw.files import cached, span_digest

PICTURES: Final = "image/encoded"
MAX_PICTURES: Final = 1 << 16  # in an example. InstaVariety's longest has 500
AGAIN: Final = "Unpack or download this file again."

_PLACE: Final = re.compile(r"(?P<path>.+)@(?P<start>[0-9]{1,18})\+(?P<length>[0-9]{1,18})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RecordPictures:
    """The images of the example in the bytes [start, start + length) of a TFRecord file, its header included."""

    root: Path
    path: str  # below root
    start: int
    length: int
    random_access: ClassVar[bool] = False  # the record is read as a whole

    def __post_init__(self) -> None:
        below(self.root, self.path)

    @property
    def spec(self) -> str:
        return f"record:{self.path}@{self.start}+{self.length}"

    @property
    def place(self) -> Path:
        return self.root / self.path

    @classmethod
    def from_spec(cls, root: Path, rest: str) -> RecordPictures:
        match = _PLACE.fullmatch(rest)
        if match is None:
            raise PipelineError(f"pixel source 'record:{rest}' does not end in '@', the first byte, '+' and the length")
        return cls(root, match["path"], int(match["start"]), int(match["length"]))

    def size(self) -> tuple[int, int]:
        problem = "none"
        for picture in self.pictures():
            try:
                return picture_size(picture)
            except PictureError as error:
                problem = f"one that {error}"
        expected = "a readable image"
        raise RawDataError(self.place, PICTURES, expected=expected, found=problem, do=AGAIN, reason="no_picture")

    def digest(self) -> str:
        content = span_digest(self.place, self.start, self.start + self.length)
        return hashlib.sha256(f"record\0{content}".encode()).hexdigest()

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
                yield Frame(index, None, f"{self.place}: its example has {len(pictures)} pictures", "picture_missing")
            else:
                yield self._frame(index, pictures[index])

    @cached
    def example(self) -> Example:
        """The example, both CRCs checked; keeps the record in memory.

        Raises RawDataError: `no_tfrecord` for another file format, `record_damaged` for an unreadable record.
        """
        stop = self.start + self.length
        key = f"bytes {self.start} to {stop}"
        try:
            data = tfrecords.read(self.place, self.start, stop)
        except tfrecords.NoTFRecord as error:
            do = f"{AGAIN} Shards must not be compressed."
            expected, reason = "a TFRecord file", "no_tfrecord"
            raise RawDataError(self.place, "file", expected=expected, found=str(error), do=do, reason=reason) from error
        except (tfrecords.TFRecordError, OSError) as error:
            problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise RawDataError(
                self.place, key, expected="an intact record", found=problem, do=AGAIN, reason="record_damaged"
            ) from error
        with reading(self.place, "a tf.train.Example", key=key, do=AGAIN):
            return Example.parse(data)

    @cached
    def pictures(self) -> list[bytes]:
        """The compressed images. Raises RawDataError as `example`, and if there are none."""
        with reading(self.place, "a list of pictures", key=PICTURES, do=AGAIN):
            return self.example().bytes_list(PICTURES, MAX_PICTURES)

    def _frame(self, index: int, picture: bytes) -> Frame:
        try:
            return Frame(index, decode(picture), None)
        except PictureError as error:
            return Frame(index, None, f"{self.place}: picture {index} of the record {error}", error.kind)
